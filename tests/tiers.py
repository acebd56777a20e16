"""What ``make test-fast`` leaves out: tests that run whole jobs, train, or compile large programs.

A file belongs here when it takes more than about five seconds of processor time; the end of
``make test-fast`` names those that do.
"""

from __future__ import annotations

from pathlib import Path

FOLDERS = {"tests/encoders", "tests/real"}

FILES = {
    "tests/cards": {"card", "compare"},
    "tests/cohort": {"archives", "bad_input", "factor_phantom", "layouts", "phantom"},
    "tests/experiments": {
        "amnesic", "check_first", "cli", "commands", "doctor", "dry_run", "edit",
        "embedded_default", "encoder_kinds", "failures", "layer_flags", "main_job",
        "main_job_context", "main_job_images", "main_job_verdicts", "prepare", "reuse", "room",
        "run_folder", "training_jobs", "training_pictures", "training_ranks", "training_regions",
    },
    "tests/paper": {"shift"},
    "tests/probes": {"decoder", "mlp", "probe", "refit", "sweep"},
    "tests/radiomics": {
        "audit", "cohort_features", "extract", "interruptions", "job", "killed_worker", "mirp",
        "network", "parts", "perturb", "without_pyradiomics", "workers",
    },
    "tests/report": {
        "answer", "browser", "groups", "hostile_names", "papers", "patients_section", "sections",
    },
    "tests/study": {"identical", "load"},
    "tests/verdicts": {
        "calibration", "doctor", "encoding", "estimates", "fitting_time", "held_out", "learning",
        "levels", "mechanism", "nonlinear", "patients", "retraining", "rules",
    },
    "tests": {"anonymise", "comparison", "documents", "packaging", "public", "site"},
}  # fmt: skip
"""Folder -> its slow files, without ``test_`` and ``.py``."""


def is_slow(path: Path) -> bool:
    """Whether a file of tests is left out.

    Args:
        path: of the file, from the root of the repository.
    """
    folder = path.parent.as_posix()
    return folder in FOLDERS or path.stem.removeprefix("test_") in FILES.get(folder, ())
