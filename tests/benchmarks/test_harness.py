"""The harness of the benchmarks: what it counts is what was spent."""

from __future__ import annotations

import time

import pytest

from benchmarks import harness
from benchmarks.accelerator import Part, run

BUSY = "import time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass\n"


def test_ratios_are_taken_turn_by_turn() -> None:
    turns = harness.Turns()
    for slow in (1.0, 10.0):  # a machine that gets ten times slower in between
        turns.add("ours", harness.Cost(slow, 2 * slow))
        turns.add("theirs", harness.Cost(3 * slow, 4 * slow))
    row = turns.row("theirs", "ours")
    assert (row["seconds_to_ours_low"], row["seconds_to_ours_high"]) == (3.0, 3.0)
    assert row["processor_to_ours_median"] == 2.0
    assert turns.scaled({"ours": 3.0}).row("theirs", "ours")["seconds_to_ours_median"] == 1.0


def test_a_waiting_call_costs_no_processor_time() -> None:
    cost = harness.cost_of(lambda: time.sleep(0.3))
    assert cost.seconds >= 0.3
    assert cost.processor < 0.2


def test_a_process_is_counted_with_what_it_starts() -> None:
    script = (
        "import subprocess, sys\nx = bytearray(80_000_000)\n"
        f"subprocess.run([sys.executable, '-c', {BUSY!r}])\nprint('end')"
    )
    done = harness.run_process("-c", script)
    assert done.output.split() == ["end"]
    assert done.cost.processor >= 0.5
    assert done.peak_mib > 80e6 / 2**20
    with pytest.raises(RuntimeError, match="no such thing"):
        harness.run_process("-c", "raise SystemExit('no such thing')")


def test_a_part_is_ended_at_its_limit_and_keeps_what_it_wrote(tmp_path, monkeypatch) -> None:
    package = tmp_path / "benchmarks"
    package.mkdir()
    (package / "slow.py").write_text(
        "import pathlib, sys, time\n"
        "pathlib.Path(sys.argv[-1]).write_text(sys.argv[1])\ntime.sleep(60)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "")
    out = tmp_path / "found.json"
    assert run(Part("slow two~words", limit=60), 8.0, out) == "cut"
    assert out.read_text() == "two words"
    assert run(Part("none", limit=60), 20.0, out).startswith("exit code")
