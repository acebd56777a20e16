"""What the packages import is declared, what is declared is pinned, and the wheel holds no more."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("lens", "encoders", "experiments")


def canonical(requirement: str) -> str:
    """The distribution that a requirement names, in the one spelling of PyPI."""
    name = re.split(r"[^A-Za-z0-9._-]", requirement.strip(), maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def declared(*extras: str) -> set[str]:
    """Distributions of `dependencies` and of these extras."""
    table = project()["project"]
    optional = table["optional-dependencies"]
    wanted = [*table["dependencies"], *(one for extra in extras for one in optional[extra])]
    return {canonical(requirement) for requirement in wanted}


def imports(source: str) -> set[str]:
    """Top-level names of all absolute imports, those inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def third_party(*packages: str) -> dict[str, set[str]]:
    """Imported name -> files, without the standard library and without this project."""
    found: dict[str, set[str]] = {}
    own = {*PACKAGES, "benchmarks", "tests"}
    for package in packages:
        for file in (ROOT / package).rglob("*.py"):
            for name in imports(file.read_text(encoding="utf-8")):
                if name not in sys.stdlib_module_names and name not in own:
                    found.setdefault(name, set()).add(str(file.relative_to(ROOT)))
    return found


@pytest.mark.parametrize(
    ("packages", "extras"),
    [
        (PACKAGES, ("radiomics", "torch", "onnx")),
        (("benchmarks", "tests"), ("radiomics", "onnx", "test")),
    ],
    ids=["packages", "benchmarks and tests"],
)
def test_every_import_is_declared(packages: tuple[str, ...], extras: tuple[str, ...]) -> None:
    known, allowed = packages_distributions(), declared(*extras)
    missing = {
        name: sorted(files)
        for name, files in third_party(*packages).items()
        if not {canonical(each) for each in known.get(name, [name])} & allowed
    }
    assert not missing


def test_imports_finds_those_inside_functions_and_passes_over_relative_ones() -> None:
    source = "import a.b\nfrom . import c\nfrom d.e import f\ndef g():\n    import h as i\n"
    assert imports(source) == {"a", "d", "h"}


def test_plain_install_needs_no_compiler() -> None:
    """PyRadiomics is the one dependency that is built from source."""
    assert "pyradiomics-bhklab" not in declared()
    assert "pyradiomics-bhklab" in declared("radiomics")
    assert "radiomic-lens" in declared("test"), "the tests need the extra radiomics"


def test_what_is_declared_is_pinned_by_one_plain_version() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", pin) for pin in pins)
    names = [canonical(pin) for pin in pins]
    assert len(set(names)) == len(names)
    assert declared("radiomics", "torch", "onnx", "test", "docs", "dev") - {"radiomic-lens"} <= set(
        names
    )


def test_exact_requirements_agree_with_the_pins() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {canonical(line): line.split("==")[1] for line in lines if "==" in line}
    optional = project()["project"]["optional-dependencies"]
    exact = [one for extra in optional.values() for one in extra if "==" in one]
    assert exact
    for requirement in exact:
        assert pins[canonical(requirement)] == requirement.split("==")[1]


def test_the_wheel_holds_the_three_packages_and_the_command() -> None:
    setup = project()
    assert setup["tool"]["setuptools"]["packages"]["find"]["include"] == [
        f"{package}*" for package in PACKAGES
    ]
    assert setup["project"]["scripts"] == {"radiomic-lens": "experiments.common.commands:main"}
