"""An archive as a cohort manifest, ``cohort.csv``, the check of one, and phantoms from one.

``python -m experiments.prepare picai --images DIR --labels DIR --out cohort.csv``
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

import tyro

from experiments.common.cli import DONE, SET_ASIDE, alone, run
from experiments.common.layouts import LAYOUTS
from lens.lock import of_file
from lens.ranges import EDGE_MM, SEED, first_problem
from lens.settings import NiftiForm

if TYPE_CHECKING:
    from lens.cohort.prepared import Prepared
    from lens.errors import CaseError

SHOWN = 10
"""Lines of a list that are printed; the file beside the manifest holds all of them."""


@dataclass(frozen=True)
class PiCai:
    """Finds the studies of the PI-CAI archive and its public labels, as downloaded.

    Nothing is converted or copied. Studies that cannot be used are listed in failures.csv beside
    the manifest (exit code 3). The label pirads is the highest category of a study's lesions; the
    cell as found is kept in pirads_lesions.
    """

    labels: Path
    """Folder of the labels repository (or with gland, zones, lesion and marksheet.csv)."""

    out: Path
    """Manifest to write (.csv); its paths are relative to its folder where possible."""

    images: Path | None = None
    """Folder into which the archive, or some of its folds, was unpacked. Without it the manifest
    lists masks and labels only, as phantoms on real anatomy take them."""

    modalities: tuple[str, ...] = ()
    """Images that a study must have; t2, dwi and adc by default."""

    def find(self) -> Prepared:
        """The studies and what cannot be used."""
        from lens.cohort.picai import IMAGES, prepare_picai

        modalities = _known(self.modalities, IMAGES)
        return prepare_picai(self.images, self.labels, modalities=modalities)


@dataclass(frozen=True)
class ProstateX:
    """Finds the studies of a DICOM tree, such as ProstateX as downloaded.

    Series are recognised by their DICOM headers, whatever the folders are called: axial T2, the
    diffusion series with the highest b-value, ADC.
    """

    dicom: Path
    """Folder with the DICOM files, one series per folder."""

    gland: str
    """Pattern of the gland masks, such as 'masks/{patient}_gland.nii.gz'; {patient} is the
    PatientID and {study} the StudyInstanceUID."""

    out: Path
    """Manifest to write (.csv); its paths are relative to its folder where possible."""

    lesion: str | None = None
    """Pattern of the lesion masks; a study without one has no lesion."""

    zones: str | None = None
    """Pattern of the zone masks (1 peripheral, 2 transition)."""

    root: Path | None = None
    """Folder where relative patterns start; the DICOM folder by default."""

    table: Path | None = None
    """Labels to add: .csv or .parquet with patient_id and optionally study_id."""

    repeated: Literal["refuse", "first", "last"] = "refuse"
    """Which of several series of one kind to take, by series number."""

    modalities: tuple[str, ...] = ()
    """Images that a study must have; t2, dwi and adc by default."""

    def find(self) -> Prepared:
        """The studies and what cannot be used."""
        from lens.cohort.dicom_tree import RECOGNISED, prepare_dicom

        masks = _given(gland=self.gland, zones=self.zones, lesion=self.lesion)
        prepared = prepare_dicom(
            self.dicom,
            masks,
            mask_root=self.root,
            modalities=_known(self.modalities, RECOGNISED),
            repeated=self.repeated,
        )
        return _labelled(prepared, self.table)


@dataclass(frozen=True)
class Glob:
    """Finds the studies of a folder whose files follow a naming rule of their own.

    {patient} and {study} stand for a part of a name; *, ?, [abc] and ** are as in a shell:
    --t2 'sub-{patient}/ses-{study}/anat/*_T2w.nii.gz'. Quote the patterns. Where several files fit
    one pattern the study is set aside with their names.
    """

    gland: str
    """Pattern of the gland masks."""

    out: Path
    """Manifest to write (.csv); its paths are relative to its folder where possible."""

    root: Path = Path()
    """Folder where relative patterns start."""

    t2: str | None = None
    """Pattern of the T2-weighted images (files, or folders of a DICOM series)."""

    dwi: str | None = None
    """Pattern of the high b-value images."""

    adc: str | None = None
    """Pattern of the ADC maps."""

    image: tuple[str, ...] = ()
    """Patterns of images of any modality, such as t2=PATTERN; instead of the three above."""

    lesion: str | None = None
    """Pattern of the lesion masks; a study without one has no lesion."""

    zones: str | None = None
    """Pattern of the zone masks (1 peripheral, 2 transition)."""

    table: Path | None = None
    """Labels to add: .csv or .parquet with patient_id and optionally study_id."""

    def find(self) -> Prepared:
        """The studies and what cannot be used."""
        from lens.cohort.patterns import prepare_patterns
        from lens.cohort.prostate import MODALITIES
        from lens.errors import InputError

        images = _given(t2=self.t2, dwi=self.dwi, adc=self.adc)
        for argument in self.image:
            name, _, pattern = argument.partition("=")
            if not pattern or name in images:
                raise InputError(f"--image {argument!r}: give MODALITY=PATTERN, each modality once")
            images |= {_known((name,), MODALITIES)[0]: pattern}
        if not images:
            raise InputError(
                f"no image is asked for. Give a pattern to at least one of {', '.join(MODALITIES)}"
            )
        masks = _given(gland=self.gland, zones=self.zones, lesion=self.lesion)
        return _labelled(prepare_patterns(self.root, images | masks), self.table)


ARCHIVES = {"picai": PiCai, "prostatex": ProstateX, "glob": Glob} | LAYOUTS
"""Command -> how an archive is found: its flags, ``out`` among them, and ``find()``."""


@dataclass(frozen=True)
class Check:
    """Opens every case of a manifest and writes the geometry report.

    A row per image and mask: on the same grid (identical), rounding of the headers (snapped), axes
    stored otherwise (reoriented), a grid of its own (resampled; for masks with Dice and volume
    change) or refused, with the reason; and the label values found and taken. What is refused is
    listed in failures.csv beside the report, too (exit code 3).
    """

    cohort: Path
    """Manifest: patient_id, a column per modality and a column per region (paths)."""

    out: Path
    """Report to write (.csv or .parquet)."""

    modalities: tuple[str, ...] = ()
    """Columns with images, in order, such as ct; by default t2, dwi and adc, or those recognised as
    images."""

    rois: tuple[str, ...] = ()
    """Columns with masks, such as tumour; by default gland and lesion, or those recognised as
    masks."""

    kind: tuple[str, ...] = ()
    """What the numbers of a modality mean where its name does not say: NAME=mr (arbitrary units),
    NAME=ct (Hounsfield units), NAME=8-bit (ultrasound, X-ray) or NAME=units (a map)."""

    label: tuple[str, ...] = ()
    """Mask values that make a region, such as gland=1,2 lesion=3; every value above 0 by default.
    Where there is one column with masks, names of your own make several regions of it:
    anterior=1 posterior=2."""

    nifti_form: NiftiForm | None = None
    """Which placement of a NIfTI header to use, qform or sform; without it, files in which the two
    disagree are refused."""

    spacing: tuple[float, float, float] | None = None
    """Voxel size in mm (x y z) to which images and masks are resampled; default 0.5 0.5 1.0, of
    single slices 1 1 (pixels where the files have no pixel size)."""


@dataclass(frozen=True)
class Phantoms:
    """Simulates T2, DWI and ADC for real anatomy: the masks and labels of a manifest.

    Shapes, labels and splits are the manifest's, the tissue is simulated (a lesion's contrast by
    pirads or else isup), so that whole runs can be tried without real images. A second run makes
    only what is missing or changed. Cases that cannot be used are listed in failures.csv (exit
    code 3).
    """

    cohort: Path
    """Manifest: patient_id, gland and optionally zones and lesion (paths), and labels. Image
    columns are passed over."""

    out: Path
    """Folder to write: cohort.csv and a folder per case."""

    seed: int = 0
    """Seed of the tissue."""

    spacing: float = 0.5
    """Finest voxel edge of the T2 images in mm; finer masks are sampled to it."""

    nifti_form: NiftiForm | None = None
    """Which placement of a NIfTI header to use, qform or sform; without it, files in which the two
    disagree are refused."""


COMMANDS = ARCHIVES | {"check": Check, "phantoms": Phantoms}

Config = Union[  # noqa: UP007, made of the table
    tuple(Annotated[kind, tyro.conf.subcommand(name)] for name, kind in COMMANDS.items())
]


@alone(lambda config: of_file(config.out, config.out))
def job(config: Any) -> int:
    """Archive to manifest, or manifest to report or phantoms; gives the exit code.

    Args:
        config: of one of `COMMANDS`.
    """
    _check_values(config)
    if isinstance(config, Check):
        return _check(config)
    if isinstance(config, Phantoms):
        return _phantoms(config)
    from lens.cohort.prepared import write_manifest

    prepared = config.find()
    write_manifest(prepared, config.out)
    return _report(prepared, config.out)


def _check_values(config: Any) -> None:
    """Refuses a spacing or a seed that is out of range."""
    from experiments.common.flags import as_flag
    from lens.errors import InputError

    ranges = {"spacing": EDGE_MM, "seed": SEED}
    given = ((name, getattr(config, name, None), allowed) for name, allowed in ranges.items())
    if problem := first_problem(each for each in given if each[1] is not None):
        raise InputError(as_flag(problem))


def _known(names: Sequence[str], known: Iterable[str]) -> Sequence[str]:
    """The names, all that are known where none is given."""
    from lens.errors import InputError

    known = tuple(known)
    for name in names:
        if name not in known:
            raise InputError(f"modality {name!r}: use {', '.join(known)}")
    return names or known


def _given(**patterns: str | None) -> dict[str, str]:
    """The patterns that are not left out."""
    return {name: pattern for name, pattern in patterns.items() if pattern}


def _labelled(prepared: Prepared, table: Path | None) -> Prepared:
    """With the labels of a table, if there is one."""
    from lens.cohort.prepared import join_labels

    return prepared if table is None else join_labels(prepared, table)


def _report(prepared: Prepared, out: Path) -> int:
    """Writes the list of studies set aside and prints both lists, shortened."""
    from lens.cohort.prepared import notes_path

    print(f"{_studies(len(prepared.rows))}: {out}")
    if prepared.flags:
        print(f"for the jobs that read it: {' '.join(prepared.flags)}")
    if prepared.notes:
        _list(f"{len(prepared.notes)} note(s)", prepared.notes, notes_path(out))
    return _set_aside(prepared.set_aside, out)


def _check(config: Check) -> int:
    from experiments.common.cohorts import read_cohort, spacing_of
    from lens.cohort import parse_labels
    from lens.cohort.geometry_report import geometry_report
    from lens.files import write_table

    labels = parse_labels(config.label)
    cohort = read_cohort(config, label=config.label)
    spacing = spacing_of(cohort, config.spacing)
    table, errors = geometry_report(cohort, spacing_mm=spacing, labels=labels)
    write_table(table, config.out)
    counts = table["verdict"].value_counts()
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    print(f"{_studies(len(cohort.cases))}, images and masks: {verdicts}: {config.out}")
    return _set_aside(errors, config.out)


def _phantoms(config: Phantoms) -> int:
    from lens.cohort import read_manifest
    from lens.cohort.anatomy import write_phantoms_on

    manifest, errors = write_phantoms_on(
        read_manifest(config.cohort, images=False, nifti_form=config.nifti_form),
        config.out,
        config.seed,
        spacing_mm=config.spacing,
    )
    print(f"phantoms: {manifest}")
    return _set_aside(errors, manifest)


def _set_aside(errors: Sequence[CaseError], out: Path) -> int:
    from lens.files import write_failures

    failures = out.parent / "failures.csv"
    write_failures(errors, failures)
    if not errors:
        return DONE
    _list(f"{_studies(len(errors))} set aside", errors, failures)
    return SET_ASIDE


def _studies(n: int) -> str:
    return f"{n} study" if n == 1 else f"{n} studies"


def _list(title: str, lines: Sequence[object], path: Path) -> None:
    print(f"{title}, listed in {path}:", file=sys.stderr)
    for line in lines[:SHOWN]:
        print(f"  {line}", file=sys.stderr)
    if len(lines) > SHOWN:
        print(f"  and {len(lines) - SHOWN} more", file=sys.stderr)


if __name__ == "__main__":
    run(Config, job)  # pyright: ignore[reportArgumentType]
