"""Checkpoints of a training: all that the next step depends on, whole or not at all."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import PyTree

from encoders.checkpoints import forget_place
from lens.disk import array_hash
from lens.errors import InputError
from lens.unfinished import undisturbed

log = logging.getLogger(__name__)

Tree = TypeVar("Tree")

_HASH = "content_sha256"


@dataclass(frozen=True)
class TrainingRecord:
    """Losses and facts of a training so far: all that a checkpoint holds besides arrays.

    The order of the data is a function of the seed (in `facts`) and the step.

    Attributes:
        facts: what the run depends on; another run's checkpoint differs in them.
        step: how many steps were made.
        step_loss: of each.
        loss: mean training loss of each finished epoch.
        validation: validation loss of each finished epoch; NaN without any.
        start: validation loss before the first step; NaN without any.
        best_epoch: from 0; -1 as long as no epoch was better than the start.
    """

    facts: Mapping[str, Any]
    step: int = 0
    step_loss: Sequence[float] = ()
    loss: Sequence[float] = ()
    validation: Sequence[float] = ()
    start: float = float("nan")
    best_epoch: int = -1

    @property
    def best(self) -> float:
        """The lowest validation loss so far, that of the start among them."""
        return self.start if self.best_epoch < 0 else self.validation[self.best_epoch]

    def after(self, step: int, losses: Sequence[float]) -> TrainingRecord:
        """With the losses of further steps."""
        return replace(self, step=step, step_loss=[*self.step_loss, *losses])

    def close(self, loss: float, validation: float, *, best: bool) -> TrainingRecord:
        """With an epoch finished."""
        number = len(self.loss)
        return replace(
            self,
            loss=[*self.loss, loss],
            validation=[*self.validation, validation],
            best_epoch=number if best else self.best_epoch,
        )


def save_training(folder: Path, state: PyTree, best: PyTree, record: TrainingRecord) -> None:
    """Writes a checkpoint; the one before is removed once the new one is complete."""
    import orbax.checkpoint as ocp

    named = _by_name((state, best))
    # A stop waits for it: Orbax has files of its own on the way, which no lock knows.
    with undisturbed(), _manager(folder) as manager:
        manager.save(
            record.step,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardSave(named),
                progress=ocp.args.JsonSave({**asdict(record), _HASH: _content_hash(named)}),
            ),
        )
    forget_place(folder / str(record.step))


def restore_training(
    folder: Path, state: Tree, best: PyTree, start: TrainingRecord
) -> tuple[Tree, PyTree, TrainingRecord]:
    """The last complete checkpoint, or the arguments where there is none.

    Raises:
        InputError: it is of another run (names what differs), cannot be read, does not hold what
            was written, or is of a version that did not score the start.
    """
    import orbax.checkpoint as ocp

    with _manager(folder) as manager:
        step = manager.latest_step()
        if step is None:
            return state, best, start
        try:
            read = manager.restore(step, args=ocp.args.Composite(progress=ocp.args.JsonRestore()))
            written = read.progress.pop(_HASH, None)
            scored = "start" in read.progress
            record = TrainingRecord(**read.progress)
        except Exception as error:  # Orbax raises many kinds; to the user they are one
            raise _damaged(folder, error) from error
        if not scored:
            raise InputError(
                f"{folder}: begun by an earlier version, which did not ask whether any epoch is "
                "better than the start; delete the folder to start again, or finish it with that "
                "version"
            )
        _check_same(folder, record.facts, start.facts)
        target = _by_name((state, best))
        try:
            arrays = manager.restore(
                step,
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardRestore(jax.tree.map(_abstract, target))
                ),
            ).arrays
            _check_hash(folder, written, _content_hash(arrays))
        except Exception as error:
            raise _damaged(folder, error) from error
    leaves, tree = jax.tree.flatten((state, best))
    state, best = jax.tree.unflatten(
        tree, [_like(arrays[name], leaf) for name, leaf in zip(target, leaves, strict=True)]
    )
    return state, best, record


def _content_hash(arrays: Mapping[str, Any]) -> str:
    return array_hash(*(np.asarray(jax.device_get(arrays[name])) for name in sorted(arrays)))


def _check_hash(folder: Path, written: str | None, found: str) -> None:
    if written is None:
        log.warning(
            "%s: written before checkpoints held a hash of their contents, which is not checked",
            folder,
        )
    elif written != found:
        raise ValueError("its contents are not those that were written")


def _manager(folder: Path) -> Any:
    import orbax.checkpoint as ocp

    options = ocp.CheckpointManagerOptions(
        max_to_keep=1, create=True, enable_async_checkpointing=False
    )
    return ocp.CheckpointManager(folder.absolute(), options=options)


def _by_name(tree: PyTree) -> dict[str, Any]:
    """The leaves under the names of their paths, in order."""
    return {
        jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None))


def _like(array: Any, leaf: Any) -> Any:
    """On the host if the leaf is there, else with its sharding."""
    if isinstance(leaf, np.ndarray):
        return np.asarray(array)
    # Copied: what Orbax made must not be given away to a step that reuses its memory.
    return jax.device_put(np.array(array), leaf.sharding)


def _check_same(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    found, wanted = _flat(found), _flat(wanted)
    unknown = [name for name in wanted if name not in found]
    if unknown:
        log.warning("%s: does not tell its %s, not checked", folder, ", ".join(unknown))
    differ = [name for name in found if found[name] != wanted.get(name)]
    if differ:
        what = "; ".join(f"{k} {found[k]} there, {wanted.get(k)} now" for k in differ[:4])
        raise InputError(
            f"{folder}: holds the training of another run ({what}). Choose another folder, or "
            "delete this one to start again"
        )


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Nested facts under dotted names, tuples as the lists that JSON makes of them."""
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{key}": inner for key, inner in _flat(value).items()}
        else:
            flat[name] = list(value) if isinstance(value, tuple) else value
    return flat


def _damaged(folder: Path, error: Exception) -> InputError:
    line = (str(error).strip().splitlines() or [""])[0][:200]
    return InputError(
        f"{folder}: the checkpoint cannot be read ({type(error).__name__}: {line}); delete the "
        "folder to start again"
    )
