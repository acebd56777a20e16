"""What a worker does with one case: read it, extract it, leave its part."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from lens.cohort.case import Case, read_case
from lens.cohort.intensities import Kind, kind_of
from lens.cohort.manifest import CaseFiles
from lens.cohort.placement import Placement, refusal
from lens.errors import CaseError, InputError
from lens.radiomics.computable import check_complete
from lens.radiomics.extract import extract_regions, margin_needed
from lens.radiomics.honoured import check_taken
from lens.radiomics.parameters import Parameters, parameters_for
from lens.radiomics.parts import Part, Reading, write_failure, write_part

log = logging.getLogger(__name__)


def extract_part(
    files: CaseFiles,
    parameters: Mapping[str, Parameters],
    reading: Reading,
    part: Part,
) -> CaseError | None:
    """Reads one case, extracts it and writes its part; gives the error where that fails.

    A finished part is left alone. A refusal is remembered beside it, a failure of the machine is
    not.

    Raises:
        InputError: the part cannot be written.
    """
    if part.finished():
        return None
    geometry: Sequence[Placement] = ()
    try:
        kinds: dict[str, Kind] = {name: kind_of(name, files.kinds) for name in files.images}
        margin = margin_needed(kinds, parameters, reading.spacing_mm)
        case = read_case(files, **reading._asdict(), margin=margin)
        geometry = case.geometry
        chosen = [parameters_for(parameters, modality) for modality in files.images]
        named = {each.file: each.label for each in chosen if each.label is not None}
        check_taken(files.patient_id, geometry, named, reading.labels or {})
        _check_regions(files, case)
        regions = extract_regions(case, parameters, files=files.images, rois=files.regions)
        check_complete(files, regions, parameters)
    except CaseError as error:
        write_failure(part, error, geometry or [refusal(error, files)])
        return error
    except InputError:
        raise
    except Exception as error:  # one patient never stops a cohort, whatever is wrong with it
        log.debug("patient %s", files.patient_id, exc_info=True)
        return unforeseen(files, error)
    # Outside: a full disk is no patient's fault, and ends the job.
    write_part(part, case, regions)
    return None


def _check_regions(files: CaseFiles, case: Case) -> None:
    """Refuses a case of which no region is left to measure."""
    if not set(files.regions) & case.masks.keys():
        empty = [str(files.masks[roi]) for roi in files.regions]
        raise CaseError(
            files.patient_id,
            empty[0] if empty else "",
            stage="radiomics",
            reason=f"no region: the masks of {', '.join(files.regions)} are empty"
            if empty
            else "no region: every mask cell is blank",
            remedy="Segment a region, or leave out this patient.",
        )


def unforeseen(files: CaseFiles, error: Exception) -> CaseError:
    """What costs a patient that no one thought of."""
    return CaseError(
        files.patient_id,
        "",
        stage="radiomics",
        reason=f"{type(error).__name__}: {error}",
        remedy=(
            "Run again with fewer workers, or with a coarser spacing."
            if isinstance(error, MemoryError)
            else "Look at this patient's images and masks."
        ),
    )
