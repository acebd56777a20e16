"""docs/tables.md against a run folder: every column of every table, both ways.

The folder is the main job's, which holds all that `lens.compare` saves and the tables that its
stages hand on; everything that adds a column is asked for.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import amnesic
from experiments.main_job.config import Config, ContextFlags, LayerFlags, TableFlags
from experiments.sweep import job
from lens.report.results import FILES, SCOPE_FILES, TASK_FILES
from lens.settings import changed
from lens.verdicts.rules import VERDICTS, withheld
from tests.edits.builders import tables as edited_tables
from tests.experiments.small_runs import few_planted_changes
from tests.planted import plant
from tests.undrawn import undraw

DOCS = Path(__file__).resolve().parents[1] / "docs"

SMALL = {
    "hidden": 4, "epochs": 2, "l1": (1e-6,), "l2": (0.0,), "folds": 2, "repeats": 1,
    "bootstraps": 10, "flips": 50,
}  # fmt: skip
EVERY_FOURTH = 4

TABLES = sorted(name for name in FILES if not name.endswith(".json"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one task with studies, retrained encoders, and a column and a patient left out."""
    folder = tmp_path_factory.mktemp("dictionary")
    planted, rng = plant(n=60, d=6), np.random.default_rng(0)
    ids, n = planted.ids, len(planted.ids)
    studies = np.full(n, "S1")

    def embeddings(name: str, values: np.ndarray) -> str:
        np.savez(folder / name, patient_id=ids, study_id=studies, embeddings=values)
        return str(folder / name)

    radiomics = planted.radiomics.set_index("patient_id").iloc[:, ::EVERY_FOURTH].reset_index()
    radiomics.insert(1, "study_id", studies)
    radiomics.iloc[:, -1] = 1.0
    radiomics.iloc[0, 2:] = np.nan
    radiomics.to_csv(folder / "radiomics.csv", index=False)
    labels = pd.DataFrame(
        {"patient_id": ids, "age": rng.normal(60, 9, n),
         "site": np.where(np.arange(n) % 2 == 0, "a", "b"), "used": np.arange(n) % 3 > 0}
    )  # fmt: skip
    labels.to_csv(folder / "labels.csv", index=False)
    icc = pd.DataFrame({"column": radiomics.columns[2:], "icc": 0.9})
    icc.to_csv(folder / "repeatability.csv", index=False)

    def layers(name: str, values: np.ndarray) -> Path:
        layer = np.repeat(["stage1", "stage2"], values.shape[1])
        both = np.concatenate([values, values], axis=1)
        np.savez(folder / name, patient_id=ids, study_id=studies, embeddings=both, layer=layer)
        return folder / name

    seeds = [planted.ft + 0.1 * rng.normal(size=planted.ft.shape) for _ in range(2)]
    config = Config(
        tables=TableFlags(
            pre=(embeddings("pre.npz", planted.pre),),
            ft=(f"cls={embeddings('ft.npz', planted.ft)}",),
            retrained=tuple(
                f"cls={embeddings(f'seed{number}.npz', x)}" for number, x in enumerate(seeds)
            ),
            radiomics=((str(folder / "radiomics.csv"),),),
        ),
        layers=LayerFlags(
            layers_pre=(str(layers("layers-pre.npz", planted.pre)),),
            layers_ft=(f"cls={layers('layers-ft.npz', planted.ft)}",),
            layers_random=layers("layers-random.npz", rng.normal(size=planted.pre.shape)),
        ),
        context=ContextFlags(
            labels=folder / "labels.csv", adjust=("age",), site="site",
            exposure=(f"cls={folder / 'labels.csv'}",),
            repeatability=folder / "repeatability.csv", doctor="full",
        ),
        out=folder / "run",
    )  # fmt: skip
    age = (f"{folder / 'labels.csv'}:age",)
    with pytest.MonkeyPatch.context() as patch:
        undraw(patch)
        few_planted_changes(patch)
        assert job(changed(config, **SMALL)) == 3, "done with a patient set aside"
        erasing = amnesic.Config(folder / "run", age, draws=19, bootstraps=20, folds=2)
        assert amnesic.job(erasing) == 0
    edited_tables().write(folder / "run/edits", {})
    return folder / "run"


def found(folder: Path, name: str) -> list[str]:
    """The columns of a table, or the arrays of an archive."""
    path = folder / "cls" / name if name in TASK_FILES else folder / name
    if path.suffix == ".npz":
        with np.load(path) as content:
            return list(content)
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    return list(table.columns)


def documented() -> dict[str, list[str]]:
    """File -> columns of the tables below the headings of docs/tables.md that name the file."""
    columns: dict[str, list[str]] = {name: [] for name in TABLES}
    files: list[str] = []
    text = (DOCS / "tables.md").read_text(encoding="utf-8")
    places = {"task": ["cls"]}
    for name, values in re.findall(r"^\| `<(\w+)>` \| (.*?) \|", text, re.M):
        places.setdefault(name, re.findall(r"`(\w+)`", values))
    for line in text.splitlines():
        if line.startswith("#"):
            files = re.findall(r"`([\w./-]+)`", line)
        elif files and line.startswith("| `"):
            names = re.findall(r"`([^`]+)`", line.split("|")[1])
            for file in files:
                columns[file] += [full for name in names for full in expanded(name, places)]
    return columns


def expanded(name: str, places: dict[str, list[str]]) -> list[str]:
    """``r2_<stage>`` -> ``r2_pre``, ``r2_ft``."""
    parts = re.split(r"<(\w+)>", name)
    options = [places[part] if at % 2 else [part] for at, part in enumerate(parts)]
    return ["".join(each) for each in itertools.product(*options)]


@pytest.mark.parametrize("name", TABLES)
def test_every_column_has_an_entry_and_every_entry_a_column(folder: Path, name: str) -> None:
    entries, columns = documented()[name], found(folder, name)
    missing = [column for column in columns if column not in entries]
    assert not missing, f"docs/tables.md has no entry for column(s) of {name}: {missing}"
    stale = [entry for entry in entries if entry not in columns]
    assert not stale, f"docs/tables.md describes column(s) that {name} does not have: {stale}"
    twice = sorted({entry for entry in entries if entries.count(entry) > 1})
    assert not twice, f"docs/tables.md describes column(s) of {name} twice: {twice}"


def test_every_entry_has_a_meaning_a_unit_and_a_source() -> None:
    for line in (DOCS / "tables.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| `") and not line.startswith("| `<"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert len(cells) == 4, line
            assert all(cells), line


def test_headings_name_files_of_a_run_folder() -> None:
    headings = [
        line
        for line in (DOCS / "tables.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("#")
    ]
    named = set(re.findall(r"`([\w./-]+)`", "\n".join(headings)))
    assert named == set(TABLES)
    assert set(SCOPE_FILES) | set(TASK_FILES) <= set(FILES)


def test_the_verdicts_are_named_in_order() -> None:
    text = (DOCS / "tables.md").read_text(encoding="utf-8")
    assert re.findall(r"^- \*\*(\w+)\*\*:", text, re.M) == [*VERDICTS]


def test_the_order_of_the_rules_is_theirs() -> None:
    text = (DOCS / "verdicts.md").read_text(encoding="utf-8")
    rules = text[text.index("## The rules, in order") : text.index("## In formulae")]
    first = re.findall(r"^\d\. \*\*(\w+)\*\*", rules, re.M)
    assert first == ["absent", "lost", "recoded", "unchanged", "undecided"]


def test_the_reasons_for_withholding_are_named() -> None:
    text = (DOCS / "tables.md").read_text(encoding="utf-8")
    assert withheld.__doc__ is not None
    for reason in re.findall(r"- ``([\w ]+)``:", withheld.__doc__):
        assert f"`{reason}`" in text
