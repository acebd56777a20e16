"""Change of importance and scores from before to after fine-tuning, on one split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from lens.intervals import Z_VALUE, percentile_interval
from lens.paper.bootstrap import bootstrap_scores, patient_weights
from lens.paper.groups import Samples, by_feature_group, by_modality
from lens.paper.importance import (
    DecoderFit,
    explained_sd,
    fit_decoder,
    importance,
    importance_debiased,
    importance_errors,
)
from lens.paper.scores import SCORES, STAGES, decoder_scores
from lens.probes.decoder import Decoder, predict
from lens.probes.mlp import Projection, project
from lens.probes.scaling import MinMax, scale
from lens.scratch import IN_MEMORY, Scratch
from lens.study.study import Study
from lens.verdicts.sign_flips import sign_flip_test

Columns = dict[str, Float[np.ndarray, " k"]]
"""Name -> value of each feature, as they go into the table."""


@dataclass(frozen=True)
class Shift:
    """Result for one task.

    Attributes:
        decoders: ``pre`` and ``ft``.
        features: a row per radiomic column (see `shift`).
        groups: of `lens.paper.groups.by_feature_group`, the paper's Table 1.
        modalities: of `lens.paper.groups.by_modality`, the paper's Fig. 2.
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
    complete: bool = False,
    scratch: Scratch = IN_MEMORY,
) -> Shift:
    """Change of importance, R2 and MSE of every feature by fine-tuning on `task`.

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
        complete: keep the rows of the paper's Table 1 that have no feature here.
        scratch: where the samples live: ``draws * k`` numbers of 4 bytes, nine times.
    """
    r = scale(study.r, scaling)
    test = study.rows("test")
    patients = study.ids["patient_id"].to_numpy()[test]
    decoded = {
        stage: _decode(project(projection, x).astype(np.float64), r, study, intercept)
        for stage, x in (("pre", study.x_pre), ("ft", study.x_ft[task]))
    }
    deviation = r[test] - r[study.rows("train", "val")].mean(axis=0)
    variance = r[study.rows("train")].var(axis=0)
    weights = patient_weights(patients, draws, seed)
    samples = _bootstrap(decoded, deviation, variance, weights, scratch)

    columns: Columns = {}
    for stage, one in decoded.items():
        found = _importances(one.fit) | decoder_scores(one.residual, deviation, variance)
        columns |= {f"{name}_{stage}": values for name, values in found.items()}
    columns |= _importance_intervals(columns, decoded["pre"].fit, decoded["ft"].fit)
    columns |= _r2_intervals(columns, samples)
    difference = np.square(decoded["pre"].residual) - np.square(decoded["ft"].residual)
    test = sign_flip_test(difference, patients, flips=flips, seed=seed)
    columns |= {"p_maxt": test.p_maxt, "q_bh": test.q_bh}
    features = study.features.assign(**columns)
    return Shift(
        decoders={stage: one.fit.decoder for stage, one in decoded.items()},
        features=features,
        groups=by_feature_group(features, samples, complete=complete),
        modalities=by_modality(features, samples),
    )


class _Decoded(NamedTuple):
    """An encoder's decoder: its fit to the train and validation patients, and its test residual."""

    fit: DecoderFit
    residual: Float[np.ndarray, "n k"]


def _decode(
    z: Float[np.ndarray, "n h"], r: Float[np.ndarray, "n k"], study: Study, intercept: bool
) -> _Decoded:
    fitted, test = study.rows("train", "val"), study.rows("test")
    fit = fit_decoder(z[fitted], r[fitted], intercept=intercept)
    return _Decoded(fit, r[test] - predict(fit.decoder, z[test]))


def _bootstrap(
    decoded: Mapping[str, _Decoded],
    deviation: Float[np.ndarray, "n k"],
    variance: Float[np.ndarray, " k"],
    weights: Float[np.ndarray, "b n"],
    scratch: Scratch,
) -> Samples:
    """Scores in every bootstrap sample before and after, and their paired differences."""
    samples = {}
    for stage, one in decoded.items():
        drawn = bootstrap_scores(one.residual, deviation, variance, weights)
        samples[stage] = {name: scratch.keep(values) for name, values in drawn.items()}
    samples["delta"] = {
        name: scratch.keep(samples["ft"][name] - samples["pre"][name]) for name in SCORES
    }
    return samples


def _importances(fit: DecoderFit) -> Columns:
    return {
        "importance": importance(fit.decoder.theta),
        "importance_debiased": importance_debiased(fit),
        "explained_sd": explained_sd(fit),
    }


def _importance_intervals(columns: Columns, pre: DecoderFit, ft: DecoderFit) -> Columns:
    """Change of importance, and normal intervals of importance and its change."""
    found = {"delta_importance": columns["importance_ft"] - columns["importance_pre"]}
    for stage, error in zip(STAGES, importance_errors(pre, ft), strict=True):
        name = _column("importance", stage)
        value = columns[name] if name in columns else found[name]
        found[f"{name}_low"] = value - Z_VALUE * error
        found[f"{name}_high"] = value + Z_VALUE * error
    return found


def _r2_intervals(columns: Columns, samples: Samples) -> Columns:
    """Change of R2, and percentile intervals of R2 and its change."""
    found = {"delta_r2": columns["r2_ft"] - columns["r2_pre"]}
    for stage in STAGES:
        name = _column("r2", stage)
        found[f"{name}_low"], found[f"{name}_high"] = percentile_interval(samples[stage]["r2"])
    return found


def _column(score: str, stage: str) -> str:
    return f"delta_{score}" if stage == "delta" else f"{score}_{stage}"
