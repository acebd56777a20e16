"""Outcomes of single cases on disk, reused by the one rule of `lens.cache`.

A part holds the features of a case, or why it was refused, or the features of its perturbed
versions. Its key covers the content of the images and masks, the parameters of their modalities,
the spacing, the labels, the source code that a worker runs and the versions of the libraries. Names
of patients and files are not in it: a part holds none that are shown, so that a renamed patient
keeps the numbers. A part that is damaged, or is another key's, counts as not there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from tqdm import tqdm

from lens.cache import code_version, fingerprint, finish, finished, key, libraries, read_record
from lens.cohort.case import Case
from lens.cohort.contents import image_hash
from lens.cohort.manifest import CaseFiles
from lens.cohort.placement import Placement
from lens.disk import write_json
from lens.errors import CaseError, InputError
from lens.radiomics.extract import Region, columns
from lens.radiomics.parameters import Parameters, parameters_for

EXTRACTION, PERTURBATION = "lens.radiomics.extract_part", "lens.radiomics.perturb_part"
"""Modules that a worker runs; with all that they import, the code behind a part."""

OUTCOMES = frozenset(("features", "reason", "versions"))
"""What a part holds one of."""


class Reading(NamedTuple):
    """How a case is read: the keyword arguments of `lens.cohort.read_case`.

    Attributes:
        spacing_mm: (x, y, z) of the grid.
        labels: region -> the mask values that make it; None for every value above zero.
    """

    spacing_mm: tuple[float, float, float] = (0.5, 0.5, 1.0)
    labels: Mapping[str, Sequence[int]] | None = None


@dataclass(frozen=True)
class Part:
    """Where one outcome lies or will lie.

    Attributes:
        path: the file, whose name is the start of the key.
        key: hash of everything that determines the outcome, made where the job was started; the
            workers are given it.
        seed: of perturbed versions, from the content of images and masks alone.
    """

    path: Path
    key: str
    seed: int = 0

    def finished(self) -> bool:
        """Whether the outcome is there, whole, readable and of this key."""
        return finished(self.path, self.key) and not OUTCOMES.isdisjoint(read_record(self.path))

    def write(self, content: dict[str, Any]) -> None:
        """Writes the outcome, and then that it is there.

        Raises:
            InputError: the folder does not take it: full, read-only or gone.
        """
        try:
            for path in (self.path, self.path.with_name(f".{self.path.name}.done.json")):
                _make_way(path)
            write_json(self.path, content)
            finish(self.path, self.key)
        except OSError as error:
            raise InputError(
                f"{self.path.parent}: a finished patient cannot be kept there ({error.strerror}). "
                "Make room, or name another folder with --cache; run again, and only what is "
                "missing is extracted"
            ) from error

    def read(self) -> dict[str, Any]:
        """The content of a finished part."""
        return json.loads(self.path.read_text(encoding="utf-8"))

    def forget(self) -> None:
        """Removes the outcome."""
        _make_way(self.path)
        self.path.unlink(missing_ok=True)

    @property
    def failure(self) -> Part:
        """The part that says why this content was refused."""
        return Part(self.path.with_suffix(".failed.json"), self.key)

    def perturbed(self, repeats: int) -> Part:
        """The part of so many perturbed versions of this case."""
        made = key([PERTURBATION], self.key, repeats)
        return Part(self.path.with_suffix(f".perturbed-{made[:16]}.json"), made, self.seed)


def versions() -> dict[str, str]:
    """Versions in this process of the libraries and of the code that a worker runs."""
    return libraries() | {"radiomic-lens": code_version(EXTRACTION, PERTURBATION)[:16]}


def parts_of(
    cases: Sequence[CaseFiles],
    parameters: Mapping[str, Parameters],
    folder: Path,
    reading: Reading,
    *,
    progress: bool,
) -> list[Part]:
    """The part of each case; reads all files once, to hash them."""
    with ThreadPoolExecutor() as pool:
        name = "comparing with the cache"
        hashed = tqdm(
            pool.map(_content, cases), name, len(cases), unit="case", disable=not progress
        )
        return [
            _part(files, content, parameters, folder, reading)
            for files, content in zip(cases, hashed, strict=True)
        ]


def write_part(part: Part, case: Case, regions: Mapping[tuple[str, str], Region]) -> None:
    """Writes ``notes``, ``geometry`` per image and mask, ``voxels`` per region, ``bins`` per region
    and image, and ``features`` per column.
    """
    bins = {
        ".".join((*region, image)): list(made)
        for region, measured in regions.items()
        for image, made in measured.bins.items()
    }
    voxels = {".".join(region): measured.voxels for region, measured in regions.items()}
    content = {"notes": list(case.notes), "geometry": _rows(case.geometry)}
    content |= {"voxels": voxels, "bins": bins}
    part.write(content | {"features": columns(regions)})
    forget_failure(part)


def write_failure(part: Part, error: CaseError, geometry: Sequence[Placement]) -> None:
    """Remembers that this content was refused, why, and how far its geometry was known."""
    part.failure.write(error.row() | {"geometry": _rows(geometry)})


def forget_failure(part: Part) -> None:
    """A case that was refused is tried again."""
    part.failure.forget()


def read_failure(part: Part, files: CaseFiles) -> CaseError | None:
    """Why this content was refused before; None where it was not.

    Patient and paths are those of `files`, for the same content may have been another's or lain
    elsewhere.
    """
    if not part.failure.finished():
        return None
    row = part.failure.read()
    names = {placement["file"]: placement["name"] for placement in row["geometry"]}
    file = _path_now(files, names.get(row["file"], ""), row["file"])
    return CaseError(
        files.patient_id, file, stage=row["stage"], reason=row["reason"], remedy=row["remedy"]
    )


def read_geometry(part: Part, files: CaseFiles) -> list[Placement]:
    """How the images and masks of a finished or refused case came onto its grid.

    Empty where the outcome left no trace. Paths are those of `files`.
    """
    outcome = next((each for each in (part, part.failure) if each.finished()), None)
    placements = []
    for row in outcome.read()["geometry"] if outcome else []:
        row["file"] = _path_now(files, row["name"], row["file"])
        row["labels"] = tuple((value, count) for value, count in row["labels"])
        row["taken"] = tuple(row["taken"])
        placements.append(Placement(**row))
    return placements


def _make_way(path: Path) -> None:
    """Moves aside what lies in the place of a file and is none, which no writing would replace."""
    if path.is_dir() and not path.is_symlink():
        path.rename(path.with_name(f"{path.name}.aside-{uuid4().hex[:8]}"))


def _path_now(files: CaseFiles, name: str, path_then: str) -> str:
    return str((files.images | files.masks).get(name, path_then))


def _rows(geometry: Sequence[Placement]) -> list[dict[str, Any]]:
    return [asdict(placement) for placement in geometry]


def _part(
    files: CaseFiles,
    content: Mapping[str, Mapping[str, str]],
    parameters: Mapping[str, Parameters],
    folder: Path,
    reading: Reading,
) -> Part:
    chosen = [parameters_for(parameters, name) for name in files.images]
    settings = {
        "parameters": [(each.content, each.label) for each in chosen],
        "spacing_mm": [float(edge) for edge in reading.spacing_mm],
        "packaged": [each.packaged for each in chosen],
        "nifti_form": files.nifti_form,
        "kinds": dict(files.kinds),
        "flat": [files.flat, files.pixel_mm],
        "regions": files.regions,
        "labels": {roi: sorted(set(v)) for roi, v in sorted((reading.labels or {}).items())},
    }
    made = key([EXTRACTION], content, settings)
    return Part(folder / f"{made[:32]}.json", made, int(fingerprint(content)[:16], 16))


def _content(files: CaseFiles) -> dict[str, dict[str, str]]:
    """Hashes of the images and masks of a case, by name."""
    return {
        "images": {modality: image_hash(path) for modality, path in files.images.items()},
        "masks": {roi: image_hash(path) for roi, path in files.masks.items()},
    }
