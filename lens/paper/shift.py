"""What fine-tuning changed: decoders, importance and scores of both encoders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from lens.intervals import Z_VALUE, percentile_interval
from lens.paper.bootstrap import bootstrap_scores, patient_weights
from lens.paper.groups import SCORES, STAGES, feature_groups, modality_groups, summaries
from lens.paper.importance import (
    Fit,
    explained_sd,
    importance,
    importance_debiased,
    importance_error,
)
from lens.probes.decoder import Decoder, decode, predict
from lens.probes.mlp import Projection, project
from lens.probes.scaling import MinMax, scale
from lens.scratch import IN_MEMORY, Scratch
from lens.study.study import Study
from lens.verdicts.sign_flips import sign_flip_test


@dataclass(frozen=True)
class Shift:
    """Result for one task.

    Attributes:
        decoders: ``pre`` and ``ft``.
        features: a row per radiomic column (see `shift`).
        groups: a row per ROI, feature group and stage: the layout of the paper's Table 1.
        modalities: a row per modality, ROI, feature class and stage: the paper's Fig. 2.
    """

    decoders: dict[str, Decoder]
    features: pd.DataFrame
    groups: pd.DataFrame
    modalities: pd.DataFrame


def shift(
    study: Study,
    projection: Projection,
    scaling: MinMax,
    task: str,
    *,
    intercept: bool = True,
    draws: int = 1000,
    flips: int = 5000,
    seed: int = 0,
    scratch: Scratch = IN_MEMORY,
) -> Shift:
    """Compares the encoder before and after fine-tuning on `task`.

    The projection stays frozen; a decoder per encoder is solved on train and validation patients
    and scored on test patients: R2 against the mean of train and validation, ``mse`` in the scaled
    (min-max) units, ``mse_z`` the same divided by the variance of the train patients.

    Intervals of R2 and its difference come from a paired bootstrap of the test patients with the
    decoders fixed; those of importance from the least-squares covariance with the projection fixed.
    Neither covers a change of the projection or of the split. ``p_maxt`` and ``q_bh`` test, by sign
    flips over the test patients, whether the squared errors before and after differ.
    ``explained_sd`` and ``importance_debiased`` (see `lens.paper.importance`) are of the fitted
    patients.

    Args:
        study: the joined tables and the split.
        projection: first layer, trained on `study.x_pre`.
        scaling: range of the radiomic columns over the train patients.
        task: key of `study.x_ft`.
        intercept: fit one; the paper does not.
        draws: bootstrap samples.
        flips: random sign vectors of the test.
        seed: of the bootstrap and the flips.
        scratch: where the samples live: ``draws * k`` numbers of 4 bytes, nine times.
    """
    r = scale(study.r, scaling)
    fitted, test, train = study.rows("train", "val"), study.rows("test"), study.rows("train")
    patients = study.ids["patient_id"].to_numpy()[test]
    weights = patient_weights(patients, draws, seed)
    deviation = r[test] - r[fitted].mean(axis=0)
    variance = r[train].var(axis=0)

    decoders, fits, errors, samples = {}, {}, {}, {}
    table = study.features.copy()
    for stage, x in (("pre", study.x_pre), ("ft", study.x_ft[task])):
        z = project(projection, x).astype(np.float64)
        decoder = decode(z[fitted], r[fitted], intercept=intercept)
        residual = r[test] - predict(decoder, z[test])
        errors[stage] = np.square(residual)
        drawn = bootstrap_scores(residual, deviation, variance, weights)
        samples[stage] = {name: scratch.keep(values) for name, values in drawn.items()}
        decoders[stage] = decoder
        fits[stage] = Fit(
            z[fitted] - (z[fitted].mean(axis=0) if intercept else 0.0),
            r[fitted] - predict(decoder, z[fitted]),
            decoder.theta,
            decoder.rank,
        )
        table[f"importance_{stage}"] = importance(decoder.theta)
        table[f"importance_debiased_{stage}"] = importance_debiased(
            decoder.theta, z[fitted], fits[stage].residual, rank=decoder.rank, intercept=intercept
        )
        table[f"explained_sd_{stage}"] = explained_sd(decoder.theta, z[fitted], r[fitted])
        table[f"r2_{stage}"] = r2(residual, deviation)
        table[f"mse_{stage}"] = errors[stage].mean(axis=0)
        table[f"mse_z_{stage}"] = table[f"mse_{stage}"] / variance
    samples["delta"] = {
        name: scratch.keep(samples["ft"][name] - samples["pre"][name]) for name in SCORES
    }

    table["delta_importance"] = table["importance_ft"] - table["importance_pre"]
    standard_errors = importance_error(fits["pre"], fits["ft"], intercept=intercept)
    for stage, standard_error in zip(STAGES, standard_errors, strict=True):
        name = "delta_importance" if stage == "delta" else f"importance_{stage}"
        table[f"{name}_low"] = table[name] - Z_VALUE * standard_error
        table[f"{name}_high"] = table[name] + Z_VALUE * standard_error
    table["delta_r2"] = table["r2_ft"] - table["r2_pre"]
    for stage in STAGES:
        name = "delta_r2" if stage == "delta" else f"r2_{stage}"
        table[f"{name}_low"], table[f"{name}_high"] = percentile_interval(samples[stage]["r2"])
    difference = errors["pre"] - errors["ft"]
    table["p_maxt"], table["q_bh"] = sign_flip_test(difference, patients, flips=flips, seed=seed)
    return Shift(
        decoders=decoders,
        features=table,
        groups=summaries(table, samples, feature_groups(table), ("roi", "group")),
        modalities=summaries(table, samples, modality_groups(table), ("modality", "roi", "group")),
    )


def r2(
    residual: Float[np.ndarray, "n k"], deviation: Float[np.ndarray, "n k"]
) -> Float[np.ndarray, " k"]:
    """``1 - sum residual^2 / sum deviation^2``; NaN where the deviation is zero in all rows."""
    total = np.square(deviation).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        score = 1.0 - np.square(residual).sum(axis=0) / total
    return np.where(total > 0, score, np.nan)
