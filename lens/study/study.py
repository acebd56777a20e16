"""A study: embeddings before and after fine-tuning, radiomics and split, on the same rows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from lens.errors import CaseError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Study:
    """Rows of all arrays are the same imaging studies, in the same order.

    Attributes:
        ids: ``patient_id`` and, where a patient has several studies, ``study_id``.
        x_pre: embeddings of the encoder before fine-tuning.
        x_ft: per task, embeddings of the fine-tuned encoder, same width.
        retrained: per task, embeddings of encoders fine-tuned again from other seeds, if any.
        r: radiomic features in their own units.
        features: a row per column of `r`: column, modality, roi, image, feature_class, feature.
        split: ``train``, ``val`` or ``test`` per row; a patient is in one split only.
        dropped: radiomic columns left out, with the reason.
        set_aside: patients left out, with file, reason and remedy.
        notes: what a reader of the results must know about the tables.
        imputed: entries of `r` that were missing, where there are any.
    """

    ids: pd.DataFrame
    x_pre: Float[np.ndarray, "n d"]
    x_ft: dict[str, Float[np.ndarray, "n d"]]
    r: Float[np.ndarray, "n k"]
    features: pd.DataFrame
    split: np.ndarray
    dropped: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(columns=["column", "reason"])
    )
    set_aside: tuple[CaseError, ...] = ()
    notes: tuple[str, ...] = ()
    imputed: Bool[np.ndarray, "n k"] | None = None
    retrained: dict[str, list[Float[np.ndarray, "n d"]]] = field(default_factory=dict)

    def observed(self) -> Float[np.ndarray, "n k"]:
        """`r` with NaN for what was missing, for those who impute inside their own folds."""
        return self.r if self.imputed is None else np.where(self.imputed, np.nan, self.r)

    def rows(self, *splits: str) -> np.ndarray:
        """Boolean mask (n,) of the rows in any of `splits`."""
        return np.isin(self.split, splits)
