"""The album of a finished run: where its images are, as ``run.json`` tells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lens.cache import read_record
from lens.errors import InputError
from lens.places import replace_paths
from lens.report.album import HIDDEN, LEFT_OUT, TABLES, Album
from lens.settings import NiftiForm

PHANTOMS = Path("cohort") / "cohort.csv"
"""Manifest of the embedded default, in the run folder."""


@dataclass(frozen=True)
class RecordedFlags:
    """The flags of a cohort as a run recorded them.

    Attributes:
        cohort: the manifest.
        modalities, rois: columns with images, with masks; none leaves them to be recognised.
        kind: ``NAME=KIND``, what the numbers of a modality mean.
        nifti_form: which placement of a NIfTI header to use.
    """

    cohort: Path
    modalities: tuple[str, ...]
    rois: tuple[str, ...]
    kind: tuple[str, ...]
    nifti_form: NiftiForm | None


def album_of(
    folder: Path,
    *,
    images: bool = True,
    hidden: bool = False,
    cohort: Path | None = None,
    label: tuple[str, ...] = (),
) -> Album:
    """The album of a run folder; whatever is not there any more, it says so.

    Args:
        folder: of a finished run.
        images: False leaves pictures out (``--no-images``).
        hidden: patients are to be hidden (``--anonymise``).
        cohort: manifest of the images of a run that was given tables.
        label: ``NAME=VALUES`` of its masks.

    Raises:
        InputError: `cohort` cannot be used, or `label` goes without it.
    """
    if label and cohort is None:
        raise InputError("--label needs --cohort: a run from images knows its regions")
    config = read_record(folder / "run.json").get("config")
    config = config if isinstance(config, dict) else {}
    if hidden or config.get("anonymise"):
        return Album(HIDDEN)
    if not images:
        return Album(LEFT_OUT)
    if cohort is not None:
        return _read(RecordedFlags(cohort, (), (), (), None), label, None)
    # A folder of `lens.compare` has no such flags.
    if config.get("pre") or "cohort" not in config:
        return Album(TABLES)
    return _of_manifest(folder, config)


def _of_manifest(folder: Path, config: dict[str, Any]) -> Album:
    given = config["cohort"]
    flags = RecordedFlags(
        cohort=Path(given) if given else folder / PHANTOMS,
        modalities=tuple(config.get("modalities") or ()) if given else (),
        rois=tuple(config.get("rois") or ()) if given else (),
        kind=tuple(config.get("kind") or ()),
        nifti_form=config.get("nifti_form"),
    )
    label, spacing = tuple(config.get("label") or ()), config.get("spacing")
    if not flags.cohort.is_file():
        return Album(
            f"The manifest of the run's images, {flags.cohort.name}, is not where it was, so that "
            "there are no pictures."
        )
    try:
        x, y, z = map(float, spacing or (0, 0, 0))
        return _read(flags, label, (x, y, z) if spacing else None)
    except (OSError, TypeError, ValueError) as error:
        # Words that are not ours may hold anything.
        said = str(error) if isinstance(error, InputError) else type(error).__name__
        reason = replace_paths(said, {str(flags.cohort): flags.cohort.name})
        return Album(f"There are no pictures, since the run's images cannot be read: {reason}.")


def _read(
    flags: RecordedFlags, label: tuple[str, ...], spacing: tuple[float, float, float] | None
) -> Album:
    from experiments.common.cohorts import read_cohort, spacing_of
    from lens.cohort import parse_labels

    cohort = read_cohort(flags, label=label, told=False)
    return Album("", cohort, spacing_of(cohort, spacing), parse_labels(label))
