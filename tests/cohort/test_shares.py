"""Shares of a cohort: together all cases, once, and evenly; what is no K/N is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from lens.cohort import CaseFiles, Cohort
from lens.cohort.shares import Share, parse_share
from lens.errors import CaseError, InputError

SITES = "a" * 7 + "b" * 4 + "c"
"""Of the cases, which lie sorted by site."""


def cohort() -> Cohort:
    cases = [CaseFiles(f"P{i}", None, {}, {}, {"site": site}, None) for i, site in enumerate(SITES)]
    unusable = CaseError("P12", "cohort.csv", stage="read", reason="no t2", remedy="Fill it.")
    return Cohort(Path("cohort.csv"), tuple(cases), (unusable,))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 12, 13, 40])
def test_shares_have_every_case_once_and_every_site_evenly(count: int) -> None:
    whole = cohort()
    shares = [Share(number, count).of(whole) for number in range(1, count + 1)]
    dealt = [files.patient_id for share in shares for files in share.cases]
    assert sorted(dealt) == sorted(files.patient_id for files in whole.cases)
    for site in ("a", "b", "c", "abc"):
        numbers = [sum(f.labels["site"] in site for f in share.cases) for share in shares]
        assert max(numbers) - min(numbers) <= 1, site
    for share in shares:
        assert list(share.cases) == [files for files in whole.cases if files in share.cases]
        assert not share.set_aside, "a row that cannot be used is of no share"
    assert len(whole.set_aside) == 1


def test_the_first_share_has_the_first_case() -> None:
    assert [files.patient_id for files in Share(2, 5).of(cohort()).cases] == ["P1", "P6", "P11"]


def test_a_share_is_two_whole_numbers() -> None:
    assert parse_share("3/8", "--share") == Share(3, 8)
    assert parse_share("03/08", "--share") == Share(3, 8)
    assert parse_share("1/1", "--share") == Share(1, 1)
    assert str(Share(3, 8)) == "3/8"


@pytest.mark.parametrize(
    "text",
    ["0/8", "9/8", "0/0", "1/0", "-1/8", "1/-8", "3", "3/", "/8", "3/8/9", "a/b", "1.0/2", "1e0/2",
     "1_0/20", " 1/2", "1 / 2", "1/2\n", "٣/٨", "", "1/" + "9" * 5000],
)  # fmt: skip
def test_what_is_no_share_is_refused_with_the_way_out(text: str) -> None:
    with pytest.raises(
        InputError, match=r"(?s)^--share .*K from 1 to N: --share 3/8 for the third"
    ):
        parse_share(text, "--share")
