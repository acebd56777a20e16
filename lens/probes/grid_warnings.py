"""What a reader must know about the grid of a sweep, from its table alone."""

from __future__ import annotations

import pandas as pd


def grid_warnings(table: pd.DataFrame) -> tuple[str, ...]:
    """What a reader must know about a sweep's grid: repeated pairs, a winner at an edge.

    Args:
        table: as in `lens.probes.sweep.Sweep`.
    """
    warnings = []
    best = table.loc[table["selected"]].iloc[0]
    repeated = table[table.duplicated(["l1", "l2", "seed"])]
    if len(repeated):
        pair = repeated.iloc[0]
        warnings.append(
            f"the grid holds the pair l1 = {pair['l1']:g}, l2 = {pair['l2']:g} more than once"
        )
    for name in ("l1", "l2"):
        values = sorted(set(table[name]))
        # Zero is no edge: there is no weaker penalty than none.
        edges = {values[-1], values[0]} - {0.0}
        if len(values) > 1 and best[name] in edges:
            warnings.append(
                f"the selected {name} = {best[name]:g} is at the edge of its grid; "
                f"a wider grid may fit better (--{name})"
            )
    return tuple(warnings)
