"""Radiomic Lens: what fine-tuning changed in an image encoder, in radiomic features.

The names below are the public functions; each is imported on first use, so that scripts and
worker processes which need only a part do not wait for JAX.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lens.decoder import decode, importance
    from lens.projection import project
    from lens.refits import refit
    from lens.shifts import shift
    from lens.study import Study, load_study
    from lens.sweeps import SweepConfig, sweep

_PUBLIC = {
    "Study": "lens.study",
    "SweepConfig": "lens.sweeps",
    "decode": "lens.decoder",
    "importance": "lens.decoder",
    "load_study": "lens.study",
    "project": "lens.projection",
    "refit": "lens.refits",
    "shift": "lens.shifts",
    "sweep": "lens.sweeps",
}

__all__ = [
    "Study",
    "SweepConfig",
    "decode",
    "importance",
    "load_study",
    "project",
    "refit",
    "shift",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'lens' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
