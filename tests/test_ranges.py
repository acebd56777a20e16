"""A setting out of its range is refused by its name before anything is read."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from encoders.settings import Augmentation, HeadSettings, MaskingSettings, TrainingSettings
from experiments.common.training_flags import CohortFlags, OptimiserFlags, RunFlags, TrainingConfig
from experiments.embed import _problem as embed_problem
from experiments.main_job.config import Config, ImageFlags
from experiments.main_job.plan import settle
from experiments.radiomics import _problem as radiomics_problem
from lens.errors import InputError
from lens.ranges import COUNT, POSITIVE
from lens.settings import DEFAULTS, PlantedSettings, Rules, changed

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("seed", [-1, 2**32, True]),
        ("l1", [(NAN,), (0.0, INF), (-1e-9,)]),
        ("l2", [(NAN,), (0.0, INF), (-1e-9,), ()]),
        ("rate", [0.0, NAN, INF, -1.0]),
        ("margin", [NAN, INF, -0.1]),
        ("level", [0.0, 1.0, NAN]),
        ("equivalence", [0.0, NAN, INF]),
        ("flips", [0, 1, 18]),
        ("epochs", [0, -1]),
        ("hidden", [0, -4]),
        ("batch", [0]),
        ("seeds", [0]),
        ("stack", [-1]),
        ("folds", [1, -5]),
        ("repeats", [0]),
        ("bootstraps", [0]),
        ("memory", [NAN, -1.0]),
    ],
)
def test_a_setting_out_of_range_is_named(name: str, values: list[Any]) -> None:
    for value in values:
        problem = changed(DEFAULTS, **{name: value}).problem()
        assert problem.startswith(f"{name} "), (value, problem)
        with pytest.raises(InputError, match=f"^--{name} "):
            settle(Config(analysis=changed(DEFAULTS, **{name: value})))


@pytest.mark.parametrize("value", [1.5, 1j, "1", None, True, NAN, INF, np.float32(1), [1]])
def test_what_is_no_whole_number_is_no_count(value: Any) -> None:
    assert COUNT.problem("x", value).startswith("x is ")


def test_numbers_of_numpy_are_numbers() -> None:
    assert COUNT.problem("x", np.int64(3)) == POSITIVE.problem("x", np.float32(3)) == ""
    assert POSITIVE.problem("x", np.float32("nan"))


def test_what_is_in_range_passes() -> None:
    assert DEFAULTS.problem() == PlantedSettings().problem() == ""
    options: dict[str, Any] = {"seed": 2**32 - 1, "l1": (0.0, 1.0), "flips": 19, "memory": INF}
    assert changed(DEFAULTS, **options, folds=0).problem() == ""
    assert Rules(level=0.001, flips=999).problem() == ""
    assert "fewer than 999" in Rules(level=0.001, flips=998).problem()


@pytest.mark.parametrize(
    ("flags", "run", "message"),
    [
        ({"epochs": -3}, {}, "--epochs is -3"),
        ({"batch": 0}, {}, "--batch is 0"),
        ({"rate": NAN}, {}, "--rate is nan"),
        ({"weight_decay": -0.1}, {}, "--weight-decay is -0.1"),
        ({"warm_up": 1.0}, {}, "--warm-up is 1.0"),
        ({"drop_path": INF}, {}, "--drop-path is inf"),
        ({}, {"seed": -1}, "--seed is -1"),
        ({}, {"seed": 2**32 - 1, "seeds": 2}, "--seed is 4294967296"),
        ({}, {"seeds": 0}, "--seeds is 0"),
        ({}, {"checkpoint_steps": 0}, "--checkpoint-steps is 0"),
    ],
)
def test_a_flag_of_a_training_is_named_before_the_cohort_is_read(
    flags: dict[str, Any], run: dict[str, Any], message: str
) -> None:
    config = TrainingConfig(
        images=CohortFlags(cohort=Path("absent.csv")),
        run=RunFlags(out=Path("absent"), **run),
        training=OptimiserFlags(**flags),
    )
    with pytest.raises(InputError, match=f"^{message}"):
        config.check()


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (TrainingSettings, {"layer_decay": 0.0}),
        (Augmentation, {"flip": 1.5}),
        (Augmentation, {"zoom": INF}),
    ],
)
def test_encoders_settings_refuse_when_made(kind: Any, values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(values))} is "):
        kind(**values)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (HeadSettings, {"decoder_width": 0}),
        (HeadSettings, {"auxiliary_width": -1}),
        (MaskingSettings, {"patch": (8, 0, 8)}),
        (MaskingSettings, {"ratio": 1.0}),
        (MaskingSettings, {"ratio": NAN}),
        (MaskingSettings, {"width": 0}),
        (MaskingSettings, {"visible_weight": -0.1}),
    ],
)
def test_settings_of_heads_and_masking_tell_their_problem(
    kind: Any, values: dict[str, Any]
) -> None:
    assert kind(**values).problem().startswith(f"{next(iter(values))} is ")
    assert not kind().problem()


@pytest.mark.parametrize("spacing", [(0.5, 0.5, INF), (NAN, 1.0, 1.0), (1.0, 0.0, 1.0), (1e9,) * 3])
def test_a_grid_out_of_range_is_named_by_every_job(spacing: Any) -> None:
    with pytest.raises(InputError, match=r"^--spacing is "):
        settle(Config(images=ImageFlags(spacing=spacing)))
    flags: Any = SimpleNamespace(
        spacing=spacing, shape=(8, 8, 8), stage=(), batch_size=4, workers=None
    )
    assert embed_problem(flags).startswith("spacing is ")
    assert radiomics_problem(flags).startswith("spacing is ")
    with pytest.raises(InputError, match=r"^--shape is 0"):
        settle(Config(images=ImageFlags(shape=(0, 8, 8))))
