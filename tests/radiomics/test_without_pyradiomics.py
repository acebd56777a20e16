"""Without PyRadiomics and PyWavelets: tables are read as ever, images are refused in a sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.planted import plant
from tests.radiomics.phantoms import write_cohort

BLOCKED = "import sys\nsys.modules['radiomics'] = sys.modules['pywt'] = None\n"


def run(code: str, *arguments: Path) -> subprocess.CompletedProcess:
    line = [sys.executable, "-c", BLOCKED + code, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_a_study_of_tables_needs_neither(tmp_path: Path) -> None:
    paths = plant(n=40, d=6).write(tmp_path)
    code = """
import lens
pre, ft, radiomics = sys.argv[1:]
print(len(lens.load_study(pre, {"cls": ft}, radiomics).ids))
"""
    done = run(code, paths["pre"], paths["ft"], paths["radiomics"])
    assert done.stdout == "40\n", done.stderr


def test_every_module_is_imported_without_them() -> None:
    code = """
import pkgutil, importlib, lens
for module in pkgutil.walk_packages(lens.__path__, "lens."):
    importlib.import_module(module.name)
"""
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_images_are_refused_with_the_remedy(tmp_path: Path) -> None:
    manifest = write_cohort(tmp_path, ["a"])
    code = """
from pathlib import Path
from experiments.common.cli import run
from experiments.radiomics import Config, job
sys.argv[1:] = ["--cohort", sys.argv[1], "--out", sys.argv[2]]
run(Config, job)
"""
    done = run(code, manifest, tmp_path / "R.csv")
    assert done.returncode == 1
    _, refused = done.stderr.splitlines()
    assert refused.startswith("refused: features of images need PyRadiomics"), done.stderr
    assert "pip install 'radiomic-lens[radiomics]' (needs a C compiler" in refused
