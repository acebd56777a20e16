"""The same embeddings before and after are refused, and copies among the seeds."""

from __future__ import annotations

import pytest

import lens
from lens.errors import InputError
from lens.study.identical import check_different
from tests.planted import QUICK, plant_quick


def test_identical_embeddings_are_refused_unless_asked_for() -> None:
    planted = plant_quick()
    pre, ft = (planted.ids, planted.pre), (planted.ids, planted.ft)
    options = {"progress": False, **QUICK}
    with pytest.raises(
        InputError,
        match=r"^pre before .* ft\['cls'\] after it on cls are the same numbers.*--identical",
    ):
        lens.compare(pre, {"cls": pre}, planted.radiomics, **options)
    same = lens.compare(pre, {"cls": pre}, planted.radiomics, identical=True, **options)
    assert (same.verdicts["delta_r2"] == 0).all()
    for again in ([ft], [pre, pre]):
        study = lens.load_study(pre, {"cls": ft}, planted.radiomics, retrained={"cls": again})
        with pytest.raises(InputError, match=r"two encoders .* on cls .*, (ft|retrained)\['cls'\]"):
            check_different(study)
        with pytest.raises(InputError, match=r", (a|b).npz and (b|c).npz, so"):
            check_different(study, after={"cls": ["a.npz", "b.npz", "c.npz"]})
    check_different(lens.load_study(pre, {"cls": ft}, planted.radiomics, retrained={"cls": [pre]}))
