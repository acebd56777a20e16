"""Parameters of one filter alone give the same values of it."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from lens.cohort.case import Case
from lens.cohort.factor_phantom import factor_phantom
from lens.radiomics.extract import extract_case
from lens.radiomics.parameters import load_parameters, narrowed


def test_a_narrowed_set_keeps_the_values_of_its_filter() -> None:
    patient = factor_phantom(0, 0)
    images = {name: sitk.GetImageFromArray(voxels) for name, voxels in patient.images.items()}
    masks = {
        roi: sitk.GetImageFromArray(voxels.astype(np.uint8))
        for roi, voxels in patient.masks.items()
    }
    case = Case(patient.patient_id, None, images, masks, ())
    every = extract_case(case, load_parameters())
    few = extract_case(case, narrowed(load_parameters(), ("Original",)))
    assert {name: value for name, value in every.items() if ".original_" in name} == few
    assert len(few) < len(every)
    fewer = extract_case(case, narrowed(load_parameters(), ("Original",), ("glrlm", "ngtdm")))
    kept = ("_glrlm_", "_ngtdm_")
    assert {name: value for name, value in few.items() if any(k in name for k in kept)} == fewer


def test_filters_that_the_parameters_lack_are_refused() -> None:
    with pytest.raises(ValueError, match="none of LoG under imageType"):
        narrowed(load_parameters(), ("LoG",))
    with pytest.raises(ValueError, match="none of shape2D under featureClass"):
        narrowed(load_parameters(), ("Original",), ("shape2D",))
