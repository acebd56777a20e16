"""A share of a cohort: the cases of one run, where several runs take them by turns."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from lens.cohort.manifest import Cohort
from lens.errors import InputError


@dataclass(frozen=True)
class Share:
    """The K-th of N shares.

    Attributes:
        number: which one it is, from 1 to `count`.
        count: how many there are.
    """

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, cohort: Cohort) -> Cohort:
        """The cases whose turn it is: every `count`-th of the manifest, from the `number`-th.

        Together the shares have every case once, and numbers of cases differ by one at most; those
        of the cases of a site do, too, where the manifest is sorted by site. A share may be empty.
        Rows of the manifest that cannot be used are in none.
        """
        return replace(cohort, cases=cohort.cases[self.number - 1 :: self.count], set_aside=())


def parse_share(text: str, flag: str) -> Share:
    """The share that ``K/N`` names.

    Args:
        text: such as ``3/8``.
        flag: that gives it.

    Raises:
        InputError: another form, or no K from 1 to N.
    """
    form = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if form and 1 <= int(form[1]) <= int(form[2]):
        return Share(int(form[1]), int(form[2]))
    raise InputError(
        f"{flag} {text}: expected K/N, two whole numbers, K from 1 to N: {flag} 3/8 for the third "
        "of eight shares"
    )
