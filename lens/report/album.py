"""The album of a run: pictures of its patients, each made once, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lens.errors import CaseError
from lens.places import replace_paths

if TYPE_CHECKING:
    from lens.cohort import CaseFiles, Cohort
    from lens.report.pictures import Picture

BUDGET = 4_000_000
"""Characters of a page that pictures may take, all tasks together."""

MOST = 32
"""Patients of whom a page has pictures: each is read from the images anew."""

TABLES = "The run was given tables and no images, so that there are no pictures."
HIDDEN = "Patients are named by hashes and have no pictures (--anonymise)."
LEFT_OUT = "Pictures are left out (--no-images)."


class NoPictureError(Exception):
    """There is no picture of a patient; says why, for people."""


@dataclass
class Album:
    """Pictures of the patients of a run.

    Attributes:
        absent: why there are no pictures at all, a sentence; empty where there are.
        cohort: the patients' files.
        spacing_mm: (x, y, z) of the run's grid.
        labels: region -> the mask values that make it.
        budget: characters of a page that all pictures may take.
        most: patients of whom there may be pictures.
    """

    absent: str = TABLES
    cohort: Cohort | None = None
    spacing_mm: tuple[float, float, float] = (0.5, 0.5, 1.0)
    labels: Mapping[str, Sequence[int]] = field(default_factory=dict)
    budget: int = BUDGET
    most: int = MOST
    _made: dict[tuple[str, str, tuple[str, ...]], Picture | str] = field(default_factory=dict)

    def picture(self, patient: str, study: str = "", rois: Sequence[str] = ()) -> Picture:
        """The picture of a study.

        Args:
            patient, study: as the tables have them; an empty study is the patient's only one.
            rois: regions to cut to.

        Raises:
            NoPictureError: the images are not there or cannot be read, or the page is full.
        """
        key = (patient, study, tuple(rois))
        if key not in self._made:
            self._made[key] = self._make(*key)
        made = self._made[key]
        if isinstance(made, str):
            raise NoPictureError(made)
        return made

    def has(self, patient: str, study: str = "", rois: Sequence[str] = ()) -> bool:
        """Whether the picture of a study was asked for before."""
        return (patient, study, tuple(rois)) in self._made

    def _make(self, patient: str, study: str, rois: tuple[str, ...]) -> Picture | str:
        from lens.cohort import read_case
        from lens.report.pictures import picture

        kept = [each for each in self._made.values() if not isinstance(each, str)]
        if len(kept) >= self.most:
            return f"no picture: the page has those of {self.most} patients already"
        try:
            files = self._files(patient, study)
            case = read_case(files, spacing_mm=self.spacing_mm, labels=self.labels, about=rois)
            made = picture(case, rois)
        except NoPictureError as error:
            return str(error)
        except Exception as error:  # images fail in many ways, and none of them stops a page
            reason = error.reason if isinstance(error, CaseError) else type(error).__name__
            return f"no picture: {replace_paths(reason)}"
        if sum(each.bytes for each in kept) + made.bytes > self.budget:
            return f"no picture: the page has its {self.budget / 1e6:g} MB of pictures already"
        return made

    def _files(self, patient: str, study: str) -> CaseFiles:
        """The files of a study."""
        if self.cohort is None:
            raise NoPictureError("no picture")
        of_patient = [each for each in self.cohort.cases if each.patient_id == patient]
        found = [each for each in of_patient if (each.study_id or "") == study]
        if not found and not study and len(of_patient) == 1:
            found = of_patient
        if found:
            return found[0]
        for error in self.cohort.set_aside:
            if error.patient_id in (patient, f"{patient}/{study}"):
                raise error
        raise NoPictureError("no picture: the manifest does not name this study")
