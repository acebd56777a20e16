"""The section on depth: words that the table bears out, and names that stay inert."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lens.report.layers_section import curve_figure, heat_figure, sentences
from lens.report.section import templates

HOSTILE = "</script><b>\u202e$x$"


def table(**changes: float | str) -> pd.DataFrame:
    """Two layers, two classes and all; GLCM lost at the second layer if `verdict` says so."""
    rows = []
    for depth, layer in enumerate(("stage1", HOSTILE), start=1):
        for group in ("all", "firstorder", "glcm"):
            rows.append({
                "layer": layer, "depth": depth, "group": group, "n_features": 4, "width": 64,
                "components": 16, "r2_pre": 0.5, "r2_ft": 0.5, "delta_r2": 0.0, "p_maxt": 1.0,
                "step_r2": 0.0, "p_step": 1.0, "verdict": "undecided", "r2_shuffled": -0.01,
                "r2_random": np.nan, "r2_permuted": np.nan,
                "r2_whole_pre": 0.52, "r2_whole_ft": 0.5,
            })  # fmt: skip
    made = pd.DataFrame(rows)
    for name, value in changes.items():
        made.loc[len(made) - 1, name] = value
    for name in ("r2_pre", "r2_ft", "delta_r2", "step_r2"):
        made[f"{name}_low"], made[f"{name}_high"] = made[name] - 0.1, made[name] + 0.1
    return made


def test_a_change_is_told_with_its_depth_and_step() -> None:
    made = table(verdict="lost", delta_r2=-0.3, p_maxt=0.001, step_r2=-0.3, p_step=0.002)
    first = sentences(made)[0]
    assert "GLCM lost at" in first
    assert "R2 −0.30 [−0.40, −0.20], p = 0.0010" in first
    assert "The largest step is made at" in first
    assert "differs from that at stage1 by R2 −0.30" in first
    unplaced = sentences(table(verdict="lost", delta_r2=-0.3, p_maxt=0.001))[0]
    assert "At no single layer is the change shown to differ" in unplaced


def test_no_change_is_told_with_its_family() -> None:
    said = sentences(table())
    assert said[0].startswith("No change of a class of features is shown at any depth")
    assert "6 tests" in said[0]
    assert not any("random encoder" in text or "leave something out" in text for text in said)


def test_controls_and_what_components_hide_are_told() -> None:
    made = table().assign(r2_random=0.3, r2_permuted=0.4)
    made.loc[made["depth"] == 2, "r2_whole_pre"] = 0.8
    said = " ".join(sentences(made))
    assert "A random encoder of this kind tells R2 0.30" in said
    assert "adds most at stage1 (0.20)" in said
    assert "R2 changes by R2 −0.10" in said
    assert "all 64 dimensions" in said
    assert "tell 0.80 before and 0.50 after, the 16 components 0.50 and 0.50" in said
    loud = " ".join(sentences(table().assign(r2_shuffled=0.2)))
    assert "more than nothing" in loud


def test_names_of_layers_stay_inert() -> None:
    made = table(verdict="lost", delta_r2=-0.3, p_maxt=0.001, step_r2=-0.3, p_step=0.002)
    text = templates("lens.report").from_string("{% for text in said %}{{ text }}{% endfor %}")
    page = text.render(said=sentences(made))
    assert "<b>" not in page
    assert "\u202e" not in page
    for figure in (heat_figure(made), curve_figure(made)):
        figure.draw_without_rendering()
