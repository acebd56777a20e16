"""Names of an encoder's channels, checked against a cohort: a wrong one must not become zeros."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from lens.cohort import Cohort
from lens.errors import InputError
from lens.names import check_names

log = logging.getLogger(__name__)

ZEROS = ("none", "")
"""Names of a channel that is to be all zeros."""


def check_channels(names: Sequence[str], cohort: Cohort, where: str) -> None:
    """Refuses channels that are no modality, and an input of nothing but zeros.

    A modality that none of the cases has gives zeros, which is said.

    Args:
        names: of the channels in order, modalities or one of `ZEROS`.
        cohort: whose images they are.
        where: the names were given, for messages: ``--modalities``.

    Raises:
        InputError: a name is unknown, or no case has any of the modalities.
    """
    there = [
        name for name in cohort.modalities if any(name in files.images for files in cohort.cases)
    ]
    unknown = [name for name in names if name not in (*there, *cohort.channels, *ZEROS)]
    check_names(unknown, [*there, ZEROS[0]], "modality", where)
    wanted = [name for name in names if name not in ZEROS]
    lacking = [name for name in wanted if name not in there]
    if lacking == wanted:
        raise InputError(
            f"{where}: of the channels {', '.join(names)} the cohort has none, and the encoder "
            f"would see zeros alone; there are {', '.join(there)}"
        )
    if lacking:
        log.warning("%s: no patient has %s; zeros in its place", where, " and no ".join(lacking))
