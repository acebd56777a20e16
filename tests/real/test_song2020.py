"""A planted change on real radiomics: 260 prostate patients, real units and collinearity.

Embeddings are a nonlinear map of the table's leading components; the fine-tuned embeddings lack
some of them. Features that live on the erased components must lose, the others must not.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from lens.paper.shift import shift
from lens.probes.scaling import fit_min_max, scale
from lens.probes.sweep import sweep
from lens.settings import SweepConfig
from lens.study.load import load_study

CLASSES = ("firstorder", "glcm", "glrlm", "glszm", "gldm", "ngtdm")
COMPONENTS, ERASED = 8, (1,)


def contract_table(path: Path) -> pd.DataFrame:
    """The published table with our column names; id, target, general_info and shape left out."""
    raw = pd.read_csv(path)
    renamed = {}
    for name in raw.columns:
        modality, _, rest = name.partition("_")
        feature_class = next((c for c in CLASSES if f"original_{c}_" in name), None)
        if modality in ("T2", "DWI", "ADC") and feature_class:
            feature = rest.split(f"original_{feature_class}_")[1]
            renamed[name] = f"{modality.lower()}.lesion.original_{feature_class}_{feature}"
    table = raw[list(renamed)].rename(columns=renamed)
    table.insert(0, "patient_id", raw["ID"].astype(str))
    return table


def test_erased_components_are_lost_and_others_are_not(real_data: Path, tmp_path: Path) -> None:
    table = contract_table(real_data / "tables" / "Song2020.csv.gz")
    assert table["patient_id"].is_unique
    r = table.drop(columns="patient_id").to_numpy()
    ranks = np.argsort(np.argsort(r, axis=0), axis=0) / len(r)
    ranks = (ranks - ranks.mean(axis=0)) / ranks.std(axis=0)
    u, s, vt = np.linalg.svd(ranks, full_matrices=False)
    latent = u[:, :COMPONENTS] * np.sqrt(len(r))
    kept = latent.copy()
    kept[:, list(ERASED)] = 0.0

    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(COMPONENTS, 64)) / np.sqrt(COMPONENTS)
    for name, factors in (("pre", latent), ("ft", kept)):
        x = np.tanh(factors @ mixing) + 0.02 * rng.normal(size=(len(r), 64))
        order = rng.permutation(len(r))
        np.savez(
            tmp_path / f"{name}.npz",
            patient_id=table["patient_id"].to_numpy(str)[order],
            embeddings=x[order].astype(np.float32),
        )
    table.sample(frac=1, random_state=1).to_csv(tmp_path / "r.csv", index=False)

    study = load_study(
        tmp_path / "pre.npz", {"planted": tmp_path / "ft.npz"}, tmp_path / "r.csv", seed=0
    )
    assert len(study.ids) == 260
    train, val = study.rows("train"), study.rows("val")
    scaling = fit_min_max(study.r[train])
    scaled = scale(study.r, scaling)
    config = SweepConfig(hidden=24, l1=(1e-6, 1e-5), l2=(1e-5,), epochs=150)
    result = sweep(study.x_pre[train], scaled[train], study.x_pre[val], scaled[val], config)
    features = shift(study, result.projection, scaling, "planted", draws=200).features

    # Share of each feature's (rank) variance that lives on the erased components.
    loading = np.square(s[:COMPONENTS, None] * vt[:COMPONENTS])
    loading = pd.Series(
        loading[list(ERASED)].sum(axis=0) / len(r), index=table.columns[1:]
    ).reindex(features["column"])
    loss = -features["delta_r2"].to_numpy()
    explained = features["r2_pre"].to_numpy() > 0.3
    on, off = loading.to_numpy() > 0.5, loading.to_numpy() < 0.02
    assert (explained & on).sum() >= 10
    assert (explained & off).sum() >= 10
    assert np.median(loss[explained & on]) > 0.3
    assert abs(np.median(loss[explained & off])) < 0.1
    rank = pd.Series(loss[explained]).corr(
        pd.Series(loading.to_numpy()[explained]), method="spearman"
    )
    assert rank > 0.6
