"""Runs of the main job on small tables, and what of a finished one another would reuse."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments.common.rehearsal import Rehearsal
from experiments.common.run_record import RunRecord
from experiments.main_job.analysis import PartStages, analyse, parts_of, prepare
from experiments.main_job.config import Config, ContextFlags, TableFlags
from experiments.main_job.inputs import from_tables
from experiments.main_job.plan import settle
from lens import cache, stages
from lens.settings import changed
from lens.verdicts import doctor
from tests.planted import Planted, plant
from tests.shared_folders import made_once

SMALL = {
    "hidden": 4, "epochs": 4, "l1": (1e-6,), "l2": (1e-5,), "folds": 2, "repeats": 1,
    "bootstraps": 20, "flips": 40,
}  # fmt: skip

KEPT = re.compile("original_(firstorder|glcm)_")


def with_few_features(planted: Planted) -> Planted:
    """Two classes of features instead of six: of the subsets that are fitted, few are left."""
    names = [c for c in planted.radiomics if c == "patient_id" or KEPT.search(c)]
    return replace(planted, radiomics=planted.radiomics[names])


def made_tables(factory: pytest.TempPathFactory) -> Path:
    """The tables of `write_tables`, to be left as they are."""
    return made_once(factory, "reuse-tables", write_tables)


def finished_run(factory: pytest.TempPathFactory, name: str, **options: Any) -> Path:
    """A finished run on them, to be left as it is.

    Args:
        factory: of the session.
        name: of the run, another for other options.
        options: as `config` takes them.
    """
    tables = made_tables(factory)

    def make(folder: Path) -> None:
        assert run(config(tables, folder, **options)) == 0

    return made_once(factory, f"reuse-{name}", make)


def write_tables(folder: Path) -> None:
    """Two tasks, a retrained encoder, labels, exposure and repeatability of 60 patients."""
    planted = with_few_features(plant(n=60, d=8))
    planted.write(folder)
    other = plant(n=60, d=8, erased=(1,), seed=0)
    for name, values in (
        ("reg", other.ft),
        ("again", planted.ft + 0.01),
        ("third", other.ft - 0.01),
    ):
        np.savez(folder / f"{name}.npz", patient_id=planted.ids, embeddings=values)
    labels = pd.DataFrame({"patient_id": planted.ids, "age": np.arange(60.0), "site": ["a"] * 60})
    labels.loc[30:, "site"] = "b"
    labels.to_csv(folder / "labels.csv", index=False)
    used = pd.DataFrame({"patient_id": planted.ids, "used": np.arange(60) % 3 > 0})
    used.to_csv(folder / "patients.csv", index=False)
    columns = planted.radiomics.columns[1:]
    icc = pd.DataFrame({"column": columns, "icc": np.linspace(0.5, 1, len(columns))})
    icc.to_csv(folder / "icc.csv", index=False)


def config(tables: Path, out: Path, **options: Any) -> Config:
    """Both tasks on the tables with small settings."""
    made = Config(
        tables=TableFlags(
            pre=(str(tables / "pre.npz"),),
            ft=(f"cls={tables / 'ft.npz'}", f"reg={tables / 'reg.npz'}"),
            radiomics=((str(tables / "radiomics.csv"),),),
        ),
        context=ContextFlags(exposure=(f"cls={tables / 'patients.csv'}",)),
        out=out,
    )
    return changed(made, **(SMALL | options))


def run(config: Config) -> int:
    """The main job without its page, which takes most of the time and is made anew each time."""
    plan = settle(config)
    record = RunRecord(plan.out, plan.flags())
    aside = analyse(plan, from_tables(plan), record)
    record.clear()
    return len(aside)


def few_planted_changes(patch: pytest.MonkeyPatch) -> None:
    """Makes the full doctor quick, where what its planted changes show is not looked at."""
    examine = doctor.examine

    def few(*given: Any, **options: Any) -> doctor.Findings:
        *tables, planted, device = given
        planted = replace(planted, doses=(1.0,), clusters=1, draws=1, maps=1)
        return examine(*tables, planted, device, **options)

    patch.setattr(doctor, "examine", few)


def recorded(folder: Path) -> dict[str, str]:
    """Hash of every file of the run that holds results, by name."""
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    files = [facts["outputs"] for facts in record["stages"].values()] + [record["files"]]
    hashes = {name: facts["sha256"] for part in files for name, facts in part.items()}
    # The page says how long each stage took.
    return {name: each for name, each in hashes.items() if name != "report.html"}


def on_disk(folder: Path) -> dict[str, str]:
    """The same, of what really lies there."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    found = cache.recorded(files, folder)
    own = ("run.json", "report.html")
    return {name: facts["sha256"] for name, facts in found.items() if name not in own}


def stages_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))["stages"]


def reused(folder: Path) -> set[str]:
    """Stages of the last run that an earlier one did."""
    return {name for name, facts in stages_of(folder).items() if facts["reused"]}


class Keys(Rehearsal):
    """The keys of all stages; what a stage reads of another is as the run before left it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.keys: dict[str, str] = {}

    def stage(self, name: str, code: Any, depends: Any, *_: Any, **__: Any) -> None:
        self.keys[name] = cache.key(code, depends)

    def awaits(self, path: Path) -> bool:
        return not path.exists()

    def reusable_stages(self) -> set[str]:
        return {name for name, key in self.keys.items() if self.reusable(name, key)}


def keys(config: Config) -> Keys:
    """What a run would compare with the folder that it is for; nothing runs and nothing is written.

    A stage that is not reusable here is none in the run either: what it reads of other stages, if
    these are done anew, can only be more different.
    """
    plan = settle(config)
    record, inputs = Keys(plan.out), from_tables(plan)
    for part in parts_of(plan, inputs, plan.out).values():
        made = prepare(plan, inputs, part)
        settings = stages.begin(made.study, plan.settings)
        PartStages(settings, *made, part, record, plan.config.context.doctor).rehearse(record)
    return record


def forget(folder: Path, names: set[str]) -> None:
    """Takes stages out of a run, and their files."""
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    for name in names:
        for file in record["stages"].pop(name)["outputs"]:
            (folder / file).unlink()
    (folder / "run.json").write_text(json.dumps(record))
