"""Errors a user can act on: what was found, where, and what to do about it."""

from __future__ import annotations

from pathlib import Path


class InputError(ValueError):
    """A file or table cannot be used as it is; the message names it, the finding and the remedy."""


class UserCodeError(InputError):
    """Code that the user named failed; it is no part of this program. Its traceback is a note."""


class CaseError(InputError):
    """One patient cannot be used; the cohort goes on without this patient.

    Attributes:
        patient_id: the patient, as in the manifest or table.
        file: the offending file, or an empty string where no single file is to blame.
        stage: where it was found: ``read``, ``geometry``, ``radiomics`` or ``embed``.
        reason: what was found.
        remedy: what the user can do.
    """

    def __init__(
        self, patient_id: str, file: str | Path, *, stage: str, reason: str, remedy: str
    ) -> None:
        self.patient_id = patient_id
        self.file = str(file)
        self.stage = stage
        self.reason = reason
        self.remedy = remedy
        where = f"patient {patient_id}" + (f", file {file}" if str(file) else "")
        super().__init__(f"{where}: {reason}. {remedy}")

    def __reduce__(self):
        # ValueError pickles by positional args; workers send these across processes.
        return _rebuild, (self.patient_id, self.file, self.stage, self.reason, self.remedy)

    def row(self) -> dict[str, str]:
        """The error as a row of ``failures.csv``."""
        return {
            "patient_id": self.patient_id,
            "file": self.file,
            "stage": self.stage,
            "reason": self.reason,
            "remedy": self.remedy,
        }


def _rebuild(patient_id: str, file: str, stage: str, reason: str, remedy: str) -> CaseError:
    return CaseError(patient_id, file, stage=stage, reason=reason, remedy=remedy)


FAILURE_COLUMNS = ("patient_id", "file", "stage", "reason", "remedy")
"""Columns of ``failures.csv``, the list of patients set aside."""
