"""The tiers of the tests name files that exist."""

from __future__ import annotations

from pathlib import Path

from tests.tiers import FILES, FOLDERS, is_slow

ROOT = Path(__file__).resolve().parents[1]


def test_what_is_slow_exists() -> None:
    named = [f"{folder}/test_{name}.py" for folder, names in FILES.items() for name in names]
    assert not [name for name in named if not (ROOT / name).is_file()]
    assert all((ROOT / folder).is_dir() for folder in FOLDERS)


def test_files_and_whole_folders_are_slow_and_others_are_not() -> None:
    assert is_slow(Path("tests/test_documents.py"))
    assert is_slow(Path("tests/encoders/test_vit.py"))
    assert not is_slow(Path("tests/test_tiers.py"))
    assert not is_slow(Path("tests/study/test_documents.py"))
