"""The sentences say what the rows hold, and no more."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lens.report.amnesic_section import amnesic_figure, largest
from lens.report.amnesic_text import cluster_name, sentences


def table(pre: list[str], ft: list[str], low: float = 0.7) -> pd.DataFrame:
    rows = []
    for stage, findings in (("pre", pre), ("ft", ft)):
        for at, finding in enumerate(findings):
            loss = 0.3 - 0.01 * at if finding != "not shown" else 0.0
            rows.append(
                {
                    "label": "grade", "score": "auc", "patients": 90, "cluster": f"t2 gland c{at}",
                    "stage": stage, "score_before": low + 0.1, "score_before_low": low,
                    "score_before_high": low + 0.2, "loss": loss, "loss_low": loss - 0.1,
                    "loss_high": loss + 0.1, "finding": finding, "null_q05": 0.0, "null_q95": 0.1,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def test_each_finding_has_its_words() -> None:
    found = table(["rests", "not shown", "large part"], ["not shown"] * 3)
    (said,) = sentences(found)
    assert "grade is predicted for held-out patients with an AUC of 0.80 [0.70, 0.90]" in said
    assert "Before fine-tuning it rests on T2 gland c0 (loss 0.30 [0.20, 0.40]):" in said
    assert "the erasure of T2 gland c2 (loss 0.28 [0.18, 0.38]) also costs it" in said
    assert "After it it is not shown to rest on any cluster." in said
    assert "c1" not in said


def test_many_clusters_are_counted() -> None:
    (said,) = sentences(table(["rests"] * 6, ["rests"]))
    assert "T2 gland c2 (loss 0.28 [0.18, 0.38]) and 3 more" in said


@pytest.mark.parametrize(("low", "chance"), [(0.45, True), (0.55, False), (np.nan, True)])
def test_where_nothing_is_read_nothing_is_lost(low: float, chance: bool) -> None:
    (said,) = sentences(table(["rests"], ["not shown"], low))
    assert ("not read better than by chance" in said) is chance
    assert ("rests on" in said) is not chance


def test_names_and_order() -> None:
    assert cluster_name("adc gland glcm") == "ADC gland glcm"
    assert cluster_name("t2.gland.original_glcm_Idm") == "t2.gland.original_glcm_Idm"
    many = table(["not shown"] * 30, ["rests"] * 30)
    assert largest(many)[:2] == ["t2 gland c0", "t2 gland c1"]
    assert len(largest(many)) == 12
    assert len(amnesic_figure(many).axes) == 1
