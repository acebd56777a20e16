"""Every setting of the analysis, in one place and without an import that takes time.

The command line, the public call and the stages all read these classes: a flag is a field.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

from lens.ranges import (
    COUNT,
    COUNT_OR_NONE,
    INNER_SHARE,
    NOT_NEGATIVE,
    POSITIVE,
    POSITIVE_SHARE,
    SEED,
    Check,
    first_problem,
)

Mode = Literal["default", "paper"]
Scores = Literal["normal", "raw"]
DoctorForm = Literal["short", "full", "off"]
"""What the doctor does: read off the verdicts, plant changes, or nothing."""
NiftiForm = Literal["qform", "sform"]
"""Which of the two placements that a NIfTI header may hold is meant."""
PoolTokens = Literal["mean", "first"]
"""How the tokens of a patient become one embedding: their mean, or the first (a class token)."""

FOLDS, REPEATS = 5, 2
"""What stands for none in `Settings.folds` and `Settings.repeats`."""

MEMORY = 1.0
"""What stands for none in `Settings.memory`, GB."""

WIDEST, NARROWEST = 128, 4
"""Ends of `default_width`; the paper's own width is the first."""

L1_GRID = (0.0, 1e-7, 3e-7, 1e-6, 3e-6, 1e-5)
L2_GRID = (0.0, 1e-5, 1e-4, 1e-3)
PAPER_L1_GRID = (0.0, 1e-7, 3e-7, 1e-6, 3e-6, 1e-6)
"""As printed in the paper, with 1e-6 twice."""

Group = TypeVar("Group")


@dataclass(frozen=True)
class SweepConfig:
    """Settings of the shared MLP and its sweep, unitless where no unit is named."""

    hidden: int | None = None
    """Width of the projected embedding (hidden units); default the largest power of two up to an
    eighth of the fitted patients, 4 to 128; in paper mode 128."""
    l1: tuple[float, ...] = ()
    """Grid of L1 penalties (unitless); default 0 to 1e-5 in six steps, or the paper's."""
    l2: tuple[float, ...] = L2_GRID
    """Grid of squared L2 penalties (unitless)."""
    seeds: int = 1
    """MLPs per penalty pair, each with its own initialisation and batch order."""
    epochs: int = 200
    """Passes over the train patients for each MLP."""
    batch: int = 64
    """Patients per optimiser step."""
    rate: float = 1e-3
    """Step size of Adam."""
    mode: Mode = "default"
    """paper: its grid, its loss sums, no intercept, embeddings unscaled."""
    stack: int = 0
    """MLPs trained in one program; 0 chooses by devices and memory."""

    @property
    def l1_grid(self) -> tuple[float, ...]:
        """L1 penalties: as given, or those of the mode."""
        return self.l1 or (PAPER_L1_GRID if self.mode == "paper" else L1_GRID)

    def width(self, patients: int) -> int:
        """Hidden units: as given, or by the number of fitted patients and the mode.

        Args:
            patients: that are fitted, train and validation.
        """
        if self.hidden is not None:
            return self.hidden
        return WIDEST if self.mode == "paper" else default_width(patients)

    def problem(self) -> str:
        """What is out of range, led by the name of the field; an empty text where nothing is."""
        if self.mode not in get_args(Mode):
            return f"mode is {self.mode!r}; it is one of {', '.join(get_args(Mode))}"
        for name, penalties in (("l1", self.l1_grid), ("l2", self.l2)):
            if not isinstance(penalties, tuple | list) or not penalties:
                return f"{name} is {penalties!r}, not a grid of penalties such as (0.0, 1e-5)"
        return first_problem(
            [
                Check("hidden", 1 if self.hidden is None else self.hidden, COUNT),
                Check("l1", self.l1_grid, NOT_NEGATIVE),
                Check("l2", self.l2, NOT_NEGATIVE),
                Check("seeds", self.seeds, COUNT),
                Check("epochs", self.epochs, COUNT),
                Check("batch", self.batch, COUNT),
                Check("rate", self.rate, POSITIVE),
                Check("stack", self.stack, COUNT_OR_NONE),
            ]
        )


@dataclass(frozen=True)
class Rules:
    """Settings of the verdicts."""

    level: float = 0.05
    """Family-wise error rate of each question."""
    margin: float = 0.04
    """Smallest change of R2 that is called lost, gained or recoded. Changes that take nothing away,
    such as gains per channel and then a rotation, cost a reader less than this."""
    equivalence: float = 0.1
    """A change of R2 shown to be smaller than this is called unchanged."""
    flips: int = 5000
    """Random sign vectors over the patients, for the p and q values."""

    def problem(self) -> str:
        """What is out of range, led by the name of the field; an empty text where nothing is."""
        problem = first_problem(
            [
                Check("level", self.level, INNER_SHARE),
                Check("margin", self.margin, NOT_NEGATIVE),
                Check("equivalence", self.equivalence, POSITIVE),
                Check("flips", self.flips, COUNT),
            ]
        )
        if problem:
            return problem
        # No p is below 1 / (flips + 1).
        needed = math.ceil(round(1 / self.level - 1, 6))
        if self.flips < needed:
            return (
                f"flips is {self.flips}: with fewer than {needed} no p value reaches the level of "
                f"{self.level:g}, so that nothing could ever be lost or gained"
            )
        return ""


@dataclass(frozen=True)
class Settings:
    """How two encoders are compared."""

    mlp: SweepConfig = field(default_factory=SweepConfig)
    """Of the shared MLP."""
    rules: Rules = field(default_factory=Rules)
    """Of the verdicts."""
    folds: int | None = None
    """Parts of the cross-validation by patient behind the verdicts; 0 uses the split alone, in a
    fraction of the time. Default 5, 3 with --quick."""
    repeats: int | None = None
    """Repeats of the cross-validation; default 2, for the phantoms 1."""
    scores: Scores = "normal"
    """What the verdicts are about. normal: each feature's rank as a normal quantile, fitted inside
    the fold, so that skew and single wild values do not decide. raw: the feature's own values."""
    bootstraps: int = 1000
    """Bootstrap samples of the test patients for the intervals of the single split."""
    seed: int = 0
    """Seed of the split, the folds, the MLPs, the bootstrap and the sign flips."""
    memory: float | None = None
    """GB of memory for scores (patients times features) and bootstrap draws: features are scored in
    blocks, and what is still more goes to unnamed files. Tables and fits come on top. Default 1;
    inf for no bound."""

    allow_partial: bool = False
    """Go on where fewer than half of the patients are in all tables; the others are set aside."""
    any_columns: bool = False
    """Take every column of a table of embeddings as a dimension, also one whose name breaks the run
    of names (a label, say)."""
    id_column: str | None = None
    """Column of patients in tables that do not call it patient_id, such as Patient."""
    pool_tokens: PoolTokens | None = None
    """How embeddings of tokens (patients, tokens, dimensions) become one per patient."""

    @property
    def intercept(self) -> bool:
        """Whether the decoders have one; the paper's have not."""
        return self.mlp.mode == "default"

    @property
    def bound(self) -> float:
        """Bytes of memory for what grows with patients times features."""
        return 1e9 * (MEMORY if self.memory is None else self.memory)

    def settled(self, *, folds: int = FOLDS, repeats: int = REPEATS) -> Settings:
        """The same with these defaults in place of none."""
        return dataclasses.replace(
            self,
            folds=folds if self.folds is None else self.folds,
            repeats=repeats if self.repeats is None else self.repeats,
        )

    def fitted_to(self, patients: int) -> Settings:
        """The same with a width of the MLP, where none is given.

        Args:
            patients: that are fitted, train and validation.
        """
        mlp = dataclasses.replace(self.mlp, hidden=self.mlp.width(patients))
        return dataclasses.replace(self, mlp=mlp)

    def problem(self) -> str:
        """What is out of range, led by the name of the field; an empty text where nothing is."""
        if self.scores not in get_args(Scores):
            return f"scores is {self.scores!r}; it is one of {', '.join(get_args(Scores))}"
        problem = first_problem(
            [
                Check("folds", FOLDS if self.folds is None else self.folds, COUNT_OR_NONE),
                Check("repeats", REPEATS if self.repeats is None else self.repeats, COUNT),
                Check("bootstraps", self.bootstraps, COUNT),
                Check("seed", self.seed, SEED),
            ]
        )
        if not problem and self.folds == 1:
            problem = "folds 1: 2 or more, or 0 for the split alone"
        if not problem and self.memory is not None and self.memory != math.inf:
            problem = NOT_NEGATIVE.problem("memory", self.memory)
        return problem or self.mlp.problem() or self.rules.problem()


@dataclass(frozen=True)
class PlantedSettings:
    """What the doctor plants, and how it is judged."""

    rules: Rules = field(default_factory=lambda: Rules(flips=2000))
    """Of the verdicts."""
    doses: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    """Shares of what is read of a cluster to replace by that of other patients."""
    clusters: int = 6
    """Clusters of features to erase, one after another, each by each dose."""
    draws: int = 7
    """Draws of each of three kinds of other noise on both sides, in which nothing changed."""
    maps: int = 3
    """Rotations, gains and dominating directions to draw, each."""
    noise: float = 0.3
    """Deviation of the noise that each side has of its own, over the channel's."""

    def problem(self) -> str:
        """What is out of range, led by the name of the field; an empty text where nothing is."""
        if not self.doses:
            return "doses: at least one share is needed"
        counts = ("clusters", "draws", "maps")
        return self.rules.problem() or first_problem(
            [
                Check("doses", self.doses, POSITIVE_SHARE),
                *(Check(name, getattr(self, name), COUNT) for name in counts),
                Check("noise", self.noise, POSITIVE),
            ]
        )


def default_width(patients: int) -> int:
    """Hidden units for a number of fitted patients.

    Least squares on h units fitted to m patients loses about ``h / (m - h)`` of what is
    unexplained, and everything as h comes near m: with 128 units and 96 patients the median R2 was
    -1,129. The largest power of two up to an eighth of the patients costs at most a seventh.
    """
    width = NARROWEST
    while 2 * width <= min(patients // 8, WIDEST):
        width *= 2
    return width


DEFAULT_SWEEP, DEFAULT_RULES, DEFAULTS = SweepConfig(), Rules(), Settings()


def doctor_form(asked: DoctorForm | bool) -> DoctorForm:
    """The form of the doctor by its name; True stands for the full one, False for none.

    Raises:
        ValueError: another value.
    """
    form = asked if isinstance(asked, str) else "full" if asked else "off"
    if form not in get_args(DoctorForm):
        raise ValueError(f"doctor is {form!r}; it is one of {', '.join(get_args(DoctorForm))}")
    return form


def flat(settings: Any) -> dict[str, Any]:
    """The fields of nested settings by name, without the groups that they are sorted into."""
    found: dict[str, Any] = {}
    for each in dataclasses.fields(settings):
        value = getattr(settings, each.name)
        found |= flat(value) if dataclasses.is_dataclass(value) else {each.name: value}
    return found


def changed(settings: Group, **options: Any) -> Group:
    """Nested settings with some fields changed, each by its own name.

    Raises:
        TypeError: a name that no group has.
    """
    unknown = sorted(set(options) - set(flat(settings)))
    if unknown:
        known = ", ".join(sorted(flat(settings)))
        raise TypeError(f"no setting {unknown[0]!r}; there are {known}")
    return _changed(settings, options)


def _changed(settings: Any, options: dict[str, Any]) -> Any:
    values = {each.name: getattr(settings, each.name) for each in dataclasses.fields(settings)}
    new = {
        name: _changed(value, options) if dataclasses.is_dataclass(value)
        else options.get(name, value)
        for name, value in values.items()
    }  # fmt: skip
    return type(settings)(**new)
