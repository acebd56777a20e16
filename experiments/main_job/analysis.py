"""From tables to a run folder: the stages of the analysis with files around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from experiments.common.flags import common_and_own
from experiments.common.run_record import RunRecord
from experiments.main_job.inputs import Inputs
from experiments.main_job.layers import LayerFiles
from experiments.main_job.plan import Plan, Scope
from lens import stages
from lens.anonymise import OPEN, Names
from lens.context import Context, read_context
from lens.errors import CaseError
from lens.files import file_hash, read_table, write_failures, write_table
from lens.progress import tqdm_bar
from lens.report.answer_text import in_lines
from lens.report.results import read_results
from lens.report.writing import (
    read_projection,
    write_diagnosis,
    write_patients,
    write_rest,
    write_shift,
    write_study,
    write_sweep,
)
from lens.settings import DoctorForm, Settings, doctor_form
from lens.study.identical import check_different
from lens.study.layers import read_layers
from lens.study.load import load_study
from lens.study.study import Study
from lens.verdicts.judge import Judged

if TYPE_CHECKING:
    from experiments.common.rehearsal import Rehearsal

VERDICT_FILES = ("verdicts.parquet", "levels.csv")

PATIENT_FILES = ("patients.parquet", "moved.parquet")

REST_FILES = ("rest.csv", "rest_patients.parquet")

LAYER_FILES = ("layers.csv", "layers.parquet")

PROJECTION = "projection.npz"

FIRST_STAGES = ("sweep", "cross-validation", "encoding", "rest")

SPLIT_FILES = (
    "features.parquet", "groups.csv", "modalities.csv", "decoders.npz", "similarity.csv",
)  # fmt: skip


def analyse(plan: Plan, inputs: Inputs, record: RunRecord) -> list[CaseError]:
    """Runs the analysis on tables and gives all patients set aside on the way."""
    set_aside, scopes, tasks = list(inputs.set_aside), {}, {}
    parts = parts_of(plan, inputs, record.folder)
    if len(parts) > 1:
        # What the tables of one lack must show before the hours that another takes.
        for part in parts.values():
            prepare(plan, inputs, part)
    for name, part in parts.items():
        prepared = prepare(plan, inputs, part)
        set_aside += prepared.study.set_aside
        settings = stages.begin(prepared.study, plan.settings)
        doctor = plan.config.context.doctor
        PartStages(settings, *prepared, part, record, doctor, inputs.names).run()
        facts = stages.facts(prepared.study, settings)
        scopes[name] = facts | {"folder": str(part.folder.relative_to(record.folder))}
        tasks |= dict.fromkeys(part.ft, name)
    set_aside = inputs.names.errors(_once_each(set_aside))
    failures = record.folder / "failures.csv"
    with record.writing(failures):
        write_failures(set_aside, failures)
    # The run folder's own part comes first; the others' widths are with their scopes.
    hidden = next(iter(scopes.values()))["hidden"]
    record.finish(
        config=record.record["config"] | {"hidden": hidden},
        tasks={task: tasks[task] for task in inputs.tasks},
        scopes=scopes,
        inputs={inputs.names.text(str(path)): file_hash(path) for path in inputs.files()},
        device=str(jax.devices()[0]),
        seeds={"first": plan.settings.seed, "count": plan.settings.mlp.seeds},
        notes=list(inputs.notes),
    )
    if said := in_lines(read_results(record.folder)):
        print(said)
    return set_aside


@dataclass(frozen=True)
class Part:
    """The tasks that share embeddings before fine-tuning and scope, hence split and projection.

    Attributes:
        scope: what the tasks are read against.
        pre: embeddings before fine-tuning.
        ft: task -> embeddings after it.
        folder: of the sweep, the projection and the split.
        layers: task -> embeddings of every layer; none where they are not asked for.
    """

    scope: Scope
    pre: Path
    ft: dict[str, Path]
    folder: Path
    layers: dict[str, LayerFiles] = field(default_factory=dict)

    def stage_name(self, name: str, run: Path) -> str:
        """What a stage of this part is called in the record of the run folder `run`."""
        return name if self.folder == run else f"{name} {self.folder.name}"

    def stage_names(self, run: Path, doctor: DoctorForm | bool) -> list[str]:
        """All stages of this part in order, as `PartStages` does them."""
        more = ("layers",) if self.layers else ()
        more += () if doctor_form(doctor) == "off" else ("doctor",)
        of_part = [self.stage_name(name, run) for name in (*FIRST_STAGES, *more)]
        return of_part + [f"shift {task}" for task in self.ft]


class Prepared(NamedTuple):
    """The tables of a part, joined and checked."""

    study: Study
    context: Context


def prepare(plan: Plan, inputs: Inputs, part: Part) -> Prepared:
    """Reads and joins the tables of a part, and refuses what any of its stages would refuse.

    Raises:
        InputError: a table, region, column or number of folds cannot be used, or embeddings after
            fine-tuning are those before it.
    """
    again = {task: inputs.retrained.get(task, []) for task in part.ft}
    study = load_study(
        part.pre,
        part.ft,
        inputs.radiomics,
        split=inputs.split,
        rois=part.scope.rois,
        modalities=part.scope.modalities,
        seed=plan.settings.seed,
        retrained=again,
        allow_partial=plan.settings.allow_partial,
        any_columns=plan.settings.any_columns,
        id_column=plan.settings.id_column,
        pool_tokens=plan.settings.pool_tokens,
        names=inputs.names,
    )
    # The control of the embedded default may well keep its start.
    if not (plan.config.tables.identical or plan.embedded):
        after = {task: [*map(str, (ft, *again[task]))] for task, ft in part.ft.items()}
        check_different(study, str(part.pre), after)
    stages.study_folds(study, plan.settings)
    return Prepared(study, _read_context(plan, study, _exposing_split(plan, inputs), inputs.names))


def parts_of(plan: Plan, inputs: Inputs, folder: Path) -> dict[str, Part]:
    """The parts by name; the first one lives in the run folder itself."""
    parts: dict[tuple[Path, Scope], dict[str, Path]] = {}
    for task, (pre, ft) in inputs.tasks.items():
        scope = replace(plan.scope(task), channels=())
        parts.setdefault((pre, scope), {})[task] = ft
    named: dict[str, Part] = {}
    for (pre, scope), ft in parts.items():
        name, number = str(scope), 1
        while name in named:
            stem = "pre" if inputs.names.hides else pre.stem
            name = f"{scope}-{stem}" + (f"-{number}" if number > 1 else "")
            number += 1
        layers = {task: inputs.layers[task] for task in ft if task in inputs.layers}
        named[name] = Part(scope, pre, ft, folder / "scopes" / name if named else folder, layers)
    return named


def _exposing_split(plan: Plan, inputs: Inputs) -> Path | None:
    """Whom fine-tuning saw where no flag says it: by a split that is given, or of the phantoms."""
    if inputs.exposure is not None:
        return inputs.exposure
    own_data = plan.config.tables.pre or plan.config.images.cohort
    return plan.config.tables.split if own_data else inputs.split


def _read_context(plan: Plan, study: Study, split: Path | None, names: Names) -> Context:
    """What the flags ask to look at around the verdicts."""
    flags, tasks = plan.config.context, list(study.x_ft)
    given = [
        entry for entry in flags.exposure if "=" not in entry or entry.partition("=")[0] in tasks
    ]
    everyone, own = common_and_own(given, tasks, "--exposure")
    exposure = {
        task: path for task in tasks if (path := own.get(task, everyone or split)) is not None
    }
    return read_context(
        study,
        labels=flags.labels or plan.config.images.cohort,
        adjust=flags.adjust,
        site=flags.site,
        exposure=exposure,
        repeatability=flags.repeatability,
        seed=plan.settings.seed,
        names=names,
    )


class Stage(NamedTuple):
    """A stage of the analysis of one part.

    Attributes:
        name: of the stage.
        reads: files of other stages that it reads.
        depends: gives what determines its outputs; reads those files.
        outputs: that it may write.
        work: the stage.
    """

    name: str
    reads: tuple[Path, ...]
    depends: Callable[[], Any]
    outputs: list[Path]
    work: Callable[[], object]


@dataclass(frozen=True)
class PartStages:
    """The stages of one part, each done once for the same study and settings.

    Attributes:
        settings: of `lens.stages.begin`.
        study, context: of `prepare`.
        part: whose stages they are.
        record: of the run folder.
        doctor: its form.
        names: under which patients enter the study.
    """

    settings: Settings
    study: Study
    context: Context
    part: Part
    record: RunRecord
    doctor: DoctorForm | bool
    names: Names = OPEN

    def run(self) -> None:
        """Runs what is not done yet."""
        here = self.part.folder
        with self.record.writing(here / "split.csv", here / "dropped.csv"):
            write_study(here, self.study)
        for stage in self.each():
            self.record.stage(stage.name, (__name__,), stage.depends(), stage.outputs, stage.work)

    def rehearse(self, record: Rehearsal) -> None:
        """Notes which stages would be reused, and writes nothing."""
        for stage in self.each():
            if any(record.awaits(path) for path in stage.reads):
                record.to_do(stage.name, stage.outputs)
            else:
                record.stage(stage.name, (__name__,), stage.depends(), stage.outputs, stage.work)

    def each(self) -> Iterator[Stage]:
        """The stages in order."""
        here, study, run = self.part.folder, self.study, self.record.folder
        sweep, folds, encoding, rest = (self.part.stage_name(name, run) for name in FIRST_STAGES)
        first = [study.ids, study.features, study.split, study.x_pre, study.r, self.settings]
        outputs = [here / "sweep.parquet", here / PROJECTION]
        yield Stage(sweep, (), lambda: first, outputs, self._sweep)
        every = [*first, study.observed(), study.x_ft]
        beyond = [study.retrained, self.context]
        outputs = self._of_tasks(*VERDICT_FILES, *PATIENT_FILES, "exposure.csv")
        yield Stage(folds, (), lambda: [every, beyond], outputs, self._cross_validate)
        outputs = self._of_tasks("encoding.csv")
        yield Stage(encoding, (), lambda: every, outputs, self._encode)
        outputs = self._of_tasks(*REST_FILES)
        yield Stage(rest, (), lambda: [every, study.retrained], outputs, self._rest)
        if self.part.layers:
            yield self._by_layer(self.part.stage_name("layers", run), every)
        if doctor_form(self.doctor) != "off":
            yield self._doctor(self.part.stage_name("doctor", run), every)
        for task in study.x_ft:
            yield self._single_split(task, every)

    def _of_tasks(self, *names: str) -> list[Path]:
        return [self.record.folder / task / name for task in self.study.x_ft for name in names]

    def _sweep(self) -> None:
        trained = stages.train(self.study, self.settings, bar=tqdm_bar)
        write_sweep(self.part.folder, *trained)

    def _cross_validate(self) -> None:
        scratch = stages.scratch_of(self.settings, self.record.folder)
        judged = stages.judge_tasks(
            self.study, self.settings, self.context, bar=tqdm_bar, scratch=scratch
        )
        for task, tables in judged.items():
            for table, name in zip(tables, VERDICT_FILES, strict=True):
                write_table(table, self.record.folder / task / name)
        verdicts = {task: tables.features for task, tables in judged.items()}
        found = stages.single_patients(self.study, self.settings, verdicts, bar=tqdm_bar)
        for task, patients in found.items():
            write_patients(self.record.folder / task, patients)
        exposed = self.context.confounds.exposed
        for task in self.study.x_ft:
            (self.record.folder / task / "exposure.csv").unlink(missing_ok=True)
        flagged = self.study.ids.assign(split=self.study.split)
        self._write(
            {task: flagged.assign(exposure=rows) for task, rows in exposed.items()}, "exposure.csv"
        )

    def _encode(self) -> None:
        tables = stages.encode(self.study, self.settings, bar=tqdm_bar)
        self._write(tables, "encoding.csv")

    def _rest(self) -> None:
        for task, found in stages.rest_of_change(self.study, self.settings, bar=tqdm_bar).items():
            write_rest(self.record.folder / task, found)

    def _by_layer(self, name: str, every: list[Any]) -> Stage:
        """What every layer tells of the features."""
        files = {task: each.files() for task, each in self.part.layers.items()}
        reads = tuple(path for each in files.values() for path in each.values())

        def work() -> None:
            ids, names = self.study.ids, self.names
            read = {path: read_layers(path, ids, names) for path in dict.fromkeys(reads)}
            layers = {task: {k: read[p] for k, p in each.items()} for task, each in files.items()}
            found = stages.by_layer(self.study, self.settings, layers, bar=tqdm_bar)
            for task, tables in found.items():
                for table, file in zip(tables, LAYER_FILES, strict=True):
                    write_table(table, self.record.folder / task / file)

        outputs = [self.record.folder / task / file for task in files for file in LAYER_FILES]

        def depends() -> list[Any]:
            return [every, {t: {k: file_hash(p) for k, p in f.items()} for t, f in files.items()}]

        return Stage(name, reads, depends, outputs, work)

    def _doctor(self, name: str, every: list[Any]) -> Stage:
        """What the cohort can show; its full form does not depend on the verdicts."""
        form, folder = doctor_form(self.doctor), self.part.folder / "doctor"
        files = {task: self.record.folder / task / VERDICT_FILES[0] for task in self.study.x_ft}

        reads = tuple(files.values()) if form == "short" else ()

        def depends() -> list[Any]:
            return [form, every, [file_hash(path) for path in reads]]

        def work() -> None:
            tables = {task: read_table(path) for task, path in files.items()}
            found = stages.diagnose(self.study, tables, self.settings, form, bar=tqdm_bar)
            write_diagnosis(folder, found, {"notes": self.study.notes})

        return Stage(name, reads, depends, [folder], work)

    def _single_split(self, task: str, every: list[Any]) -> Stage:
        folder = self.record.folder / task
        files = [folder / name for name in VERDICT_FILES]

        def depends() -> list[Any]:
            scaled = [part._asdict() for part in read_projection(self.part.folder)]
            return [every, task, scaled, *(file_hash(path) for path in files)]

        def work() -> None:
            judged = Judged(*(read_table(path) for path in files))
            result, context = stages.compare_single_split(
                self.study, read_projection(self.part.folder), task, judged, self.settings,
                scratch=stages.scratch_of(self.settings, self.record.folder),
            )  # fmt: skip
            write_shift(folder, result)
            write_table(context, folder / "similarity.csv")

        outputs = [folder / name for name in SPLIT_FILES]
        reads = (self.part.folder / PROJECTION, *files)
        return Stage(f"shift {task}", reads, depends, outputs, work)

    def _write(self, tables: Mapping[str, Any], name: str) -> None:
        for task, table in tables.items():
            write_table(table, self.record.folder / task / name)


def _once_each(errors: list[CaseError]) -> list[CaseError]:
    """Each finding once: every job that reads a bad image reports it, and every table lacks it."""
    found_early = {error.patient_id for error in errors if error.stage != "join"}
    first = {
        str(error): error
        for error in errors
        if error.stage != "join" or error.patient_id.split("/")[0] not in found_early
    }
    return list(first.values())
