"""Names of radiomic columns: ``<modality>.<roi>.<image>_<class>_<feature>``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lens.errors import InputError
from lens.names import name_problem

if TYPE_CHECKING:
    import pandas as pd

PATTERN = re.compile(
    r"(?P<modality>[^.\s]+)\.(?P<roi>[^.\s]+)\.(?P<image>[^._\s]+)"
    r"_(?P<feature_class>firstorder|glcm|glrlm|glszm|ngtdm|gldm|shape|shape2D|gldzm|ih|ivh|loc|other)"
    r"_(?P<feature>[A-Za-z0-9]+)"
)
PARTS = ("modality", "roi", "image", "feature_class", "feature")


def parse_columns(columns: Sequence[str]) -> pd.DataFrame:
    """What each radiomic column measures, a row per column in the same order.

    ``t2.gland.wavelet-LLH_glcm_Idmn`` is feature ``Idmn`` of class ``glcm`` in the ROI ``gland`` of
    the image ``wavelet-LLH`` made from modality ``t2``. All of PyRadiomics' images and classes fit,
    and those of IBSI that it lacks: distance zones (``gldzm``), intensity histogram (``ih``),
    intensity-volume histogram (``ivh``), local intensity (``loc``); ``other`` is for any other.

    Args:
        columns: names as in the radiomics table, without ``patient_id`` and ``study_id``.

    Returns:
        Table with columns ``column, modality, roi, image, feature_class, feature``, all text.

    Raises:
        InputError: some names do not fit the pattern (names the first few), or one of a modality,
            region or image is none that can be shown and stored (`name_problem`).
    """
    matches = [PATTERN.fullmatch(column) for column in columns]
    misfits = [column for column, match in zip(columns, matches, strict=True) if match is None]
    if misfits:
        more = f" and {len(misfits) - 5} more" if len(misfits) > 5 else ""
        raise InputError(
            f"not the name of a radiomic feature: {', '.join(map(repr, misfits[:5]))}{more}. "
            "Expected <modality>.<roi>.<image>_<class>_<feature> with PyRadiomics' own names, "
            "for example t2.gland.wavelet-LLH_glcm_Idmn (t2.gland.original_other_Name for one that "
            "none of the classes holds); rename or drop these columns"
        )
    used = {match[part]: part for match in matches if match for part in PARTS[:3]}
    for name, part in used.items():
        if problem := name_problem(name):
            raise InputError(f"{part} {problem}")
    rows = [(match.group(0), *match.group(*PARTS)) for match in matches if match is not None]
    import pandas as pd  # late: workers make no table

    return pd.DataFrame(rows, columns=["column", *PARTS], dtype=str)


def column_name(modality: str, roi: str, feature: str) -> str:
    """The table's name of PyRadiomics' `feature` (``<image>_<class>_<feature>``)."""
    return f"{modality}.{roi}.{feature}"
