"""What masked pre-training adds where labels are few, on phantoms and several seeds.

``python -m benchmarks.few_labels`` writes ``benchmarks/results/few_labels.json`` and prints a
table. Each seed has phantoms of its own (`lens.cohort.factor_phantom`), a random start and its own
pre-training on a pool without labels. Every task is then learnt from the random start and from the
pre-trained encoder, with several numbers of labels, all parameters or the head alone, and scored on
phantoms that no training saw. Both sides have the same labels, steps and batches, and each may
choose among the same rates by its loss on validation phantoms.

What is finished is not made again. ``--seeds 1 --out part.json`` makes one seed, and
``--merge FILES`` puts such files together. ``--minutes`` starts nothing new after that time; the
most telling parts come first. On a GPU, ``XLA_FLAGS=--xla_gpu_autotune_level=0`` saves minutes of
compilation.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks import harness
from benchmarks.few_labels_config import Config, settings, tell
from benchmarks.few_labels_data import Sizes, Volumes, prepare, truth
from benchmarks.few_labels_summary import (
    SCORES,
    TARGETS,
    Part,
    merged,
    part_name,
    plan,
    summarise,
    table,
    without_looking,
)


def main(config: Config) -> None:
    """Trains everything that is not there yet, or merges; writes and prints the table."""
    if config.merge:
        write(config.out, *merged([json.loads(path.read_text()) for path in config.merge]))
        return
    import encoders  # noqa: F401  JAX starts here, not for --help

    runs: dict[str, Any] = {}
    for seed in config.seeds:
        for name, result in one_seed(config, seed):
            runs[name] = result
            write(config.out, about(config), runs, told=False)
    write(config.out, about(config), runs)


def about(config: Config) -> dict[str, Any]:
    """Machine, versions and settings."""
    facts = harness.facts(config, "jax", "flax", "optax")
    kept = ("seeds", *settings(config))
    facts["config"] = {name: value for name, value in facts["config"].items() if name in kept}
    return facts


def write(path: Path, facts: dict[str, Any], runs: dict[str, Any], *, told: bool = True) -> None:
    """Writes the record, and prints the table if asked."""
    from lens.files import write_json

    summary = summarise(runs, facts["config"]["counts"])
    write_json(path, {**facts, "summary": summary, "runs": runs})
    if told:
        print(table(summary), path, sep="\n", flush=True)


def one_seed(config: Config, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every part of a seed as it is finished, under its name."""
    folder, sizes = config.folder / f"seed-{seed}", config.sizes(seed)
    keep_settings(config, folder / "settings.json")
    names = [f"seed-{seed}/pretraining", *(part_name(seed, *part) for part in plan(config.counts))]
    finished = [(config.folder / name / "result.json").is_file() for name in names]
    # Other processes draw and XLA compiles while this one pre-trains.
    with ThreadPoolExecutor(1) as drawing, ThreadPoolExecutor(4) as compiling:
        wanted = ("labelled",) if finished[0] else ("pool", "labelled")
        drawn = {
            name: drawing.submit(prepare, folder / name, sizes, name, config.processes)
            for name in wanted
        }
        start = random_start(config, seed)
        programs = [] if all(finished) else compile_all(config, start, compiling)
        for waiting in (*programs[:1], drawn[wanted[0]]):
            waiting.result()
        tell(f"seed {seed}: the first phantoms are drawn")
        pretrained, result = pretrained_encoder(config, sizes, start, seed)
        yield names[0], result
        for waiting in (*programs, drawn["labelled"]):
            waiting.result()
        tell("compiled, and all phantoms drawn")
    volumes = Volumes(folder / "labelled")
    known = {target: truth(folder / "labelled", target) for target in TARGETS}
    encoders = {"random": start, "pretrained": pretrained}
    for name, part in zip(names[1:], plan(config.counts), strict=True):
        done = config.folder / name / "result.json"
        if not done.is_file() and config.out_of_time():
            continue
        args = (config, volumes, known[part.target], sizes, encoders[part.start], seed, part)
        yield name, _once(done, lambda args=args: trained(*args), told=name)


def keep_settings(config: Config, path: Path) -> None:
    """Keeps the settings of a folder, whose finished parts are not made again.

    Raises:
        SystemExit: the folder holds parts of other settings.
    """
    from lens.files import write_json

    own = settings(config)
    if path.is_file() and json.loads(path.read_text()) != json.loads(json.dumps(own)):
        raise SystemExit(f"{path.parent} holds parts of other settings; choose another --folder")
    write_json(path, own)


def random_start(config: Config, seed: int) -> Any:
    """The encoder of a seed before any training."""
    from flax import nnx

    from encoders.convnext import STEM_BIAS, ConvNeXtV2, ConvNeXtV2Config

    layout = ConvNeXtV2Config(depths=config.depths, widths=config.widths, strides=config.strides)
    return ConvNeXtV2(layout, rngs=nnx.Rngs(seed), stem_bias=STEM_BIAS)


def pretrained_encoder(
    config: Config, sizes: Sizes, start: Any, seed: int
) -> tuple[Any, dict[str, Any]]:
    """The start, pre-trained on the pool, and its losses."""
    from encoders import load, save

    folder = config.folder / f"seed-{seed}/pretraining"

    def observe(curves: Any) -> None:
        if len(curves.loss) % 5 == 0:
            tell(f"epoch {len(curves.loss)}: masked loss {curves.validation[-1]:.3f}")

    def make() -> dict[str, Any]:
        volumes = Volumes(config.folder / f"seed-{seed}/pool")
        rows, epochs = sizes.rows("pool"), config.pretrain_epochs
        if config.pretrain_minutes is not None:
            few, ends = rows[: 20 * config.pretrain_batch], []
            pretrain_once(
                config, volumes, start, few, sizes.rows("pool_val"), 3, seed,
                lambda _: ends.append(time.monotonic()),
            )  # fmt: skip
            # Of a pass over the pool, its validation counted too often.
            seconds = (ends[2] - ends[0]) / 2 * len(rows) / len(few)
            epochs = min(epochs, max(1, int(60 * config.pretrain_minutes / seconds)))
            tell(f"{seconds:.1f} s a pass: {epochs} epochs of pre-training")
        began = time.monotonic()
        encoder, history = pretrain_once(
            config, volumes, start, rows, sizes.rows("pool_val"), epochs, seed, observe
        )
        save(folder / "encoder", encoder)
        curves = history.curves
        return {
            "epochs": epochs,
            "masked_loss_start": curves.start,
            "masked_loss_end": curves.best,
            "best_epoch": curves.best_epoch,
            "masked_loss": curves.validation.round(4).tolist(),
            "seconds": time.monotonic() - began,
        }

    result = _once(folder / "result.json", make, told=f"seed-{seed}/pretraining")
    return load(folder / "encoder"), result


def pretrain_once(
    config: Config,
    volumes: Any,
    start: Any,
    rows: Any,
    val: Any,
    epochs: int,
    seed: int,
    observe: Callable[[Any], None] | None = None,
) -> Any:
    """A pre-training: encoder and history."""
    from encoders import MaskingSettings, Tracking, TrainingSettings, pretrain

    side = 4 * int(np.prod(config.strides))

    return pretrain(
        start,
        volumes,
        train_rows=rows,
        val_rows=val,
        masking=MaskingSettings(
            patch=(side,), width=config.pretrain_width, target="input", visible_weight=1.0
        ),
        settings=TrainingSettings(
            epochs=epochs,
            batch_size=config.pretrain_batch,
            learning_rate=config.pretrain_rate,
            seed=seed,
        ),
        tracking=Tracking(observe=observe, progress=False),
    )


def trained(
    config: Config, volumes: Any, labels: Any, sizes: Sizes, encoder: Any, seed: int, part: Part
) -> dict[str, Any]:
    """One part: the score of the rate with the smallest validation loss, and what was tried."""
    from experiments.finetune import score

    task, began = TARGETS[part.target], time.monotonic()
    test, tried = sizes.rows("test"), []
    # Few labels are repeated up to the volumes of an epoch, so that all counts have equal steps.
    rows = np.resize(sizes.rows("train")[: part.count], config.epoch_volumes)
    for rate in config.rates if part.way == "full" else config.probe_rates:
        tuned, history = finetune_once(
            config, volumes, labels, encoder, task, rows, sizes.rows("val"), rate, seed, part.way
        )
        found = score(tuned, history, volumes, labels, test, config.batch)
        tried.append(
            {
                "rate": rate,
                "validation": history.curves.best,
                "best_epoch": history.curves.best_epoch,
                "score": found[SCORES[task]],
            }
        )
    best = min(tried, key=lambda each: each["validation"])
    return {
        "score": best["score"],
        "rate": best["rate"],
        "chance": without_looking(task, labels, test),
        "tried": tried,
        "seconds": time.monotonic() - began,
    }


def finetune_once(
    config: Config,
    volumes: Any,
    labels: Any,
    encoder: Any,
    task: Any,
    rows: Any,
    val: Any,
    rate: float,
    seed: int,
    way: str,
) -> Any:
    """A fine-tuning: encoder and history."""
    from encoders import HeadSettings, Tracking, TrainingSettings, finetune

    frozen = way == "frozen"
    probe, width = frozen and task != "segmentation", config.decoder_width
    return finetune(
        encoder,
        volumes,
        labels,
        task=task,
        train_rows=rows,
        val_rows=val,
        settings=TrainingSettings(
            epochs=config.probe_epochs if probe else config.epochs,
            batch_size=config.batch,
            learning_rate=rate,
            freeze=frozen,
            seed=seed,
        ),
        head=HeadSettings(decoder_width=width, auxiliary_width=width // 2),
        tracking=Tracking(progress=False),
    )


def compile_all(config: Config, start: Any, threads: ThreadPoolExecutor) -> list[Future[None]]:
    """Begins to compile what every part uses, side by side, on a batch of noise; pre-training is
    the first."""
    rng, once = np.random.default_rng(0), replace(config, epochs=1)
    count = max(config.batch, config.pretrain_batch)
    noise = rng.standard_normal((count, *config.shape, 3), np.float32)
    labels = {
        "classification": 1 + np.arange(count) % 3,
        "regression": rng.standard_normal(count),
        "segmentation": noise[..., 0] > 1,
    }

    def pretraining() -> None:
        rows = np.arange(config.pretrain_batch)
        pretrain_once(config, noise, start, rows, rows, 1, 0)

    def finetuning(task: str) -> None:
        rows = np.arange(config.batch)
        tuned, history = finetune_once(
            once, noise, labels[task], start, task, rows, rows, 1e-4, 0, "full"
        )
        history.predict(tuned, noise, rows, batch_size=config.batch)

    return [threads.submit(pretraining), *(threads.submit(finetuning, task) for task in labels)]


def _once(done: Path, make: Callable[[], dict[str, Any]], *, told: str) -> dict[str, Any]:
    """The result of a part: as it is kept, or made and kept."""
    from lens.files import write_json

    if not done.is_file():
        result = make()
        write_json(done, result)
        shown = f"{result['score']:.3f}" if "score" in result else "done"
        tell(f"{told}: {shown}, {result['seconds']:.0f} s")
    return json.loads(done.read_text())


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
