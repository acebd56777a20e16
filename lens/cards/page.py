"""The page of a comparison, its tables and figures: one folder, from runs or cards."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

import lens
from lens.cards.agreement import verdict_in_all
from lens.cards.entries import Comparable
from lens.cards.figures import PAIRS, change_figure, forest_figure
from lens.cards.tables import Tables, tables_of
from lens.cards.taxonomy import Taxonomy, taxonomy
from lens.cards.taxonomy import sentences as taxonomy_sentences
from lens.cards.taxonomy_figure import taxonomy_figure
from lens.cards.words import sentences
from lens.files import write_json, write_table, write_text
from lens.report.assets import NONE, inline
from lens.report.figures import save
from lens.report.section import templates
from lens.report.words import label, modality_name
from lens.verdicts.rules import VERDICTS

PAGE, FACTS = "compare.html", "compare.json"
"""The page, and what was compared."""

TABLES = ("features.csv", "groups.csv", "pooled.csv", "pairs.csv")
"""Tables of a comparison; of runs of the same patients without the third."""

TAXONOMY = ("taxonomy.csv", "taxonomy-kinds.csv")
"""Tables of three runs or more: the runs along the tree, and their kinds by twos."""

SHOWN = 60
"""Features in the page's table, those with the largest changes."""


def write_comparison(
    folder: Path, blocks: Sequence[Comparable], kinds: Sequence[str] = ()
) -> list[str]:
    """Writes page, tables and figures.

    Args:
        folder: where to; with several comparisons each has its tables in ``<task>/``.
        blocks: of `lens.cards.entries.choose`.
        kinds: of the runs, as `lens.cards.taxonomy.taxonomy` takes them.

    Returns:
        The sentences of the page, comparison by comparison.

    Raises:
        InputError: another number of kinds than runs.
    """
    trees, parts = [taxonomy(block, kinds) for block in blocks], []
    for block, tree in zip(blocks, trees, strict=True):
        # Several blocks are one for each task that all runs have; else the tasks may differ.
        inside = folder / block.entries[0].task if len(blocks) > 1 else folder
        parts.append(_write_block(inside, block, tables_of(block), tree))
    write_json(folder / FACTS, _facts(blocks))
    page = templates("lens.cards", "lens.report").get_template("compare.html").render(
        blocks=parts, verdicts=VERDICTS, page=inline(NONE), pairs_shown=PAIRS,
        version=lens.__version__, level=blocks[0].entries[0].settings["level"],
    )  # fmt: skip
    write_text(folder / PAGE, page)
    return [text for part in parts for text in part["sentences"]]


def _write_block(
    folder: Path, block: Comparable, tables: Tables, tree: Taxonomy | None
) -> dict[str, Any]:
    found = dict(zip(TABLES, tables, strict=True))
    trees = [pd.DataFrame()] * 2 if tree is None else [tree.table(), tree.pairs]
    found |= dict(zip(TAXONOMY, trees, strict=True))
    for name, table in found.items():
        if len(table):
            write_table(table, folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    figures = folder / "figures"
    forest = forest_figure(block, tables)
    return {
        "title": ", ".join(dict.fromkeys(entry.task for entry in block.entries)),
        "entries": block.entries,
        "independent": block.independent,
        "notes": block.notes,
        "sentences": sentences(block, tables) + ([] if tree is None else taxonomy_sentences(tree)),
        "tree": None if tree is None else _drawn(taxonomy_figure(tree), figures, "taxonomy"),
        "ceiling": tree is not None and bool(tree.ceiling),
        "changes": _drawn(change_figure(block), figures, "changes"),
        "forest": None if forest is None else _drawn(forest, figures, "forest"),
        "pairs": tables.pairs.to_dict("records"),
        "groups": _group_rows(block, tables),
        "features": _feature_rows(block, tables),
        "count": len(block.entries[0].features),
    }


def _facts(blocks: Sequence[Comparable]) -> dict[str, Any]:
    """What was compared, without paths: for whoever finds the folder."""
    return {
        "radiomic-lens": lens.__version__,
        "comparisons": [
            {
                "runs": [
                    {"run": e.label, "task": e.task, "settings": dict(e.settings), **e.facts}
                    for e in block.entries
                ],
                "features": len(block.entries[0].features),
                "left_out": block.left_out,
                "independent": block.independent,
                "notes": block.notes,
            }
            for block in blocks
        ],
    }


def _group_rows(block: Comparable, tables: Tables) -> list[dict[str, Any]]:
    """A row per common level: its name, a cell per run, and the pooled change if there is one."""
    rows = []
    for at, row in enumerate(block.entries[0].levels.to_dict("records")):
        where = f"{modality_name(row['modality'])} {row['roi']}".strip()
        name = "all features" if row["level"] == "task" else f"{where} {row['group']}"
        rows.append(
            {
                "name": name.removesuffix(" all") if row["level"] == "modality" else name,
                "cells": [e.levels.iloc[at].to_dict() for e in block.entries],
                "pooled": tables.pooled.iloc[at].to_dict() if len(tables.pooled) else None,
            }
        )
    return rows


def _feature_rows(block: Comparable, tables: Tables) -> list[dict[str, Any]]:
    """Features with a verdict of a change in any run, the largest changes first."""
    changes = pd.DataFrame({at: e.features["delta_r2"] for at, e in enumerate(block.entries)})
    verdicts = pd.DataFrame({at: e.features["verdict"] for at, e in enumerate(block.entries)})
    called = verdicts.isin(["lost", "gained", "recoded"]).any(axis=1)
    order = changes[called].abs().max(axis=1).sort_values(ascending=False, kind="stable").index
    shared = verdict_in_all(block.entries)
    pooled = tables.pooled
    if len(pooled):
        pooled = pooled[pooled["kind"] == "feature"].reset_index(drop=True)
    return [
        {
            "label": label(block.entries[0].features.loc[at].to_dict()),
            "column": block.entries[0].features.loc[at, "column"],
            "cells": [e.features.loc[at].to_dict() for e in block.entries],
            "pooled": pooled.loc[at].to_dict() if len(pooled) else None,
            "shared": shared[at],
        }
        for at in order[:SHOWN]
    ]


def _drawn(figure: Figure, folder: Path, name: str) -> str:
    content = save(figure, folder, name).read_bytes()
    return "data:image/svg+xml;base64," + base64.b64encode(content).decode()
