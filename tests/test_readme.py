"""The README's script, as printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_python_section_runs_as_printed(tmp_path: Path) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(README.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Each feature by itself: 1 lost" in done.stdout
    assert (tmp_path / "runs" / "from-python" / "report.html").stat().st_size > 10_000
    verdicts = pd.read_csv(tmp_path / "verdicts.csv").set_index("column")["verdict"]
    assert verdicts["t2.gland.original_glcm_Idm"] == "lost", "the trait that fine-tuning lost"
    assert (verdicts == "lost").sum() == 1
