"""Encoders that are functions: a user's own code, or a network that another program runs.

Such a function takes volumes (n, D, H, W, C), float32 NumPy, and gives embeddings (n, d) or maps
(n, D', H', W', C') in NumPy, PyTorch or JAX. What it gives is checked here, and maps are pooled.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from encoders.segmentation import adaptive_average
from encoders.torch_files import first_line
from lens.errors import InputError, UserCodeError

log = logging.getLogger(__name__)

TOLERANCE = 0.02
"""Largest change of an embedding, relative to its largest number, that another batch may make."""

MAPS = 5
"""Axes of feature maps: volume, depth, height, width, channel."""


@dataclass(frozen=True)
class FunctionConfig:
    """What is known of a function before it is called; an `EncoderConfig`.

    Attributes:
        in_channels: that it reads; 0 where it does not say.
        features: numbers of an embedding; 0 where it has not been called.
        dims: axes of what it is shown, always those of a volume.
        dtype: of what it is shown and gives.
    """

    in_channels: int = 0
    features: int = 0
    dims: int = 3
    dtype: str = "float32"

    @property
    def widths(self) -> tuple[int, ...]:
        """A single stage."""
        return (self.features,)

    @property
    def total_strides(self) -> tuple[int, ...]:
        """Any size may be given; what does not fit the function tells."""
        return (1,)


@dataclass(frozen=True)
class FunctionEncoder:
    """A function as an encoder.

    Attributes:
        name: what to call it in messages.
        call: from volumes to embeddings or maps.
        fingerprint: of all that is known to determine its numbers, 64 hex digits.
        config: what it reads.
        users: whether the code is the user's, whose errors are shown with their traceback.
    """

    name: str
    call: Callable[[np.ndarray], Any] = field(repr=False)
    fingerprint: str
    config: FunctionConfig = FunctionConfig()
    users: bool = True

    def __call__(self, volumes: Float[np.ndarray, "n d h w c"]) -> np.ndarray:
        """Embeddings (n, f) or maps (n, D', H', W', f), float32.

        Raises:
            InputError: the function fails, or gives something else.
        """
        own = np.array(volumes, np.float32, order="C")
        try:
            with _without_gradients(), kept_folder() as left:
                given = self.call(own)
                made = as_array(given)
        except InputError:
            raise
        except (Exception, SystemExit) as error:
            if isinstance(error, MemoryError):
                raise
            if self.users:
                raise user_failure(self.name, error) from error
            raise InputError(f"{self.name}: {first_line(error)}") from error
        if left:
            # Images are read meanwhile, by paths that may be relative to it.
            raise InputError(
                f"{self.name}: changes the current folder to {left[0]} (os.chdir), which the paths "
                "of this job are relative to; use whole paths in your code instead"
            )
        n = len(volumes)
        if made is None or made.ndim not in (2, MAPS) or len(made) != n or not made.size:
            raise InputError(
                f"{self.name}: gives {_described(given, made)} for volumes of {volumes.shape}; "
                f"expected embeddings ({n}, d) or maps ({n}, D', H', W', C'), channels last"
            )
        return made

    def embed(
        self, volumes: Float[np.ndarray, "n d h w c"], masks: Bool[np.ndarray, "n d h w"] | None
    ) -> Float[np.ndarray, "n f"]:
        """Embeddings; maps are averaged, over the region where one is given.

        A position of a map stands for the voxels that an even division of the volume gives it, and
        weighs as much as the share of them that lies in the region. NaN where a mask is empty.

        Raises:
            InputError: as `__call__`, or there are masks and no maps.
        """
        return self._pooled(self(volumes), masks)

    def _pooled(self, made: np.ndarray, masks: np.ndarray | None) -> np.ndarray:
        if masks is None:
            return made if made.ndim == 2 else made.mean(axis=(1, 2, 3))
        if made.ndim == 2:
            raise InputError(
                f"{self.name}: gives embeddings {made.shape}, which no region can be read from; "
                "return feature maps (n, D', H', W', C'), or pool over the whole crop"
            )
        shares = adaptive_average(
            jnp.asarray(masks, jnp.float32)[..., None], tuple(made.shape[1:4])
        )
        weights = np.asarray(shares)
        total = weights.sum(axis=(1, 2, 3))
        sums = (made * weights).sum(axis=(1, 2, 3), dtype=np.float64)
        return (sums / np.where(total > 0, total, np.nan)).astype(np.float32)

    def try_out(self, shape: tuple[int, int, int], channels: int, *, regional: bool) -> int:
        """Calls it on made-up volumes, before any image is read; gives the embedding's width.

        Args:
            shape: (D, H, W) of the volumes, in voxels.
            channels: of the volumes.
            regional: whether regions are to be pooled over.

        Raises:
            InputError: it fails, gives NaN, maps whose channels come first, or other numbers for
                the same volume in another batch.
        """
        noise = np.random.default_rng(0).normal(size=(2, *shape, channels)).astype(np.float32)
        masks = np.ones(noise.shape[:-1], bool) if regional else None
        if (given := self(noise)).ndim == MAPS:
            _check_axes(self.name, given.shape, shape)
            *sides, width = given.shape[1:]
            log.info("%s: maps %s, %d channels", self.name, _by(sides), width)
        both = self._pooled(given, masks)
        alone = np.concatenate(
            [self.embed(noise[i : i + 1], None if masks is None else masks[:1]) for i in (0, 1)]
        )
        for made in (both, alone):
            if wrong := int((~np.isfinite(made)).sum()):
                raise InputError(
                    f"{self.name}: {wrong} of {made.size} numbers are NaN or infinite for volumes "
                    "of normal noise (mean 0, standard deviation 1, as images are given)"
                )
        apart = np.abs(both - alone).max() / max(np.abs(both).max(), 1e-30)
        if apart > TOLERANCE:
            raise InputError(
                f"{self.name}: gives other numbers for the same volume in another batch (by "
                f"{apart:.0%} of the largest); dropout or batch statistics are at work (put the "
                "model in evaluation mode, model.eval() in PyTorch), or rows are not those of the "
                "volumes in their order"
            )
        return both.shape[1]


def as_array(value: Any) -> np.ndarray | None:
    """Real numbers of NumPy, PyTorch or JAX as a float32 NumPy array; None for something else."""
    if hasattr(value, "detach"):
        if value.is_complex():
            return None
        value = value.detach().to("cpu").float().numpy()
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        return None
    array = np.asarray(value)
    # JAX's bfloat16 is of a kind that NumPy does not know.
    return array.astype(np.float32) if array.dtype.kind in "fiuV" else None


def user_failure(name: str, error: BaseException) -> UserCodeError:
    """An error of the user's code, with its traceback from where that code begins."""
    place = error.__traceback__
    while place is not None and _is_ours(place):
        place = place.tb_next
    shown = traceback.format_exception(type(error), error, place, chain=False)
    failure = UserCodeError(
        f"{name}: your own code raised {first_line(error)}; it is no part of this program, look "
        "for the cause there"
    )
    failure.add_note(f"The traceback of your code:\n{''.join(shown).rstrip()}")
    return failure


def _is_ours(place: TracebackType) -> bool:
    file = Path(place.tb_frame.f_code.co_filename)
    return file.parent == Path(__file__).parent or "importlib" in str(file)


def _without_gradients() -> AbstractContextManager[Any]:
    torch = sys.modules.get("torch")
    return torch.no_grad() if torch is not None else nullcontext()


@contextmanager
def kept_folder() -> Iterator[list[Path]]:
    """Goes back to the current folder where the user's code has left it, for the list of it."""
    here, left = Path.cwd(), []
    try:
        yield left
    finally:
        if (there := _current()) != here:
            left.append(there or Path())
            os.chdir(here)


def _current() -> Path | None:
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None


def _check_axes(name: str, made: Sequence[int], shape: Sequence[int]) -> None:
    """Refuses maps whose axes 1 to 3 are not depth, height and width, as far as that can be told.

    A network's strides divide the volume evenly, and its maps are no larger than the volume.
    """
    sides, channels_first = tuple(made[1:4]), tuple(made[2:5])
    what = f"{name}: gives maps {tuple(made)} for volumes of {_by(shape)} voxels"
    first = (
        f"{what}; channels come last, and here they seem to come first: return them with "
        "movedim(1, -1) in PyTorch, moveaxis(maps, 1, -1) in NumPy and JAX"
    )
    if _divides(channels_first, shape) and not _divides(sides, shape):
        raise InputError(first)
    if any(side > whole for side, whole in zip(sides, shape, strict=True)):
        if all(side <= whole for side, whole in zip(channels_first, shape, strict=True)):
            raise InputError(first)
        raise InputError(
            f"{what}, larger than those; return feature maps (n, D', H', W', C') of the volume's "
            "axes in their order, or embeddings (n, d)"
        )


def _by(sides: Sequence[int]) -> str:
    return " x ".join(map(str, sides))


def _divides(sides: Sequence[int], shape: Sequence[int]) -> bool:
    return all(whole % side == 0 for side, whole in zip(sides, shape, strict=True))


def _described(given: Any, made: np.ndarray | None) -> str:
    """What was given in place of numbers, and how to give them."""
    if made is not None:
        return f"an array {made.shape}"
    kind = type(given).__name__
    if given is None:
        return "nothing (None; does it end with return?)"
    if hasattr(given, "shape"):
        if "complex" in str(getattr(given, "dtype", "")):
            return (
                f"complex numbers ({kind} of {given.dtype}; return magnitudes, or real and "
                "imaginary part side by side)"
            )
        return f"no array of numbers ({kind} of {getattr(given, 'dtype', 'no type')})"
    if isinstance(given, Mapping):
        keys = ", ".join(repr(key) for key in list(given)[:6])
        return f"no array of numbers but a {kind} with the keys {keys} (return one of its arrays)"
    if isinstance(given, tuple | list) and any(hasattr(each, "shape") for each in given):
        return f"no array of numbers but a {kind} of {len(given)} (return one of them, or stack)"
    if isinstance(given, tuple | list):
        return f"no array of numbers but a {kind} (return numpy.asarray of it)"
    if callable(given):
        return (
            f"no array of numbers but a {kind} (what makes an encoder is called once where it has "
            "no parameters at all; leave its parameters out, also those with defaults)"
        )
    if inspect.isgenerator(given) or inspect.isawaitable(given):
        return f"no array of numbers but a {kind} (return them, without yield and async)"
    return f"no array of numbers but a {kind}"
