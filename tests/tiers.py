"""What ``make test-fast`` leaves out: tests that run whole jobs, train, or compile large programs.

A file belongs here when it takes more than about five seconds of processor time; the end of
``make test-fast`` names those that do.
"""

from __future__ import annotations

from pathlib import Path

FOLDERS = {"tests/encoders", "tests/real"}

FILES = {
    "tests/benchmarks": {"ahead", "journey"},
    "tests/cards": {"card", "compare"},
    "tests/cohort": {"bad_input", "factor_phantom", "phantom", "structures"},
    "tests/experiments": {
        "amnesic", "check_first", "cli", "commands", "doctor", "dry_run", "edit",
        "embed_share", "embedded_default", "encoder_kinds", "failures", "layer_flags", "main_job",
        "main_job_context", "main_job_images", "main_job_verdicts", "reuse", "room", "run_folder",
        "table_flags", "training_jobs", "training_pictures", "training_ranks",
    },
    "tests/probes": {"refit", "sweep"},
    "tests/radiomics": {
        "cohort_features", "extract", "honoured", "interruptions", "job", "killed_worker", "mirp",
        "network", "parts", "perturb", "without_pyradiomics", "workers",
    },
    "tests/report": {
        "answer", "answer_text", "browser", "edits_section", "groups", "hostile_names", "papers",
        "patients_section", "rest_section", "sections",
    },
    "tests/rest": {"rest"},
    "tests/study": {"identical", "load", "tables"},
    "tests/verdicts": {"doctor", "fold_features", "held_out"},
    "tests": {
        "anonymise", "comparison", "data_dictionary", "documents", "export_pages", "packaging",
        "public", "scratch", "site",
    },
}  # fmt: skip
"""Folder -> its slow files, without ``test_`` and ``.py``."""


def is_slow(path: Path) -> bool:
    """Whether a file of tests is left out.

    Args:
        path: of the file, from the root of the repository.
    """
    folder = path.parent.as_posix()
    return folder in FOLDERS or path.stem.removeprefix("test_") in FILES.get(folder, ())
