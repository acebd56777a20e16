"""The wheel as a user gets it: built, installed into a new environment and run from elsewhere.

``python -m tests.wheel_check`` builds the wheel, installs it with the tested versions and without
extras (no compiler is needed) into a temporary environment, and runs the command ``radiomic-lens``
there, in a folder whose own packages ``lens`` and ``experiments`` must not be taken for ours.
Exits with 1 and a line that says what is missing.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("lens", "encoders", "experiments")
DATA = (".yaml", ".html", ".css", ".json", ".pyi", ".typed")
"""Files that are not code and that the packages read or ship."""

OUTPUTS = ("run.json", "report.html", "split.csv", "cls/features.parquet", "cls/groups.csv")


def main() -> None:
    """Builds, installs, runs and checks; ends at the first thing that does not hold."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = build(folder)
        check_files(wheel)
        command = install(wheel, folder / "environment")
        elsewhere = folder / "elsewhere"
        write_decoys(elsewhere)
        write_tables(elsewhere)
        check_command(command, elsewhere)
        check_sweep(command, elsewhere)
        check_without_pyradiomics(command, elsewhere)
    print("the wheel holds")


def build(folder: Path) -> Path:
    """The wheel, built from a copy: an old build folder of the checkout must not get into it."""
    say("build")
    source = folder / "source"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, source)
    (wheel,) = folder.glob("radiomic_lens-*.whl")
    return wheel


def check_files(wheel: Path) -> None:
    """Every module and data file of the packages is in the wheel, and no other package."""
    there = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        str(file.relative_to(ROOT))
        for package in PACKAGES
        for file in (ROOT / package).rglob("*")
        if file.suffix in (".py", *DATA) or file.name == "py.typed"
    }
    insist(wanted <= there, f"not in the wheel: {sorted(wanted - there)}")
    tops = {name.split("/")[0] for name in there if ".dist-info/" not in name}
    insist(tops == set(PACKAGES), f"packages of the wheel: {sorted(tops)}")


def install(wheel: Path, environment: Path) -> Path:
    """The command in a new environment that has the wheel and what it depends on."""
    say("install")
    run(sys.executable, "-m", "venv", environment)
    (binaries,) = (path for name in ("bin", "Scripts") if (path := environment / name).is_dir())
    constraints = ("--constraint", ROOT / "constraints.txt")
    run(binaries / "python", "-m", "pip", "install", "--quiet", *constraints, wheel)
    return binaries / "radiomic-lens"


def write_decoys(folder: Path) -> None:
    """Packages of the same names as ours that fail on import."""
    for package in PACKAGES:
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text("raise RuntimeError('not the installed one')")


def write_tables(folder: Path, patients: int = 90) -> None:
    """Embeddings before and after (one factor of four is erased) and radiomics of 90 patients."""
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(patients, 4))
    mixing = rng.normal(size=(4, 16))
    ids = np.array([f"p{index:03d}" for index in range(patients)])
    for name, kept in (("pre", (1, 1, 1, 1)), ("ft", (0, 1, 1, 1))):
        x = (latent * kept) @ mixing + 0.3 * rng.normal(size=(patients, 16))
        np.savez(folder / f"{name}.npz", patient_id=ids, embeddings=x.astype(np.float32))
    columns = [f"{m}.gland.original_glcm_Feature{i}" for m in ("t2", "adc") for i in range(8)]
    values = latent[:, np.arange(16) % 4] + 0.5 * rng.normal(size=(patients, 16))
    table = pd.DataFrame(values, columns=pd.Index(columns))
    table.insert(0, "patient_id", ids)
    table.to_csv(folder / "radiomics.csv", index=False)


def check_command(command: Path, folder: Path) -> None:
    """The list of jobs and the version."""
    say("radiomic-lens --version, --help")
    version = run(command, "--version", cwd=folder).stdout
    insist(re.fullmatch(r"radiomic-lens \d+\.\d+\.\d+\n", version), f"--version says {version!r}")
    insist("sweep" in run(command, "--help", cwd=folder).stdout, "--help lists no sweep")


def check_sweep(command: Path, folder: Path) -> None:
    """The main job on tables: exit code 0, its files, and a page that was drawn in full."""
    say("radiomic-lens sweep")
    flags = "--pre pre.npz --ft cls=ft.npz --radiomics radiomics.csv --out run --hidden 4 --l1 0"
    flags += " --l2 1e-4 --epochs 20 --folds 3 --repeats 1 --bootstraps 50 --flips 200"
    run(command, "sweep", *flags.split(), cwd=folder)
    for output in OUTPUTS:
        insist((folder / "run" / output).is_file(), f"the run folder lacks {output}")
    record = json.loads((folder / "run" / "run.json").read_text(encoding="utf-8"))
    insist(record["versions"]["jax"], "run.json lacks the version of jax")
    page = (folder / "run" / "report.html").read_text(encoding="utf-8")
    insist("<style>" in page and "</html>" in page, "report.html lacks its style or its end")
    verdicts = pd.read_parquet(folder / "run" / "cls" / "features.parquet")["verdict"]
    insist(len(verdicts) == 16, f"features.parquet has {len(verdicts)} rows, not 16")


def check_without_pyradiomics(command: Path, folder: Path) -> None:
    """The job that needs PyRadiomics says in one line what to install, with exit code 1."""
    say("radiomic-lens radiomics, without PyRadiomics")
    image = np.random.default_rng(0).normal(100, 20, (12, 24, 24)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(image), folder / "t2.nii.gz")
    mask = np.zeros(image.shape, np.uint8)
    mask[3:9, 6:18, 6:18] = 1
    sitk.WriteImage(sitk.GetImageFromArray(mask), folder / "gland.nii.gz")
    (folder / "cohort.csv").write_text("patient_id,t2,gland\np000,t2.nii.gz,gland.nii.gz\n")
    flags = ("--cohort", "cohort.csv", "--out", "R.parquet")
    done = run(command, "radiomics", *flags, cwd=folder, code=1)
    # Before it stands what the columns of the cohort were taken for.
    lines = [line for line in done.stderr.splitlines() if not line.startswith("cohort: ")]
    insist(
        len(lines) == 1 and "pip install" in lines[0] and "radiomics" in lines[0],
        f"no single line says what to install:\n{done.stderr}",
    )


def run(
    *command: str | Path, cwd: Path | None = None, code: int = 0
) -> subprocess.CompletedProcess[str]:
    """A command that must end with this exit code."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    shown = " ".join(map(str, command))
    insist(
        done.returncode == code, f"{shown}\nended with {done.returncode}, not {code}\n{done.stderr}"
    )
    return done


def insist(holds: object, problem: str) -> None:
    """Ends the check where something does not hold."""
    if not holds:
        sys.exit(f"wheel check: {problem}")


def say(step: str) -> None:
    """What is being checked; installing takes minutes."""
    print(f"  {step}", flush=True)


if __name__ == "__main__":
    main()
