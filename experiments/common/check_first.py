"""Checks that every job makes before its first slow stage: outputs, regions, encoders, tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lens.errors import InputError

if TYPE_CHECKING:
    from encoders.cohort_embeddings import EmbeddingSettings
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
    from lens.files import check_writable

    if not folder and path.is_dir():
        raise InputError(f"{flag} {path}: is a folder; name a file in it")
    try:
        check_writable(path if folder else path.parent)
    except InputError as error:
        raise InputError(f"{flag} {error}") from error


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


def check_encoder(
    path: Path,
    flag: str,
    *,
    partial: bool = False,
    settings: EmbeddingSettings | None = None,
    output: str | None = None,
) -> Header:
    """What an encoder is, without reading the values of weights.

    Args:
        path: a checkpoint; with `settings` also a function or an ONNX file, which is tried out.
        flag: that names it.
        partial: accept a PyTorch file that does not match fully.
        settings: what it will be shown; None where it is to be trained.
        output: of an ONNX file, which.

    Raises:
        InputError: there is none, or it is not an encoder's.
    """
    from encoders.source_names import is_called, meant_function
    from encoders.sources import exists, header_of

    if not exists(path):
        meant = meant_function(path)
        raise InputError(
            f"{flag} {path}: no such file or folder; "
            + (f"did you mean the function {meant}?" if meant else "give an encoder's checkpoint")
        )
    if settings is None:
        if is_called(path):
            raise InputError(
                f"{flag} {path}: a function or ONNX file can be embedded with, and not trained; "
                "give a checkpoint"
            )
        return header_of(path, (1, 1, 1), 1, partial=partial)
    return header_of(
        path,
        settings.shape,
        len(settings.modalities),
        partial=partial,
        output=output,
        regional=settings.pool != "global",
    )


def check_parameters(
    arguments: Sequence[str], cohort: Cohort, labels: Mapping[str, Sequence[int]]
) -> Mapping[str, Parameters]:
    """Radiomics parameters by modality, one for each modality of the cohort.

    Args:
        arguments: of ``--parameters``.
        cohort: the patients.
        labels: region -> the mask values that make it.

    Raises:
        InputError: PyRadiomics is not there, a file is not valid, it is for no modality, or it asks
            for what cannot be computed.
    """
    from lens.names import check_names
    from lens.radiomics.computable import check_computable
    from lens.radiomics.parameters import ANY, PACKAGED, load_parameters, parameter_files

    files = parameter_files(arguments)
    known = PACKAGED if set(cohort.modalities) <= set(PACKAGED) else cohort.modalities
    check_names(files, (*known, ANY), "modality", "--parameters")
    parameters = load_parameters(files, cohort.kinds, flat=cohort.flat)
    check_computable(cohort, parameters, labels)
    return parameters
