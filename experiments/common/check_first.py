"""Checks that every job makes before its first slow stage: outputs, regions, encoders, tables."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lens.errors import InputError

if TYPE_CHECKING:
    from encoders.headers import Header
    from lens.cohort import Cohort
    from lens.radiomics.parameters import Parameters


def check_output(path: Path, flag: str, *, folder: bool = False) -> None:
    """Refuses a file, or a folder, that could not be written.

    Args:
        path: what will be written.
        flag: that names it.
        folder: it is a folder.

    Raises:
        InputError: it is of the other kind, lies in what is no folder, or in one that this user
            may not write to.
    """
    from lens.files import check_folder

    if not folder and path.is_dir():
        raise InputError(f"{flag} {path}: is a folder; name a file in it")
    check_folder(path if folder else path.parent)
    there = existing(path if folder else path.parent)
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{flag} {path}: {there} cannot be written to; choose another place")


def existing(path: Path) -> Path:
    """The path, or the innermost folder above it that exists."""
    return next(part for part in (path, *path.absolute().parents) if part.exists())


def check_regions(names: Sequence[str], cohort: Cohort, flag: str) -> None:
    """Refuses regions of which no patient of the cohort has a mask.

    Args:
        names: the regions.
        cohort: the patients.
        flag: that names them.

    Raises:
        InputError: as said.
    """
    from lens.names import check_names

    there = dict.fromkeys(roi for files in cohort.cases for roi in files.masks)
    check_names(names, there, "region", f"{flag}, {cohort.path}")


def check_encoder(path: Path, flag: str, *, partial: bool = False) -> Header:
    """What a checkpoint holds, without reading its values.

    Args:
        path: of the checkpoint.
        flag: that names it.
        partial: accept a PyTorch file that does not match fully.

    Raises:
        InputError: there is none, or it is not an encoder's.
    """
    from encoders.headers import read_header

    if not path.exists():
        raise InputError(f"{flag} {path}: no such file or folder; give an encoder's checkpoint")
    return read_header(path, partial=partial)


def check_parameters(arguments: Sequence[str], cohort: Cohort) -> Mapping[str, Parameters]:
    """Radiomics parameters by modality, one for each modality of the cohort.

    Args:
        arguments: of ``--parameters``.
        cohort: the patients.

    Raises:
        InputError: PyRadiomics is not there, a file is not valid, or it is for no modality.
    """
    from lens.cohort.manifest import MODALITIES
    from lens.names import check_names
    from lens.radiomics.parameters import ANY, load_parameters, parameter_files, parameters_for

    files = parameter_files(arguments)
    check_names(files, (*MODALITIES, ANY), "modality", "--parameters")
    parameters = load_parameters(files)
    for modality in dict.fromkeys(name for files in cohort.cases for name in files.images):
        parameters_for(parameters, modality)
    return parameters


def check_positive(**values: float | tuple[float, ...] | None) -> None:
    """Refuses flags that are not positive numbers; none stands for a default.

    Raises:
        InputError: names the flag.
    """
    for name, value in values.items():
        numbers = value if isinstance(value, tuple) else (value,)
        if not all(number is None or 0 < number < float("inf") for number in numbers):
            shown = " ".join(map(str, numbers))
            raise InputError(f"--{name.replace('_', '-')} {shown}: must be positive and finite")
