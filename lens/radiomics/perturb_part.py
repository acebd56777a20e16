"""What a worker does with one case for its repeatability: perturb it and extract each version."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lens.cohort.case import read_case
from lens.cohort.manifest import CaseFiles
from lens.errors import CaseError, InputError
from lens.radiomics.extract import columns, extract_regions, scaling_of
from lens.radiomics.extract_part import unforeseen
from lens.radiomics.parameters import Parameters, parameters_for
from lens.radiomics.parts import Part, Reading
from lens.radiomics.perturb import perturbed


def perturb_part(
    files: CaseFiles,
    parameters: Mapping[str, Parameters],
    reading: Reading,
    part: Part,
    repeats: int,
) -> CaseError | None:
    """Writes the features of perturbed versions of one case; gives the error where that fails.

    A finished part is left alone.

    Raises:
        InputError: the part cannot be written.
    """
    if part.finished():
        return None
    try:
        case = read_case(files, **reading._asdict())
        scalings = {
            name: scaling_of(case, name, parameters_for(parameters, name)) for name in case.images
        }
        made = []
        for repeat in range(repeats):
            version = perturbed(case, np.random.default_rng([part.seed, repeat]))
            regions = extract_regions(
                version, parameters, files=files.images, scalings=scalings, rois=files.regions
            )
            made.append(columns(regions))
    except CaseError as error:
        return error
    except InputError:
        raise
    except Exception as error:  # one patient never stops a cohort, whatever is wrong with it
        return unforeseen(files, error)
    part.write({"versions": made})
    return None
