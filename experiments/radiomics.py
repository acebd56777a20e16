"""Radiomic features of a cohort.

``python -m experiments.radiomics --cohort cohort.csv --out R.parquet``

Beside the table R.parquet: ``R-audit.csv`` (what cannot be trusted, with the reason),
``R-gray-levels.csv`` (gray levels per patient, modality, region and image), ``R-geometry.csv`` (how
each image and mask came onto the grid, and the mask values found and taken), ``failures.csv``
(patients set aside, only where there are any) and the folder ``radiomics-cache`` of finished cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.common.anonymous import anonymously, private_cache
from experiments.common.check_first import check_output, check_parameters, check_regions
from experiments.common.cli import DONE, REFUSED, alone, list_set_aside, run
from experiments.common.flags import as_flag
from lens.lock import of_file
from lens.ranges import COUNT, EDGE_MM, Check, first_problem
from lens.settings import NiftiForm

if TYPE_CHECKING:
    from experiments.common.outlook import Outlook
    from lens.anonymise import Names
    from lens.cohort import Cohort
    from lens.radiomics.parameters import Parameters


@dataclass(frozen=True)
class Config:
    """Extracts PyRadiomics features per modality and region of every patient of a cohort.

    Patients that cannot be used are set aside and listed in failures.csv beside the table (exit
    code 3). A second run, or one after an interruption, extracts only what is missing or changed.
    """

    cohort: Path
    """Manifest: patient_id, a column per modality and a column per region (paths)."""

    out: Path
    """Table to write, .parquet or .csv: a row per patient, a column per feature."""

    parameters: tuple[str, ...] = ()
    """PyRadiomics parameter files: FILE for all modalities, or MODALITY=FILE for one of them
    (t2=T2.yaml adc=ADC.yaml). Without any, the files that come with the package."""

    modalities: tuple[str, ...] = ()
    """Columns with images, in order, such as ct; by default t2, dwi and adc, or those recognised as
    images."""

    rois: tuple[str, ...] = ()
    """Columns with masks, such as tumour; by default gland and lesion, or those recognised as
    masks."""

    kind: tuple[str, ...] = ()
    """What the numbers of a modality mean where its name does not say: NAME=mr (arbitrary units),
    NAME=ct (Hounsfield units), NAME=8-bit (ultrasound, X-ray) or NAME=units (a map)."""

    spacing: tuple[float, float, float] | None = None
    """Voxel size in mm (x y z) to which images and masks are resampled; default 0.5 0.5 1.0. Single
    slices: 1 1, in pixels where the files have no pixel size; z does nothing."""

    label: tuple[str, ...] = ()
    """Mask values that make a region, such as gland=1,2 lesion=3; every value above 0 by default.
    Where there is one column with masks, names of your own make several regions of it:
    anterior=1 posterior=2."""

    nifti_form: NiftiForm | None = None
    """Which placement of a NIfTI header to use, qform or sform; without it, files in which the two
    disagree are refused."""

    workers: int | None = None
    """Number of processes; one per core by default, fewer where the memory would not do."""

    scheduler: str | None = None
    """Address of a running Dask scheduler (tls://HOST:8786) whose workers do the work instead of
    processes on this machine; they must see the images and the cache under the same paths. With
    tcp:// the port is open: whoever reaches it runs code as you."""

    retry_failed: bool = False
    """Try patients again that were refused before, though their files, the parameters and the
    versions are the same; otherwise only their reason is listed again."""

    perturb: int = 0
    """Versions of each patient with small changes of pose, contour and noise (5, for example), from
    which R-repeatability.csv tells how well each feature repeats (intraclass correlation). Where
    you have patients who were scanned twice, use them: experiments.repeatability."""

    slurm_script: Path | None = None
    """Write a Slurm batch script that runs this job on a Dask cluster, and do nothing else."""

    cache: Path | None = None
    """Folder of the finished cases; radiomics-cache beside the table by default, in ~/.cache with
    --anonymise: what is kept there names files."""

    anonymise: bool = False
    """Write salted hashes in place of ids, and no paths, in every table and message."""

    salt: Path | None = None
    """File of the salt (16 characters or more), for --anonymise; by default one of your own is
    drawn once and kept in ~/.config/radiomic-lens/salt. The same salt gives the same hashes."""

    dry_run: bool = False
    """Check everything, print stages, sizes and what they need, and write nothing."""


def parts(config: Config) -> Path:
    """The folder of finished cases."""
    beside = config.out.parent / "radiomics-cache"
    return config.cache or (private_cache() if config.anonymise else beside)


@alone(lambda config: of_file(config.out, parts(config)))
def job(config: Config) -> int:
    """Manifest to table; gives the exit code."""
    given = {f"--parameters {each}": Path(each.rpartition("=")[2]) for each in config.parameters}
    given = {name.partition("=")[0]: path for name, path in given.items()}
    with anonymously(
        config.anonymise,
        config.salt,
        out=config.out.parent,
        inputs={"--cohort": config.cohort, **given},
    ) as names:
        return _extract(config, names)


def _extract(config: Config, names: Names) -> int:
    """The steps of the job; what they write calls patients by `names`."""
    from experiments.common.cohorts import read_cohort, spacing_of
    from lens.cohort import parse_labels
    from lens.errors import InputError
    from lens.files import write_table
    from lens.radiomics.cohort_features import extract_cohort
    from lens.radiomics.parameters import parameter_files

    if config.out.suffix not in (".parquet", ".csv"):
        raise InputError(f"{config.out}: tables are written as .parquet or .csv")
    if problem := _problem(config):
        raise InputError(as_flag(problem))
    if config.perturb == 1 or config.perturb < 0:
        raise InputError(f"--perturb {config.perturb}: two or more versions, or 0 for none")
    check_output(config.out, "--out")
    parameter_files(config.parameters)
    labels = parse_labels(config.label)
    cache = parts(config)
    check_output(cache, "--cache", folder=True)
    if config.slurm_script is not None:
        return write_slurm_script(config, config.slurm_script)
    manifest = read_cohort(config, label=config.label)
    config = replace(config, spacing=spacing_of(manifest, config.spacing))
    assert config.spacing is not None
    names, cohort = names.of_cohort(manifest), names.cohort(manifest)
    check_regions(list(labels), cohort, "--label")
    if config.perturb and len({files.patient_id for files in cohort.cases}) < 2:
        raise InputError(
            f"--perturb {config.perturb}: {config.cohort} has one patient, and how well a feature "
            "repeats is told against the differences between patients. Leave it out"
        )
    parameters = check_parameters(config.parameters, cohort, labels)
    if config.dry_run:
        print(outlook(config, cohort, parameters, cache))
        return DONE
    table, errors = extract_cohort(
        cohort,
        parameters,
        cache=cache,
        spacing_mm=config.spacing,
        labels=labels,
        workers=config.workers,
        scheduler=config.scheduler,
        retry_failed=config.retry_failed,
        audit_file=side_table(config.out, "audit"),
        gray_level_file=side_table(config.out, "gray-levels"),
        geometry_file=side_table(config.out, "geometry"),
        names=names,
    )
    code = list_set_aside(names.errors(errors), config.out.parent / "failures.csv")
    if table.empty:
        print(f"no patient is left, so {config.out} is not written")
        return REFUSED
    write_table(table, config.out)
    if config.perturb:
        write_repeatability(config, cohort, parameters, cache)
    print(f"{len(table)} patients x {table.shape[1] - 1} columns: {config.out}")
    return code


def outlook(
    config: Config, cohort: Cohort, parameters: Mapping[str, Parameters], cache: Path
) -> Outlook:
    """What an extraction would do and need."""
    from experiments.common.outlook import Outlook, several
    from experiments.common.radiomics_outlook import (
        EXTRACTION_BYTES,
        extraction_memory,
        extraction_step,
    )
    from lens.cohort import parse_labels
    from lens.radiomics.computable import count_columns
    from lens.radiomics.parts import Reading

    assert config.spacing is not None
    reading = Reading(config.spacing, parse_labels(config.label))
    passes = {"radiomics": 0} | ({"perturbed versions": config.perturb} if config.perturb else {})
    cases = cohort.cases
    fullest = max(cases, key=lambda files: len(files.regions))
    columns = count_columns(fullest, parameters)
    told = (
        extraction_memory(config.workers, cases, parameters, config.spacing)
        if config.scheduler is None
        else f"radiomics: that of the workers of {config.scheduler}, not known here"
    )
    return Outlook(
        steps=[
            extraction_step(name, cohort, parameters, cache, reading, repeats)
            for name, repeats in passes.items()
        ],
        sizes=[f"{several(len(cases), 'case')}, about {several(columns, 'feature')} each"],
        out=config.out.parent,
        memory=[told],
        disk={
            "finished cases and tables": float(
                len(cases) * columns * EXTRACTION_BYTES * (1 + config.perturb)
            )
        },
    )


def _problem(config: Config) -> str:
    """What is out of range; an empty text where nothing is."""
    workers = 1 if config.workers is None else config.workers
    edges = config.spacing or (1.0, 1.0, 1.0)
    return first_problem([Check("spacing", edges, EDGE_MM), Check("workers", workers, COUNT)])


def write_repeatability(
    config: Config, cohort: Cohort, parameters: Mapping[str, Parameters], cache: Path
) -> None:
    """Writes how well each feature survives small changes of the images and masks."""
    from lens.cohort import parse_labels
    from lens.files import write_table
    from lens.radiomics.cohort_features import extract_perturbed
    from lens.radiomics.repeatability import repeatability

    assert config.spacing is not None
    table = extract_perturbed(
        cohort,
        parameters,
        cache=cache,
        repeats=config.perturb,
        spacing_mm=config.spacing,
        labels=parse_labels(config.label),
        workers=config.workers,
        scheduler=config.scheduler,
    )
    write_table(repeatability(table), side_table(config.out, "repeatability"))


def write_slurm_script(config: Config, script: Path) -> int:
    """Writes the batch script that runs this job elsewhere; gives the exit code."""
    import sys

    from lens.files import write_text
    from lens.radiomics.slurm import slurm_script

    arguments = ["--cohort", str(config.cohort), "--out", str(config.out)]
    arguments += ["--parameters", *config.parameters] if config.parameters else []
    arguments += ["--modalities", *config.modalities] if config.modalities else []
    arguments += ["--rois", *config.rois] if config.rois else []
    arguments += ["--kind", *config.kind] if config.kind else []
    arguments += ["--spacing", *map(str, config.spacing)] if config.spacing else []
    arguments += ["--label", *config.label] if config.label else []
    arguments += ["--nifti-form", config.nifti_form] if config.nifti_form else []
    arguments += ["--cache", str(config.cache)] if config.cache else []
    arguments += ["--perturb", str(config.perturb)] if config.perturb else []
    arguments += ["--retry-failed"] if config.retry_failed else []
    arguments += ["--anonymise"] if config.anonymise else []
    arguments += ["--salt", str(config.salt)] if config.salt else []
    text = slurm_script(arguments, python=sys.executable, folder=str(Path.cwd()))
    write_text(script, text)
    print(f"edit it for your cluster, then submit it: sbatch {script}")
    return DONE


def side_table(table: Path, what: str) -> Path:
    """``R-<what>.csv`` for the table ``R.parquet``."""
    return table.with_name(f"{table.stem}-{what}.csv")


if __name__ == "__main__":
    run(Config, job)
