"""The whole analysis in one call: what did fine-tuning change, in radiomic features?"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

import jax
import pandas as pd

import lens
from lens import cache, stages
from lens.allocator import give_back_memory
from lens.anonymise import OPEN, Anonymiser
from lens.context import Context, read_context
from lens.errors import InputError
from lens.files import failure_table, write_failures, write_json, write_table
from lens.lock import held, of_folder
from lens.paper.shift import Shift
from lens.progress import silent, tqdm_bar
from lens.report.answer_text import in_lines
from lens.report.page import write_report
from lens.report.results import Results, Scope, TaskTables
from lens.report.writing import (
    write_diagnosis,
    write_patients,
    write_rest,
    write_shift,
    write_study,
    write_sweep,
)
from lens.rest.table import Rest
from lens.salt import read_salt
from lens.settings import DEFAULTS, DoctorForm, Settings, changed, doctor_form, flat
from lens.study.identical import check_different
from lens.study.load import load_study
from lens.study.study import Study
from lens.study.tables import EmbeddingSource, TableSource, is_table
from lens.verdicts.doctor_summary import Diagnosis
from lens.verdicts.patients import Patients


@dataclass(frozen=True)
class TaskResult:
    """What fine-tuning on one task changed.

    Attributes:
        shift: decoders, and the tables by feature, feature group and modality.
        levels: verdicts of the task and of its groups of features.
        encoding: variance of the embeddings that each group of features explains.
        similarity: the two embeddings as a whole.
        patients: held-out predictions of single patients.
        rest: what of the change the features tell, and who moved without them.
    """

    shift: Shift
    levels: pd.DataFrame
    encoding: pd.DataFrame
    similarity: pd.DataFrame
    patients: Patients
    rest: Rest


@dataclass(frozen=True)
class Comparison:
    """Result of `compare`.

    Attributes:
        study: the joined tables: what was analysed, dropped and set aside.
        settings: as used.
        trained: the sweep with its frozen projection, and the scaling of the features.
        tasks: task -> its results.
        context: what was looked at around the verdicts.
        doctor: whether the cohort can show a change; None where that was not asked.
        seconds: taken by each stage.
        anonymous: whether patients have hashed ids, and `save` writes no name of this machine.
    """

    study: Study
    settings: Settings
    trained: stages.Trained
    tasks: dict[str, TaskResult]
    context: Context = field(default_factory=Context)
    doctor: Diagnosis | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    anonymous: bool = False

    @property
    def verdicts(self) -> pd.DataFrame:
        """A row per task and feature: ``task``, then the columns of ``features.parquet``."""
        return self._stacked(lambda result: result.shift.features)

    @property
    def groups(self) -> pd.DataFrame:
        """The paper's Table 1: ``task``, then the columns of ``groups.csv``."""
        return self._stacked(lambda result: result.shift.groups)

    @property
    def modalities(self) -> pd.DataFrame:
        """The paper's Figure 2: ``task``, then the columns of ``modalities.csv``."""
        return self._stacked(lambda result: result.shift.modalities)

    def summary(self) -> str:
        """The answer in sentences, a block of lines per task, as on the page's first screen."""
        return in_lines(self._results())

    def save(self, folder: str | Path) -> Path:
        """Writes the run folder that the main job writes, page and figures included.

        Args:
            folder: where to; files of an earlier run there are replaced by name.

        Returns:
            The folder.
        """
        folder = Path(folder)
        with held(of_folder(folder)):
            self._save(folder)
        return folder

    def _save(self, folder: Path) -> None:
        write_study(folder, self.study)
        write_sweep(folder, *self.trained)
        for task, result in self.tasks.items():
            write_shift(folder / task, result.shift)
            write_table(result.levels, folder / task / "levels.csv")
            write_table(result.similarity, folder / task / "similarity.csv")
            write_table(result.encoding, folder / task / "encoding.csv")
            write_patients(folder / task, result.patients)
            write_rest(folder / task, result.rest)
        if self.doctor is not None:
            write_diagnosis(folder / "doctor", self.doctor, {"notes": self.study.notes})
        write_failures(self.study.set_aside, folder / "failures.csv")
        write_json(folder / "run.json", self._record())
        write_report(folder)

    def report(self, folder: str | Path | None = None) -> Path:
        """Writes everything as `save` does and gives the page, ``report.html``.

        Args:
            folder: where to; a new temporary folder if none is given.
        """
        return self.save(folder or tempfile.mkdtemp(prefix="radiomic-lens-")) / "report.html"

    def __repr__(self) -> str:
        patients, features = self.study.ids["patient_id"].nunique(), len(self.study.features)
        lines = [f"Comparison of {patients} patients and {features} features"]
        lines += [f"  {task}: {counts}" for task, counts in self._counts().items()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        said = f'<pre style="white-space: pre-wrap">{escape(self.summary())}</pre>'
        counts = pd.DataFrame(
            {task: r.shift.features["verdict"].value_counts() for task, r in self.tasks.items()}
        )
        return said + counts.fillna(0).astype(int).T.to_html()

    def _counts(self) -> dict[str, str]:
        return {
            task: ", ".join(
                f"{count} {verdict}"
                for verdict, count in result.shift.features["verdict"].value_counts().items()
            )
            for task, result in self.tasks.items()
        }

    def _stacked(self, table: Any) -> pd.DataFrame:
        parts = [table(result).assign(task=task) for task, result in self.tasks.items()]
        stacked = pd.concat(parts, ignore_index=True)
        return stacked[["task", *(name for name in stacked if name != "task")]]

    def _results(self) -> Results:
        """The tables as `lens.report.results.read_results` reads them from a saved run."""
        diagnosis, record = self.doctor, self._record()
        scope = Scope(
            facts=record["scopes"]["all"],
            sweep=self.trained.sweep.table,
            split=self.study.ids.assign(split=self.study.split),
            dropped=self.study.dropped,
            doctor={} if diagnosis is None else diagnosis.content,
            planted=pd.DataFrame()
            if diagnosis is None or diagnosis.findings is None
            else diagnosis.findings.planted,
        )
        tasks = {
            task: TaskTables(
                features=result.shift.features,
                levels=result.levels,
                groups=result.shift.groups,
                modalities=result.shift.modalities,
                similarity=result.similarity,
                encoding=result.encoding,
            )
            for task, result in self.tasks.items()
        }
        return Results(record, {"all": scope}, tasks, failure_table(self.study.set_aside))

    def _record(self) -> dict[str, Any]:
        return {
            "config": flat(self.settings)
            | {
                "anonymise": self.anonymous,
                "adjust": self.context.adjust,
                "site": self.context.site,
                "doctor": "off" if self.doctor is None else self.doctor.content["form"],
            },
            "versions": {"python": platform.python_version(), "radiomic-lens": lens.__version__}
            | cache.libraries(),
            "machine": platform.system() if self.anonymous else platform.platform(),
            "started": time.strftime("%Y-%m-%d %H:%M:%S%z"),
            "stages": {
                name: {"seconds": seconds, "compile_seconds": 0.0, "reused": False}
                for name, seconds in self.seconds.items()
            },
            "tasks": dict.fromkeys(self.tasks, "all"),
            "scopes": {"all": stages.facts(self.study, self.settings) | {"folder": "."}},
            "inputs": {},
            "device": str(jax.devices()[0]),
            "seeds": {"first": self.settings.seed, "count": self.settings.mlp.seeds},
            "notes": [],
        }


def compare(
    pre: EmbeddingSource | Study,
    ft: EmbeddingSource | Mapping[str, EmbeddingSource] | None = None,
    radiomics: TableSource | None = None,
    *,
    split: TableSource | None = None,
    rois: str | Sequence[str] = (),
    modalities: str | Sequence[str] = (),
    retrained: Mapping[str, Sequence[EmbeddingSource]] | None = None,
    labels: TableSource | None = None,
    adjust: str | Sequence[str] = (),
    site: str | None = None,
    exposure: TableSource | Mapping[str, TableSource] | None = None,
    repeatability: TableSource | None = None,
    identical: bool = False,
    doctor: DoctorForm | bool = "short",
    anonymise: bool | str | Path = False,
    settings: Settings = DEFAULTS,
    progress: bool = True,
    **options: Any,
) -> Comparison:
    """Compares an encoder before and after fine-tuning, feature by feature.

    The main job, ``radiomic-lens sweep``, is this call with files around it:

        comparison = lens.compare("before.npz", {"cls": "after.npz"}, "radiomics.csv")
        comparison.verdicts.to_csv("verdicts.csv")
        comparison.report("runs/mine")

    Args:
        pre: embeddings before fine-tuning: a path, a table with ``patient_id``, or
            ``(ids, array)`` with ``array (n, d)`` of NumPy, of torch, or nested lists; or a
            `Study`, which holds all tables.
        ft: the same after fine-tuning, per task; a single one is task ``ft``.
        radiomics: a path or table of radiomic features, in their own units.
        split: a path or table of ``patient_id`` and ``split``; without it, 7:1:2 by patient.
        rois, modalities: parts of the radiomics table to analyse; none means all.
        retrained: task -> embeddings of encoders fine-tuned on it from other seeds.
        labels: a path or table of ``patient_id`` and label columns, for `adjust` and `site`.
        adjust: its columns to adjust for (partial R2).
        site: its column that names the site.
        exposure: task -> a path or table of the patients whom its fine-tuning saw; a single one is
            that of every task.
        repeatability: a path or table of ``column`` and ``icc``.
        doctor: what to tell of what the cohort can show. ``short`` reads it off the verdicts;
            ``full``, or True, plants known changes (minutes); ``off``, or False, tells nothing.
        anonymise: hash the ids of patients and drop paths, in the result and all that it writes;
            True for your own salt, or the path of one (`lens.salt`).
        identical: allow embeddings after fine-tuning that equal those before it.
        settings: how to compare.
        progress: show bars.
        options: single settings by name, such as ``folds=3, hidden=32, seed=1``
            (`lens.Settings` and the groups in it).

    Returns:
        A `Comparison`.

    Raises:
        InputError: a table or setting cannot be used; it is named with the remedy.
        TypeError: a setting of an unknown name.
    """
    settings = changed(settings, **options).settled()
    if problem := settings.problem():
        raise InputError(problem)
    try:
        form = doctor_form(doctor)
    except ValueError as error:
        raise InputError(str(error)) from error
    names = (
        OPEN
        if anonymise is False
        else Anonymiser(read_salt(None if anonymise is True else Path(anonymise)))
    )
    if isinstance(pre, Study):
        others = {"ft": ft, "radiomics": radiomics, "split": split, "rois": rois,
                  "modalities": modalities, "retrained": retrained}  # fmt: skip
        if given := [name for name, value in others.items() if value is not None and value != ()]:
            raise InputError(f"a Study holds all tables and its split; {given[0]} goes without one")
        study = names.study(pre)
    elif ft is None or radiomics is None:
        raise InputError("pre is a table of embeddings, so that ft and radiomics are needed too")
    else:
        study = load_study(
            pre, _by_task(ft), radiomics, split=split, rois=_several(rois),
            modalities=_several(modalities), seed=settings.seed, retrained=_by_seed(retrained),
            allow_partial=settings.allow_partial, any_columns=settings.any_columns,
            id_column=settings.id_column, pool_tokens=settings.pool_tokens, names=names,
        )  # fmt: skip
    if not identical:
        check_different(study)
    settings = stages.begin(study, settings)
    context = read_context(
        study, labels=labels, adjust=_several(adjust), site=site,
        exposure=_of_each_task(exposure, study),
        repeatability=repeatability, seed=settings.seed, names=names,
    )  # fmt: skip
    result = _compare(study, settings, context, form, progress=progress)
    return replace(result, anonymous=names.hides)


def _by_task(ft: Any) -> dict[str, Any]:
    """Task -> embeddings; a single table is task ``ft``."""
    return {"ft": ft} if is_table(ft) else dict(ft)


def _several(names: str | Sequence[str]) -> Sequence[str]:
    """Names; a single one may come without its list."""
    return (names,) if isinstance(names, str) else names


def _by_seed(retrained: Any) -> dict[str, Sequence[Any]] | None:
    """Task -> tables of several encoders; a single one may come without its list."""
    if retrained is None or not isinstance(retrained, Mapping):
        return retrained
    single = (str, Path, pd.DataFrame, Mapping, tuple)
    return {
        task: [tables] if isinstance(tables, single) else tables
        for task, tables in retrained.items()
    }


def _of_each_task(exposure: Any, study: Study) -> Mapping[str, Any] | None:
    """Task -> table; a single one is that of every task."""
    if exposure is None or not is_table(exposure):
        return exposure
    return dict.fromkeys(study.x_ft, exposure)


def _compare(
    study: Study, settings: Settings, context: Context, form: DoctorForm, *, progress: bool
) -> Comparison:
    bar, scratch = tqdm_bar if progress else silent, stages.scratch_of(settings)
    clock, seconds = [time.perf_counter()], {}

    def lap(stage: str) -> None:
        clock.append(time.perf_counter())
        seconds[stage] = round(clock[-1] - clock[-2], 2)
        give_back_memory()

    trained = stages.train(study, settings, bar=bar)
    lap("sweep")
    verdicts = stages.judge_tasks(study, settings, context, bar=bar, scratch=scratch)
    tables = {task: judged.features for task, judged in verdicts.items()}
    patients = stages.single_patients(study, settings, tables, bar=bar)
    lap("cross-validation")
    encoding = stages.encode(study, settings, bar=bar)
    lap("encoding")
    rest = stages.rest_of_change(study, settings, bar=bar)
    lap("rest")
    diagnosis = None
    if form != "off":
        diagnosis = stages.diagnose(study, tables, settings, form, bar=bar)
        lap("doctor")
    tasks = {}
    for task in study.x_ft:
        frozen = (trained.sweep.projection, trained.scaling)
        result, similarity = stages.compare_single_split(
            study, frozen, task, verdicts[task], settings, scratch=scratch
        )
        levels = verdicts[task].levels
        tasks[task] = TaskResult(
            result, levels, encoding[task], similarity, patients[task], rest[task]
        )
        lap(f"shift {task}")
    return Comparison(study, settings, trained, tasks, context, diagnosis, seconds)
