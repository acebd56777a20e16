"""Names of tasks, regions and modalities are plain ones: they become folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.common.flags import entries
from experiments.main_job.config import Config, ImageFlags, TableFlags
from experiments.main_job.plan import settle
from lens.errors import InputError
from lens.study.tasks import task_problem


@pytest.mark.parametrize(
    "name",
    ["run.json", "report.html", "sweep.parquet", "split.csv", "run.lock", "pre", "Figures",
     "PRE", "scopes", "a/b", "a\\b", "../x", "..", ".hidden", "a\0b", "x" * 300, "", " a", "a ",
     "a.", "nul", "COM1", "com1.txt", "\U00020000" * 64, "a\nb", "<b>", "$x$", 5, None],
)  # fmt: skip
def test_a_name_that_cannot_be_a_folder_is_refused(name: object) -> None:
    problem = task_problem(name)
    assert problem.startswith("task ")
    assert "\n" not in problem
    assert len(problem) < 300


@pytest.mark.parametrize("name", ["cls", "seg-lesion", "Grade 2+ v1.2", "größe", "ft", "x" * 64])
def test_a_plain_name_is_a_task(name: str, tmp_path: Path) -> None:
    assert task_problem(name) == ""
    (tmp_path / name).mkdir()


def test_names_that_differ_by_case_alone_are_one_folder_on_some_disks() -> None:
    with pytest.raises(InputError, match="'CLS' is taken"):
        entries(["cls=a.npz", "CLS=b.npz"], "--ft")


@pytest.mark.parametrize(
    ("scope", "channels", "roi", "message"),
    [
        ("cls=../x.gland", (), (), "--scope .*modality '../x'"),
        ("cls=t2.a/b", (), (), "--scope .*region 'a/b'"),
        ("cls=t2./tmp", (), (), "--scope .*region '/tmp'"),
        ("cls=gland", ("cls=t2+../y",), (), "--channels .*modality '../y'"),
        ("cls=gland", (), ("../z",), "--roi: region '../z'"),
    ],
)
def test_a_scope_cannot_leave_the_run_folder(
    scope: str, channels: tuple[str, ...], roi: tuple[str, ...], message: str
) -> None:
    images = ImageFlags(
        cohort=Path("c.csv"), encoder_pre=Path("a"), encoder_ft=("cls=b",), channels=channels
    )
    with pytest.raises(InputError, match=message):
        settle(Config(tables=TableFlags(), images=images, scope=(scope,), roi=roi))
