"""The paper's analysis of planted studies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import r2_score

from lens.paper.groups import mean, median
from lens.paper.shift import Shift, shift
from lens.probes.mlp import project
from lens.probes.scaling import fit_min_max, scale
from lens.probes.sweep import sweep
from lens.settings import SweepConfig
from lens.study.load import load_study
from lens.study.study import Study
from tests.planted import Planted, plant

CONFIG = SweepConfig(hidden=16, l1=(1e-6,), l2=(1e-5,), epochs=100)


def analyse(study: Study, task: str = "cls") -> Shift:
    scaling = fit_min_max(study.r[study.rows("train")])
    r = scale(study.r, scaling)
    train, val = study.rows("train"), study.rows("val")
    result = sweep(study.x_pre[train], r[train], study.x_pre[val], r[val], CONFIG)
    return shift(study, result.projection, scaling, task, draws=300)


@pytest.fixture(scope="module")
def planted() -> Planted:
    return plant()


@pytest.fixture(scope="module")
def result(planted: Planted, tmp_path_factory) -> Shift:
    paths = planted.write(tmp_path_factory.mktemp("tables"))
    return analyse(load_study(paths["pre"], {"cls": paths["ft"]}, paths["radiomics"]))


def test_erased_features_fall_and_others_stay(planted: Planted, result: Shift) -> None:
    erased = np.isin(planted.factor, planted.erased)
    table = result.features
    assert (table["r2_pre"] > 0.5).all()
    assert (table["delta_r2_high"][erased] < -0.3).all()
    assert table["delta_r2"][~erased].abs().max() < 0.2
    assert (table["p_maxt"][erased] < 0.01).all()


def test_same_embeddings_on_both_sides_change_nothing(planted: Planted, tmp_path: Path) -> None:
    paths = planted.write(tmp_path)
    same = analyse(load_study(paths["pre"], {"cls": paths["pre"]}, paths["radiomics"])).features
    for column in ("delta_r2", "delta_r2_low", "delta_r2_high", "delta_importance"):
        np.testing.assert_allclose(same[column], 0, atol=1e-5)
    assert (same["p_maxt"] == 1).all()


def test_tables_have_the_papers_rows(result: Shift) -> None:
    groups = result.groups
    assert list(groups["group"].unique()) == [
        "firstorder", "glcm", "gldm", "glrlm", "glszm", "ngtdm", "original", "wavelet",
    ]  # fmt: skip
    assert list(groups["stage"].unique()) == ["pre", "ft", "delta"]
    glcm = result.features[result.features["feature_class"] == "glcm"]
    row = groups[(groups["group"] == "glcm") & (groups["stage"] == "ft")].iloc[0]
    assert row["n_features"] == len(glcm) == 8
    np.testing.assert_allclose(row["r2_median"], np.median(glcm["r2_ft"]))
    np.testing.assert_allclose(row["mse_mean"], np.mean(glcm["mse_ft"]))
    delta = groups[(groups["group"] == "glcm") & (groups["stage"] == "delta")].iloc[0]
    np.testing.assert_allclose(delta["r2_median"], np.median(glcm["r2_ft"] - glcm["r2_pre"]))
    modalities = result.modalities
    assert set(modalities["modality"]) == {"t2", "adc"}
    assert modalities[modalities["group"] == "all"]["n_features"].unique().tolist() == [24]


def test_point_estimates_lie_in_their_intervals(result: Shift) -> None:
    for table in (result.groups, result.modalities, result.features):
        for low in (c for c in table.columns if c.endswith("_low")):
            name = low.removesuffix("_low")
            inside = (table[low] <= table[name]) & (table[name] <= table[f"{name}_high"])
            assert inside.mean() > 0.95, name


def test_mse_z_is_mse_over_the_train_variance(planted: Planted, result: Shift) -> None:
    ratio = result.features["mse_ft"] / result.features["mse_z_ft"]
    np.testing.assert_allclose(ratio, result.features["mse_pre"] / result.features["mse_z_pre"])


def test_a_column_without_deviation_on_test_patients_has_no_r2(
    planted: Planted, tmp_path: Path
) -> None:
    paths = planted.write(tmp_path)
    study = load_study(paths["pre"], {"cls": paths["ft"]}, paths["radiomics"])
    mean = study.r[study.rows("train", "val"), 0].mean()
    study.r[study.rows("test"), 0] = mean
    features = analyse(study).features
    # The mean itself carries rounding, so the deviation is tiny rather than zero at worst.
    assert np.isnan(features["r2_pre"][0]) or features["r2_pre"][0] < -1e6
    assert np.isfinite(features["mse_pre"][0])
    assert np.isfinite(features["r2_pre"][1:]).all()


def test_r2_is_against_the_mean_of_the_fitted_patients_unlike_that_of_scikit_learn(
    planted: Planted, tmp_path: Path
) -> None:
    paths = planted.write(tmp_path)
    study = load_study(paths["pre"], {"cls": paths["ft"]}, paths["radiomics"])
    skewed = 1
    study.r[:, skewed] = np.exp(2 * study.r[:, skewed])
    scaling = fit_min_max(study.r[study.rows("train")])
    train, val, test = (study.rows(name) for name in ("train", "val", "test"))
    r = scale(study.r, scaling)
    fitted = sweep(study.x_pre[train], r[train], study.x_pre[val], r[val], CONFIG)
    result = shift(study, fitted.projection, scaling, "cls", draws=10)

    z, decoder = project(fitted.projection, study.x_pre).astype(float), result.decoders["pre"]
    ours, theirs = [], []
    for k in range(r.shape[1]):
        observed = r[test, k]
        decoded = z[test] @ decoder.theta[k] + decoder.b[k]
        baseline = np.concatenate([r[train, k], r[val, k]]).mean()
        error = ((observed - decoded) ** 2).sum()
        ours.append(1 - error / ((observed - baseline) ** 2).sum())
        theirs.append(r2_score(observed, decoded))
    np.testing.assert_allclose(result.features["r2_pre"], ours, rtol=1e-6)
    difference = result.features["r2_pre"].to_numpy() - theirs
    assert (difference >= 0).all()
    assert difference[skewed] > 0.01
    assert difference.argmax() == skewed


def test_summaries_skip_what_is_missing_as_numpy_does() -> None:
    rng = np.random.default_rng(0)
    for k in (1, 2, 5, 8):
        values = rng.normal(size=(200, k))
        values[rng.random(values.shape) < 0.3] = np.nan
        known = values[np.isfinite(values).any(axis=1)]
        np.testing.assert_allclose(median(known), np.nanmedian(known, axis=1))
        np.testing.assert_allclose(mean(known), np.nanmean(known, axis=1))
        empty = np.full((2, k), np.nan)
        assert np.isnan([median(empty), mean(empty)]).all()
