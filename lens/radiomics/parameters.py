"""PyRadiomics parameter files: ours by modality or its kind, or the user's."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from lens.cohort.intensities import Kind
from lens.cohort.prostate import MODALITIES
from lens.errors import InputError
from lens.names import name_problem
from lens.radiomics.engine import pyradiomics
from lens.radiomics.honoured import check_honoured

log = logging.getLogger(__name__)

PACKAGED = MODALITIES
"""Modalities with a file of their own in the package; others take that of their kind."""

ANY = "all"
"""Key of the parameters for every modality without its own."""


@dataclass(frozen=True)
class Parameters:
    """One validated parameter file.

    Attributes:
        file: name of the file, for messages.
        content: JSON of its ``setting``, ``imageType`` and ``featureClass``, with PyRadiomics'
            defaults filled in: equal content gives equal features.
        label: the mask value that the file names as the region; None where it names none.
        packaged: it is ours: where it normalises, images in arbitrary units are standardised about
            the regions of their case, whatever the field of view. A file of the user's own
            normalises as PyRadiomics does, over the whole image.
    """

    file: str
    content: str
    label: int | None = None
    packaged: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """PyRadiomics' settings by name."""
        return json.loads(self.content)["setting"]

    @property
    def images(self) -> dict[str, dict[str, Any]]:
        """Filters by PyRadiomics' name (``Original``, ``Wavelet``), with their own settings."""
        return json.loads(self.content)["imageType"]

    @property
    def classes(self) -> dict[str, list[str] | None]:
        """Feature classes, each with the features asked for; empty or None means all."""
        return json.loads(self.content)["featureClass"]


def load_parameters(
    files: Mapping[str, Path] | None = None,
    kinds: Mapping[str, Kind] | None = None,
    *,
    flat: bool = False,
) -> dict[str, Parameters]:
    """Parameters by modality, from the user's files or, without any, from ours.

    Args:
        files: a file per modality, which replaces ours, or one for ``all`` modalities, which
            replaces all of ours; where both are given, the modality's own wins.
        kinds: modality -> what its numbers mean, of the cohort; by default those of `PACKAGED`.
        flat: the images are of a single slice, and take ours for textures in the plane.

    Raises:
        InputError: a file is missing, PyRadiomics refuses it (in its own words), or it asks for
            what would have no effect or cannot be computed here.
    """
    files = files or {}
    chosen: dict[str, Parameters] = {}
    if ANY not in files:
        of_kind = dict(kinds) if kinds else dict.fromkeys(PACKAGED, "")
        ours = {
            name: kind if flat or name not in PACKAGED else name for name, kind in of_kind.items()
        }
        chosen = {
            name: _read_default(f"{file}-2d" if flat else file)
            for name, file in ours.items()
            if name not in files
        }
    return chosen | {modality: read_parameters(file) for modality, file in files.items()}


def narrowed(
    parameters: Mapping[str, Parameters], filters: Sequence[str], classes: Sequence[str] = ()
) -> dict[str, Parameters]:
    """The same parameters with fewer filters and classes; what is left has the same values.

    Args:
        parameters: by modality.
        filters: to keep, such as ``("Original",)``.
        classes: of features to keep, such as ``("firstorder", "glrlm")``; all if none is named.

    Raises:
        ValueError: the parameters of a modality have none of them.
    """
    wanted = {"imageType": filters, "featureClass": classes}
    chosen = {}
    for modality, each in parameters.items():
        content = json.loads(each.content)
        for part, names in wanted.items():
            kept = {name: own for name, own in content[part].items() if name in names}
            if names and not kept:
                raise ValueError(f"{each.file}: none of {', '.join(names)} under {part}")
            content[part] = kept or content[part]
        chosen[modality] = replace(each, content=json.dumps(content))
    return chosen


def parameter_files(arguments: Sequence[str]) -> dict[str, Path]:
    """Files by modality, as a command line names them.

    Args:
        arguments: ``MODALITY=FILE``, or ``FILE`` for all modalities: ``("t2=a.yaml", "b.yaml")``
            gives ``{"t2": Path("a.yaml"), "all": Path("b.yaml")}``.

    Raises:
        InputError: a modality or file without a name, or two files for one modality.
    """
    files: dict[str, Path] = {}
    for argument in arguments:
        modality, file = argument.split("=", 1) if "=" in argument else (ANY, argument)
        if not modality or not file:
            raise InputError(f"--parameters {argument!r}: give FILE or MODALITY=FILE")
        if problem := name_problem(modality):
            raise InputError(f"--parameters {argument!r}: modality {problem}")
        if modality in files:
            raise InputError(
                f"--parameters names two files for {modality}: {files[modality]}, {file}"
            )
        files[modality] = Path(file)
    return files


def parameters_for(parameters: Mapping[str, Parameters], modality: str) -> Parameters:
    """The parameters of one modality: its own, else those for all.

    Raises:
        InputError: there are none.
    """
    found = parameters.get(modality) or parameters.get(ANY)
    if found is None:
        raise InputError(
            f"no radiomics parameters for modality {modality!r} (there are some for "
            f"{', '.join(parameters) or 'none'}); give a PyRadiomics parameter file for it: "
            f"--parameters {modality}=FILE.yaml"
        )
    return found


def read_parameters(file: Path) -> Parameters:
    """Reads and validates one PyRadiomics parameter file (YAML or JSON).

    What has no effect beside the other settings is logged.

    Raises:
        InputError: missing, refused by PyRadiomics' schema (misspelt key, wrong type), or with a
            setting that would not be heeded (`lens.radiomics.honoured`).
    """
    if not file.is_file():
        raise InputError(f"{file}: no such radiomics parameter file")
    extractor_class = pyradiomics().featureextractor.RadiomicsFeatureExtractor
    try:
        with _undisturbed():
            given = _as_written(file)
            extractor = extractor_class(str(file))
    except Exception as error:  # the schema validator and the YAML parser have a dozen types
        reason = " ".join(str(getattr(error, "msg", None) or error).split())
        raise InputError(
            f"{file}: not a valid PyRadiomics parameter file: {reason.rstrip('.')}. "
            "See https://pyradiomics.readthedocs.io/en/latest/customization.html"
        ) from error
    for note in check_honoured(str(file), given):
        log.warning("%s", note)
    classes = dict(extractor.enabledFeatures)
    if not given.get("featureClass"):
        # PyRadiomics switches it on in such a file, and skips it for every region in 3D.
        classes.pop("shape2D", None)
    content = {
        "setting": extractor.settings,
        "imageType": extractor.enabledImagetypes,
        "featureClass": classes,
    }
    label = (given.get("setting") or {}).get("label")
    return Parameters(file=str(file), content=json.dumps(content), label=label)


def _as_written(file: Path) -> dict[str, Any]:
    """The sections of a parameter file, without any default."""
    from pykwalify.core import Core

    return Core(source_file=str(file), schema_data={"type": "any"}).source or {}


def _read_default(name: str) -> Parameters:
    with as_file(files("lens.radiomics") / f"{name}.yaml") as file:
        content = read_parameters(file).content
    return Parameters(file=f"{name}.yaml", content=content, packaged=True)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Undoes what loading a file does besides.

    The schema validator logs what it also raises, and ``geometryTolerance`` would change SimpleITK
    for the whole process.
    """
    import SimpleITK as sitk

    log, process = logging.getLogger("pykwalify"), sitk.ProcessObject
    level = log.level
    coordinate = process.GetGlobalDefaultCoordinateTolerance()
    direction = process.GetGlobalDefaultDirectionTolerance()
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(level)
        process.SetGlobalDefaultCoordinateTolerance(coordinate)
        process.SetGlobalDefaultDirectionTolerance(direction)
