"""Radiomic features of the judged phantoms: measured once, then from a file.

PyRadiomics by way of the package, features of the original image alone, and of shape once per
region.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lens.cohort import read_manifest
from lens.cohort.factor_phantom import write_cohort


def measured(folder: Path, phantoms: Mapping[str, Any], workers: int = 1) -> pd.DataFrame:
    """Features of the judged phantoms, a row per patient, with ``patient_id``.

    Args:
        folder: of the phantoms' images and the finished cases; an interrupted call goes on there.
        phantoms: of `benchmarks.mechanism_data.Sizes`, as a mapping.
        workers: processes.
    """
    from lens.radiomics.cohort_features import extract_cohort

    first = phantoms["pretrain"] + phantoms["finetune"]
    x, y, z = (float(mm) for mm in phantoms["spacing_mm"])
    manifest = write_cohort(
        folder / "judged",
        phantoms["judged"],
        phantoms["seed"],
        first,
        shape=tuple(phantoms["shape"]),
        spacing_mm=(x, y, z),
    )
    table, errors = extract_cohort(
        read_manifest(manifest),
        _parameters(),
        cache=folder / "radiomics",
        spacing_mm=(x, y, z),
        workers=workers,
    )
    if errors:
        raise errors[0]
    return table


def factors_of(folder: Path, patients: pd.Series) -> pd.DataFrame:
    """The factors of the judged phantoms as standard normal scores, in the order of `patients`."""
    from scipy.stats import norm

    from lens.cohort.factor_images import FACTORS

    table = pd.read_csv(folder / "judged/cohort.csv").set_index("patient_id").loc[patients]
    shares = {name: [factor.share(v) for v in table[name]] for name, factor in FACTORS.items()}
    return pd.DataFrame({name: norm.ppf(np.clip(v, 1e-4, 1 - 1e-4)) for name, v in shares.items()})


def _parameters() -> dict[str, Any]:
    from lens.radiomics.parameters import load_parameters

    chosen = {}
    for modality, parameters in load_parameters().items():
        content = json.loads(parameters.content)
        content["imageType"] = {"Original": {}}
        if modality == "t2":
            content["featureClass"] = {"shape": [], **content["featureClass"]}
        chosen[modality] = replace(parameters, content=json.dumps(content))
    return chosen
