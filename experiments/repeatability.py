"""How well each radiomic feature repeats, from patients who were scanned or drawn twice.

``python -m experiments.repeatability --table retest.csv --out R-repeatability.csv``
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments.common.cli import DONE, alone, run
from lens.lock import of_file


@dataclass(frozen=True)
class Config:
    """Intraclass correlation ICC(1,1) of every feature over a test-retest table.

    The same table as experiments.radiomics --perturb makes from small changes of the images.
    """

    table: Path
    """Radiomics, .parquet or .csv, with a row per patient and scan: patient_id, repeat (or
    study_id) to tell the scans of a patient apart, and the columns of a radiomics table."""

    out: Path
    """Table to write, .csv or .parquet: column, icc, icc_low, icc_high (95% interval), n
    (patients), repeats."""


@alone(lambda config: of_file(config.out))
def job(config: Config) -> int:
    """Repeats to their correlation; gives the exit code."""
    from lens.files import write_table
    from lens.radiomics.repeatability import repeatability
    from lens.study.repeats import read_test_retest

    table = read_test_retest(config.table)
    result = repeatability(table)
    write_table(result, config.out)
    scans, patients = table["repeat"].nunique(), result["n"].max()
    print(
        f"{patients} patients x {scans} scans, median ICC {result['icc'].median():.2f} "
        f"of {len(result)} columns: {config.out}"
    )
    return DONE


if __name__ == "__main__":
    run(Config, job)
