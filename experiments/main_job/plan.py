"""What the command line asks for, checked, with every default settled."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encoders.settings import INPUT_SHAPE, SPACING_MM, Pool, grid_problem
from encoders.source_names import named_file
from experiments.common.flags import as_flag, entries, pairs
from experiments.main_job.config import Config, PhantomFlags
from experiments.main_job.embedded import FORMS, Form, Name, form_name, scopes_of
from experiments.main_job.layers import check_flags
from experiments.main_job.scope import Scope
from lens.errors import InputError
from lens.names import PART, name_problem
from lens.ranges import COUNT, Check, first_problem
from lens.settings import Settings, changed, flat
from lens.study.located import located, stored_files

if TYPE_CHECKING:
    from lens.cohort import Cohort

PHANTOMS: dict[Name, str] = {
    "standard": "phantoms", "quick": "phantoms-quick", "full": "phantoms-full",
}  # fmt: skip
"""Folder of a run on the embedded default, by its form."""


@dataclass(frozen=True)
class Plan:
    """The command line with its defaults settled.

    Attributes:
        config: no field of it stands for a default any more, where one is needed.
        out: run folder.
        scopes: task -> what it is read against, where that is not ``config.roi``.
    """

    config: Config
    out: Path
    scopes: dict[str, Scope]

    @property
    def settings(self) -> Settings:
        """Of the analysis."""
        return self.config.analysis

    @property
    def shape(self) -> tuple[int, int, int]:
        """Input of the encoder, D H W (voxels)."""
        assert self.config.images.shape is not None
        return self.config.images.shape

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size x y z (mm) after resampling."""
        assert self.config.images.spacing is not None
        return self.config.images.spacing

    def channels(self, cohort: Cohort) -> tuple[str, ...]:
        """Channels of the encoders, in order."""
        return self.config.images.modalities or cohort.channels

    @property
    def embedded(self) -> bool:
        """Whether the run is on phantoms: no table and no image is brought."""
        return not self.config.tables.pre and self.config.images.cohort is None

    @property
    def narrowing(self) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """PyRadiomics' filters and classes to which the packaged parameters are narrowed."""
        form, given = self.phantom, self.config.images.parameters
        return (
            (form.filters, form.classes) if self.embedded and form.filters and not given else None
        )

    @property
    def pool(self) -> Pool:
        """Over what feature maps are averaged."""
        return self.phantom.pool if self.embedded else "global"

    @property
    def form(self) -> Name:
        """Which form of the embedded default."""
        return form_name(quick=self.config.phantom.quick, full=self.config.phantom.full)

    @property
    def phantom(self) -> Form:
        """The embedded default, with the counts and the grid that flags replaced."""
        flags = self.config.phantom
        counts = (flags.phantoms, flags.pretrain_epochs, flags.finetune_epochs)
        patients, pretrain, finetune = (count or 0 for count in counts)
        return FORMS[self.form]._replace(
            patients=patients,
            pretrain_epochs=pretrain,
            finetune_epochs=finetune,
            shape=self.shape,
            spacing=self.spacing,
            rois=self.config.roi,
        )

    def scope(self, task: str) -> Scope:
        """What the task is read against."""
        return self.scopes.get(task, Scope(rois=self.config.roi))

    def files(self) -> list[Path]:
        """All files that flags name, by themselves, as ``TASK=FILE`` or ``FILE:PART``."""
        return list(dict.fromkeys(named_files(self.config).values()))

    @property
    def radiomics(self) -> Path | dict[str, Path] | None:
        """The radiomics table, or one for each modality and region."""
        return radiomics_tables(self.config)

    def flags(self) -> dict[str, Any]:
        """The settled values by flag, for the run's record."""
        return flat(self.config)


def named_files(config: Config) -> dict[str, Path]:
    """The files that flags name, by flag and task: ``--pre``, ``--ft cls``; refuses nothing."""
    entries = {
        "--pre": config.tables.pre, "--ft": config.tables.ft,
        "--layers-pre": config.layers.layers_pre, "--layers-ft": config.layers.layers_ft,
        "--layers-permuted": config.layers.layers_permuted,
        "--retrained": config.tables.retrained, "--encoder-ft": config.images.encoder_ft,
        "--parameters": config.images.parameters, "--exposure": config.context.exposure,
    }  # fmt: skip
    alone = {
        "--split": config.tables.split, "--layers-random": config.layers.layers_random,
        "--cohort": config.images.cohort, "--encoder-pre": config.images.encoder_pre,
        "--labels": config.context.labels, "--repeatability": config.context.repeatability,
    }  # fmt: skip
    named = {flag: [_task_and_path(entry) for entry in of] for flag, of in entries.items()}
    named["--radiomics"] = [_part_and_path(entry) for entry in _radiomics_entries(config)]
    found: dict[str, Path] = {}
    for flag, values in named.items():
        for number, (of, path) in enumerate(values):
            name = f"{flag} {of}".rstrip()
            found[f"{name} {number}" if name in found else name] = path
    found |= {flag: path for flag, path in alone.items() if path is not None}
    files: dict[str, Path | None] = {}
    for flag, path in found.items():
        if flag.startswith("--encoder"):
            # A function of a module is no file that could be looked for.
            files[flag] = named_file(path)
            continue
        # Of FILE:PART the file, and the ids beside an array.
        for place, file in enumerate(stored_files(path)):
            files[f"{flag} {place}" if place else flag] = file
    return {flag: path for flag, path in files.items() if path is not None}


def radiomics_tables(config: Config) -> Path | dict[str, Path] | None:
    """The radiomics table, or one for each ``MODALITY.ROI``; None where no flag names any.

    Raises:
        InputError: several tables without a word on what each is about, or one of two that are
            about the same.
    """
    given = _radiomics_entries(config)
    parts: dict[str, Path] = {}
    for entry in given:
        part, path = _part_and_path(entry)
        if not part:
            if len(given) > 1:
                raise InputError(
                    f"--radiomics {entry}: of several tables each is named by what it is about, "
                    "MODALITY.ROI=FILE, as in t2.gland=t2.csv"
                )
            return path
        if part in parts:
            raise InputError(f"--radiomics {entry}: {parts[part]} is given for {part}; join them")
        for name in part.split("."):
            if problem := name_problem(name):
                raise InputError(f"--radiomics {entry}: {problem}")
        parts[part] = path
    return parts or None


def _radiomics_entries(config: Config) -> tuple[str, ...]:
    """What ``--radiomics`` was given, however often the flag was."""
    return tuple(entry for entries in config.tables.radiomics for entry in entries)


def _task_and_path(entry: str) -> tuple[str, Path]:
    """``TASK=FILE`` in its parts; of a file alone, an empty task."""
    task, _, path = entry.rpartition("=")
    return task, Path(path)


def _part_and_path(entry: str) -> tuple[str, Path]:
    """``MODALITY.ROI`` and file; of an entry that names no part, an empty one."""
    part, equals, path = entry.partition("=")
    return (part, Path(path)) if equals and path and PART.fullmatch(part) else ("", Path(entry))


def run_folder(config: Config) -> Path:
    """Folder of the results, named after the input where no flag names it; refuses nothing."""
    if config.out is not None:
        return config.out
    if config.tables.pre:
        return Path("runs") / located(config.tables.pre[0].rpartition("=")[2]).path.stem
    if config.images.cohort is not None:
        return Path("runs") / config.images.cohort.resolve().parent.name
    phantom = config.phantom
    return Path("runs") / PHANTOMS[form_name(quick=phantom.quick, full=phantom.full)]


def settle(config: Config) -> Plan:
    """Fills in the defaults that depend on where the input comes from, and checks the combination.

    Raises:
        InputError: flags that do not belong together, one that is missing, or a value out of range.
    """
    _check_source(config)
    radiomics_tables(config)
    phantom = not config.tables.pre and config.images.cohort is None
    form = FORMS[form_name(quick=config.phantom.quick, full=config.phantom.full)]
    analysis = config.analysis.settled(
        folds=form.folds if phantom else 5, repeats=1 if phantom else 2
    )
    spacing, shape = (form.spacing, form.shape) if phantom else _default_grid(config)
    settled = changed(
        dataclasses.replace(config, analysis=analysis, out=run_folder(config)),
        roi=config.roi or (form.rois if phantom else ()),
        spacing=config.images.spacing or spacing,
        shape=config.images.shape or shape,
        phantoms=_given(config.phantom.phantoms, form.patients),
        pretrain_epochs=_given(config.phantom.pretrain_epochs, form.pretrain_epochs),
        finetune_epochs=_given(config.phantom.finetune_epochs, form.finetune_epochs),
    )
    assert settled.out is not None
    _check_values(settled, config.phantom)
    scopes = scopes_of(form, settled.roi) if phantom else _scopes(config)
    _check_context(config, set(scopes) if phantom else _tasks(config))
    return Plan(settled, settled.out, scopes)


def _default_grid(
    config: Config,
) -> tuple[tuple[float, float, float], tuple[int, int, int]]:
    """Spacing and shape of volumes, or of single slices where the cohort is of those."""
    from experiments.common.cohorts import FLAT_SHAPE, FLAT_SPACING, read_cohort

    images = config.images
    if images.cohort is not None and not (images.spacing and images.shape):
        # What is wrong with the manifest is told by the checks that follow.
        with suppress(InputError):
            if read_cohort(images, label=images.label, told=False).flat:
                return FLAT_SPACING, FLAT_SHAPE
    return SPACING_MM, INPUT_SHAPE


def _given(value: int | None, default: int) -> int:
    """The value as given: zero is one, and is refused as such."""
    return default if value is None else value


def retrained_files(config: Config) -> dict[str, list[Path]]:
    """Task -> embeddings of encoders that were fine-tuned on it again.

    Raises:
        InputError: an entry is not ``TASK=FILE`` of a task of ``--ft``.
    """
    files: dict[str, list[Path]] = {}
    for entry in config.tables.retrained:
        ((task, path),) = pairs([entry], "--retrained").items()
        if task not in pairs(config.tables.ft, "--ft"):
            raise InputError(f"--retrained {entry}: --ft names no task {task!r}")
        files.setdefault(task, []).append(path)
    return files


def _check_source(config: Config) -> None:
    """Refuses flags of several inputs, or of none, that do not go together."""
    tables, images = config.tables, config.images
    if tables.pre:
        if images.cohort is not None:
            raise InputError("--pre brings embeddings, --cohort brings images: give one of them")
        if not tables.radiomics or not tables.ft:
            raise InputError("--pre also needs --ft TASK=FILE and --radiomics FILE")
        return
    if images.cohort is not None:
        if images.encoder_pre is None or not images.encoder_ft:
            raise InputError("--cohort also needs --encoder-pre FILE and --encoder-ft TASK=FILE")
        return
    if any((tables.ft, tables.retrained, tables.radiomics, images.encoder_pre, images.encoder_ft)):
        raise InputError("--ft and --radiomics need --pre; --encoder-pre and --encoder-ft --cohort")
    if config.phantom.quick and config.phantom.full:
        raise InputError("--quick and --full are two forms of the phantoms: give one")
    if config.scope or images.channels:
        raise InputError("--scope and --channels need --ft or --encoder-ft: a task of your own")
    if config.privacy.anonymise:
        raise InputError("--anonymise needs --pre or --cohort: the phantoms are nobody's images")


def _check_values(config: Config, given: PhantomFlags) -> None:
    """Refuses values out of range, those of the phantoms where they were given."""
    _scope("--roi", rois=config.roi)
    if problem := config.analysis.problem():
        raise InputError(as_flag(problem))
    images = config.images
    assert images.shape is not None
    assert images.spacing is not None
    counts = {"workers": images.workers} | {
        name: getattr(given, name) for name in ("phantoms", "pretrain_epochs", "finetune_epochs")
    }
    problem = grid_problem(images.shape, images.spacing) or first_problem(
        Check(name, value, COUNT) for name, value in counts.items() if value is not None
    )
    if problem:
        raise InputError(as_flag(problem))


def _check_context(config: Config, tasks: Collection[str]) -> None:
    """Refuses what belongs to no task or lacks its table."""
    context, cohort = config.context, config.images.cohort
    images = not config.tables.pre
    check_flags(config.layers, sorted(tasks), images=images)
    if config.tables.retrained and not config.tables.pre:
        raise InputError("--retrained needs --pre: embeddings of your own (experiments.embed)")
    retrained_files(config)
    if (context.adjust or context.site) and not (context.labels or cohort):
        raise InputError("--adjust and --site need --labels, a table of patient_id and columns")
    common = [entry for entry in context.exposure if "=" not in entry]
    if len(common) > 1:
        raise InputError(f"--exposure {common[1]}: {common[0]} is given; TASK=FILE is for one task")
    for entry in context.exposure:
        task, equals, _ = entry.partition("=")
        if equals and task not in tasks:
            raise InputError(f"--exposure of task {task!r}; the tasks are {sorted(tasks)}")


def _tasks(config: Config) -> set[str]:
    return {entry.partition("=")[0] for entry in (*config.tables.ft, *config.images.encoder_ft)}


def _scopes(config: Config) -> dict[str, Scope]:
    scopes, channels = {}, config.images.channels
    for task, text in entries(config.scope, "--scope", "TASK=[MODALITY.]ROI").items():
        modalities, _, rois = text.rpartition(".")
        scopes[task] = _scope(f"--scope {text}", rois=_names(rois), modalities=_names(modalities))
    if channels and not config.images.cohort:
        raise InputError("--channels needs --cohort: it says what an encoder sees of the images")
    for task, text in entries(channels, "--channels", "TASK=MODALITY").items():
        scope = scopes.get(task, Scope(rois=config.roi))
        seen = {"channels": _names(text)}
        scopes[task] = _scope(f"--channels {text}", **vars(scope) | seen)
    for task in scopes:
        if task not in (tasks := _tasks(config)):
            raise InputError(
                f"--scope or --channels of task {task!r}; the tasks are {sorted(tasks)}"
            )
    return scopes


def _scope(flag: str, **parts: tuple[str, ...]) -> Scope:
    """A scope, refused in words that name the flag."""
    try:
        return Scope(**parts)
    except InputError as error:
        raise InputError(f"{flag}: {error}") from error


def _names(text: str) -> tuple[str, ...]:
    """``t2+dwi`` -> ``("t2", "dwi")``."""
    return tuple(name for name in text.split("+") if name)
