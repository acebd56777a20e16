"""What an extraction of radiomics would do and need: for ``--dry-run``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.common.outlook import Step, amount
from lens.cohort import CaseFiles, Cohort
from lens.machine import cpu_count
from lens.radiomics.memory import needs
from lens.radiomics.parameters import Parameters
from lens.radiomics.parts import Reading, parts_of

EXTRACTION_BYTES = 68
"""Bytes, about, of a feature: with its name in the file of a finished case, and in the table."""


def extraction_step(
    name: str,
    cohort: Cohort,
    parameters: Mapping[str, Parameters],
    cache: Path,
    reading: Reading,
    repeats: int = 0,
) -> Step:
    """How many cases an extraction would find done; reads all files once where there is a cache.

    Args:
        name: of the stage.
        cohort: the cases.
        parameters: by modality.
        cache: folder of the finished cases.
        reading: how a case is read.
        repeats: perturbed versions of each case; 0 for the features themselves.
    """
    total = len(cohort.cases)
    if not cache.is_dir():
        return Step(name, note=f"0 of {total} cases done before")
    parts = parts_of(cohort.cases, parameters, cache, reading, progress=True)
    if repeats:
        parts = [part.perturbed(repeats) for part in parts]
    done = sum(part.finished() for part in parts)
    refused = sum(part.failure.finished() for part in parts)
    known = f", {refused} refused before" if refused else ""
    return Step(name, done + refused == total, f"{done} of {total} cases done before{known}")


def extraction_memory(
    workers: int | None,
    cases: Sequence[CaseFiles],
    parameters: Mapping[str, Parameters],
    spacing_mm: tuple[float, float, float],
) -> str:
    """A sentence on the memory of the workers.

    Args:
        workers: that are asked for; None for one per core.
        cases, parameters, spacing_mm: as `lens.radiomics.memory.needs` takes them.
    """
    need = needs(workers or cpu_count(), cases, parameters, spacing_mm)
    fit = "" if need.fit else ", of which even one may not fit"
    return (
        f"radiomics: about {amount(need.each)} in each of {need.workers} process(es){fit}; "
        f"{amount(need.free)} are free"
    )
