"""What the table of growth says, and layouts that the peer is built from."""

from __future__ import annotations

import pytest

from benchmarks.encoder import LAYOUTS
from benchmarks.growth import PARTS, table
from encoders.convnext import ConvNeXtV2Config


def test_the_power_is_that_of_the_features() -> None:
    rows = [
        {
            "columns": 100 * factor,
            "processor_seconds": {name: 2.0 * factor**power for power, name in enumerate(PARTS)},
            "peak_mib": 500.0,
        }
        for factor in (1, 2, 8)
    ]
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table(rows).split("\n")
    ]
    assert lines[0] == [
        "processor seconds",
        "100 features",
        "200 features",
        "800 features",
        "power",
    ]
    for power, (line, name) in enumerate(zip(lines[2:], PARTS, strict=False)):
        assert line == [
            name,
            "2.0",
            f"{2.0 * 2**power:.1f}",
            f"{2.0 * 8**power:.1f}",
            f"{power:.2f}",
        ]
    assert lines[-1][1:4] == ["500"] * 3
    (alone,) = (line for line in table(rows[:1]).split("\n") if PARTS[0] in line)
    assert alone.endswith("| - |")


@pytest.mark.parametrize("size", LAYOUTS)
def test_the_peer_is_built_like_ours(size) -> None:
    ours = ConvNeXtV2Config.named(size)
    assert LAYOUTS[size] == (ours.depths, ours.widths, ours.strides)
