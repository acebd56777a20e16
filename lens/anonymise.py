"""Names of patients as salted hashes, and no paths: what may leave the hospital.

A patient's name is an HMAC-SHA256 of the id under a salt, so that the same patient has the same
name in all tables made with that salt, and only who holds the salt can tell whether an id belongs
to a name. Names are recognised by the salt: a table that has them already keeps them. The split and
the folds are drawn over the names, as a run on tables with these ids would draw them.
"""

from __future__ import annotations

import getpass
import hashlib
import hmac
import os
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pyarrow.parquet import read_schema

from lens.errors import CaseError
from lens.formulas import read_csv
from lens.places import replace_paths

if TYPE_CHECKING:
    from lens.cohort.manifest import Cohort
    from lens.study.study import Study

PATIENT, STUDY = "patient_id", "study_id"

FILE = "[file]"
"""Stands for a path that has no better name."""

OUT, LOGS = "OUT", "LOGS"
"""What messages call the folder of the results, and that of the details of failures."""

TEXTS = ("reason", "remedy")
"""Columns of sentences, in which a path or an id may occur."""

ANYBODY = ("root", "user", "admin", "administrator", "ubuntu", "runner", "localhost")
"""Names of users and hosts that name nobody, and that are words of our sentences."""

_INTRODUCED = re.compile(
    r"\b((?:patients?|ids?|study|studies)(?:\(s\))?:? +)"
    r"('?[\w.^-]+'?(?:(?:/|, | and )'?[\w.^-]+'?)*)"
)


class Names:
    """Ids, tables and paths as they are: what a run without ``--anonymise`` writes."""

    hides = False
    """Whether names are hidden."""

    def source(self, source: Any, name: str, read: Any) -> Any:
        """A table for the analysis: `source`, or what `read` makes of it with hidden ids."""
        return source

    def ids(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table under ids that may be written."""
        return table

    def table(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table as it may be written."""
        return table

    def errors(self, errors: Iterable[CaseError]) -> list[CaseError]:
        """Findings as they may be written."""
        return list(errors)

    def of_cohort(self, cohort: Cohort) -> Names:
        """The same, with the files of a cohort to look for in sentences."""
        return self

    def cohort(self, cohort: Cohort) -> Cohort:
        """A cohort under names that may be written; paths in it stay, for they are opened."""
        return cohort

    def study(self, study: Study) -> Study:
        """A study under names that may be written."""
        return study

    def text(self, text: str) -> str:
        """A message as it may be written."""
        return text

    def setting(self, value: Any) -> Any:
        """The value of a flag as it may be written."""
        return value


OPEN = Names()
"""Hides nothing."""


@dataclass(frozen=True)
class Anonymiser(Names):
    """Hides ids behind salted hashes and drops paths.

    Attributes:
        salt: the key of the hashes.
        patients, studies: ids that are looked for in sentences.
        paths: path -> what messages call it instead.
    """

    salt: bytes = field(repr=False)
    patients: frozenset[str] = frozenset()
    studies: frozenset[str] = frozenset()
    paths: Mapping[str, str] = field(default_factory=dict)

    hides = True

    def knowing(
        self,
        paths: Mapping[Path, str] | None = None,
        tables: Iterable[Path] = (),
        ids: pd.DataFrame | None = None,
        id_column: str | None = None,
    ) -> Anonymiser:
        """The same, with more to look for in sentences.

        Args:
            paths: path -> what to call it.
            tables: files whose ids are looked for, and the files that a manifest names, as far as
                they can be read.
            ids: a table of ids.
            id_column: column of patients in these files where it is not ``patient_id``.
        """
        tables = list(tables)
        frames = [ids_of(path, id_column) for path in tables] + ([] if ids is None else [ids])
        files = {file: FILE for path in tables for file in files_of(path)}
        found = {
            column: frozenset(
                text
                for each in frames
                if column in each
                for text in each[column]
                if isinstance(text, str) and text
            )
            for column in (PATIENT, STUDY)
        }
        called: dict[str, str] = {}
        for path, name in (files | dict(paths or {})).items():
            forms = (path, Path(os.path.abspath(path)), path.resolve())  # noqa: PTH100
            called |= {str(form): name for form in forms if str(form) not in (".", "/")}
            # Relative ones, and such with blanks, are not seen to be paths in a sentence.
            above = (folder for form in forms for folder in form.parents if folder.name)
            hidden = (str(each) for each in above if " " in str(each) or not each.is_absolute())
            called |= {folder: FILE for folder in hidden if folder not in called}
        return replace(
            self,
            patients=self.patients | found[PATIENT],
            studies=self.studies | found[STUDY],
            paths={**called, **self.paths},
        )

    def patient(self, text: str) -> str:
        """The name of a patient; of a name, itself."""
        return self._name("P", text)

    def visit(self, text: str) -> str:
        """The name of a study of a patient; of a name, itself."""
        return self._name("S", text)

    def label(self, text: str) -> str:
        """The name of ``patient`` or ``patient/study``, as findings give it."""
        head, slash, tail = text.rpartition("/")
        if not text or not slash or text in self.patients:
            return self.patient(text)
        return f"{self.patient(head)}/{self.visit(tail)}"

    def table(self, table: pd.DataFrame) -> pd.DataFrame:
        """Ids hashed, files by what messages call them, sentences cleaned."""
        changes = {"file": self.file, **dict.fromkeys(TEXTS, self.text)}
        return self.ids(change_columns(table, changes))

    def ids(self, table: pd.DataFrame) -> pd.DataFrame:
        """Ids hashed, all else as it is."""
        return change_columns(table, {PATIENT: self.patient, STUDY: self.visit})

    def source(self, source: Any, name: str, read: Any) -> pd.DataFrame:
        """The table that ``read(source, name)`` gives, under hashed ids."""
        return self.ids(read(source, name))

    def errors(self, errors: Iterable[CaseError]) -> list[CaseError]:
        """Findings with hashed ids, without paths."""
        return [
            CaseError(
                self.label(each.patient_id),
                self.file(each.file),
                stage=each.stage,
                reason=self.text(each.reason),
                remedy=self.text(each.remedy),
            )
            for each in errors
        ]

    def of_cohort(self, cohort: Cohort) -> Anonymiser:
        """The same, with the ids and files of a cohort to look for in sentences."""
        return self.knowing(_paths_of(cohort), ids=_ids_of_cohort(cohort))

    def cohort(self, cohort: Cohort) -> Cohort:
        """Hashed ids; the files stay, for they are opened."""
        seen = self.of_cohort(cohort)
        return replace(
            cohort,
            cases=tuple(
                replace(
                    files,
                    patient_id=self.patient(files.patient_id),
                    study_id=None if files.study_id is None else self.visit(files.study_id),
                )
                for files in cohort.cases
            ),
            set_aside=tuple(seen.errors(cohort.set_aside)),
        )

    def study(self, study: Study) -> Study:
        """Hashed ids, findings and notes without paths."""
        seen = self.knowing(ids=study.ids)
        notes = tuple(seen.text(note) for note in study.notes)
        return replace(
            study, ids=self.table(study.ids), set_aside=tuple(seen.errors(study.set_aside)),
            notes=notes,
        )  # fmt: skip

    def file(self, text: str) -> str:
        """What a cell that names files holds instead."""
        if not text:
            return ""
        return ", ".join(dict.fromkeys(self._file(part) for part in text.split(", ")))

    def text(self, text: str) -> str:
        """A sentence without paths, ids, user and host.

        An id that is a short number is found only after a word such as "patient".
        """
        known = self.paths if any(root in text for root in self._roots) else {}
        text = replace_paths(text, known, shown=self._path)
        for known, name in ((self.patients, self.patient), (self.studies, self.visit)):
            for each in sorted((i for i in known if i in text), key=len, reverse=True):
                if not _short(each):
                    text = _whole(each).sub(name(each), text)
        text = _INTRODUCED.sub(self._introduced, text)
        for who, shown in ((_user(), "[user]"), (socket.gethostname(), "[host]")):
            if who in text and who.lower() not in ANYBODY and len(who) > 2:
                text = _whole(who).sub(shown, text)
        return text

    def setting(self, value: Any) -> Any:
        """A flag without the paths in it; ``TASK=FILE`` keeps the task."""
        if isinstance(value, Path):
            return FILE
        if isinstance(value, list | tuple):
            return [self.setting(each) for each in value]
        if not isinstance(value, str):
            return value
        head, equals, tail = value.rpartition("=")
        return f"{head}{equals}{FILE}" if tail in self.paths else self.text(value)

    @cached_property
    def _roots(self) -> frozenset[str]:
        """How the known paths begin: text without any of these names none of them."""
        return frozenset(str(Path(*Path(path).parts[:2])) for path in self.paths)

    def _path(self, path: str) -> str:
        """Stands for a path; the results' own, and logs, keep their names in the folder."""
        above = [folder for folder in self.paths if path.startswith((f"{folder}/", f"{folder}\\"))]
        nearest = path if path in self.paths else max(above, key=len, default="")
        if self.paths.get(nearest) in (OUT, LOGS):
            return self.paths[nearest] + path[len(nearest) :]
        return FILE + path[len(path.rstrip(".")) :]

    def _file(self, path: str) -> str:
        known = self.paths.get(path) or self.text(path)
        return known if known != path or not re.search(r"[/\\.]", path) else FILE

    def _introduced(self, found: re.Match[str]) -> str:
        def named(word: re.Match[str]) -> str:
            text = word[0]
            if text in self.patients and _short(text):
                return self.patient(text)
            return self.visit(text) if text in self.studies and _short(text) else text

        return found[1] + re.sub(r"[\w.^-]*[\w^]", named, found[2])

    def _name(self, kind: str, text: str) -> str:
        text = text.strip()
        if not text or self._is_name(kind, text):
            return text
        body = self._digest(f"{kind} {text}")[:16]
        return f"{kind}{body}{self._digest(f'name {kind}{body}')[:4]}"

    def _is_name(self, kind: str, text: str) -> bool:
        found = re.fullmatch(f"{kind}([0-9a-f]{{16}})([0-9a-f]{{4}})", text)
        return bool(found) and self._digest(f"name {kind}{found[1]}")[:4] == found[2]

    def _digest(self, text: str) -> str:
        content = text.encode("utf-8", "surrogatepass")
        return hmac.new(self.salt, content, hashlib.sha256).hexdigest()


def ids_of(path: Path, id_column: str | None = None) -> pd.DataFrame:
    """The id columns of a table of any kind, as text; none where it cannot be read.

    Whoever opens the table for its content says what is wrong with it.
    """
    from lens.study.embedding_files import holds_arrays, read_arrays
    from lens.study.table_files import read_table

    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as content:
                arrays = {c: content[c].astype(str) for c in (PATIENT, STUDY) if c in content}
            return pd.DataFrame(arrays)
        if holds_arrays(path):
            content = read_arrays(path, "first")
            arrays = {
                c: pd.Series(content[c]).astype(str) for c in (PATIENT, STUDY) if c in content
            }
            return pd.DataFrame(arrays)
        if path.name.endswith("_ids.txt"):
            return pd.DataFrame({PATIENT: path.read_text("utf-8-sig").splitlines()})
        if path.suffix == ".parquet" and id_column is None:
            there = [name for name in read_schema(path).names if name in (PATIENT, STUDY)]
            if PATIENT in there:
                return pd.read_parquet(path, columns=there).astype(str)
        table = read_table(path, id_column)
        return table[[name for name in (PATIENT, STUDY) if name in table]].astype(str)
    except Exception:
        return pd.DataFrame()


def files_of(path: Path) -> list[Path]:
    """The files that the cells of a manifest name; none of a table without such columns."""
    from lens.cohort.prepared import FILE_COLUMNS

    if not path.name.endswith(".csv"):
        return []
    try:
        table = read_csv(
            path, dtype=str, keep_default_na=False, encoding="utf-8-sig",
            usecols=lambda name: name in FILE_COLUMNS,
        )  # fmt: skip
    except Exception:
        return []
    return [path.parent / cell for name in table for cell in table[name] if cell.strip()]


def _paths_of(cohort: Cohort) -> dict[Path, str]:
    """What messages call the files of a cohort: images and masks by modality and region."""
    return {
        path: name for files in cohort.cases for name, path in (files.images | files.masks).items()
    } | {cohort.path: "the manifest", cohort.path.parent: "its folder"}


def _ids_of_cohort(cohort: Cohort) -> pd.DataFrame:
    ids = [(files.patient_id, files.study_id or "") for files in cohort.cases]
    ids += [(error.patient_id, "") for error in cohort.set_aside]
    return pd.DataFrame(ids, columns=[PATIENT, STUDY], dtype=str)


def change_columns(
    table: pd.DataFrame, changes: Mapping[str, Callable[[str], str]]
) -> pd.DataFrame:
    """The table with the text of some columns changed, as far as it has them."""
    made = {
        name: [change(cell) if isinstance(cell, str) else cell for cell in table[name]]
        for name, change in changes.items()
        if name in table
    }
    return table.assign(**made) if made else table


def _short(text: str) -> bool:
    """Whether an id may be any number, or a syllable, of a sentence."""
    return len(text) < 3 or (text.isdigit() and len(text) < 5)


def _whole(text: str) -> re.Pattern[str]:
    """The text where it does not go on in letters or digits."""
    return re.compile(rf"(?<![A-Za-z0-9]){re.escape(text)}(?![A-Za-z0-9])")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
