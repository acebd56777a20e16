"""Arrays of each case on disk, reused by the one rule (`lens.cache`): made again unless intact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lens.cache import fingerprint, finish, finished, key
from lens.cohort import CaseFiles
from lens.cohort.contents import image_hash
from lens.disk import write_arrays

NOTES = "notes"
"""Name of the array with the notes on a case (`lens.cohort.Case.notes`)."""


def kept_notes(path: Path) -> tuple[str, ...]:
    """The notes on a case, of a file that `CaseCache.keep` wrote."""
    with np.load(path) as arrays:
        return tuple(map(str, arrays[NOTES]))


class CaseCache:
    """A folder with a file per case, named after the key of all that determines its content.

    The key covers the case's ids, the contents of its images and masks, the given facts and the
    code. A file that is damaged, or was not written by `keep`, counts as not there.
    """

    def __init__(self, folder: Path, code: Sequence[str], *facts: Any) -> None:
        """Opens a folder, which need not exist yet.

        Args:
            folder: may be shared by caches with other facts.
            code: modules whose functions make the arrays (`lens.cache.key`).
            facts: what else determines them (`lens.cache.fingerprint`).
        """
        self._folder = folder
        # Here and not for each case: CPython's parser fails when several threads use it at once.
        self._common = key(code, facts)
        self._keys: dict[int, str] = {}

    def find(self, files: CaseFiles) -> Path | None:
        """The intact ``.npz`` of a case, or None."""
        own = self._key(files)
        path = self._path(own)
        return path if finished(path, own) else None

    def keep(self, files: CaseFiles, notes: Sequence[str], **arrays: np.ndarray) -> Path:
        """Writes the arrays of a case as ``.npz`` with the notes on it; gives its path."""
        own = self._key(files)
        path = self._path(own)
        write_arrays(path, **arrays, **{NOTES: np.array(notes, dtype=np.str_)})
        finish(path, own)
        return path

    def _path(self, own: str) -> Path:
        return self._folder / f"{own}.npz"

    def _key(self, files: CaseFiles) -> str:
        """Kept for the object: hashing images takes longer than all else here."""
        if id(files) not in self._keys:
            contents = {n: image_hash(path) for n, path in {**files.images, **files.masks}.items()}
            ids = (files.patient_id, files.study_id, files.nifti_form)
            ids = (*ids, dict(files.kinds), files.flat, files.pixel_mm)
            self._keys[id(files)] = fingerprint(self._common, ids, contents)
        return self._keys[id(files)]
