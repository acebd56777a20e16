"""The embedded default: the job that makes its tables, by form."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from experiments.main_job import factor_default, table_default
from experiments.main_job.inputs import Inputs
from experiments.main_job.plan import Plan

if TYPE_CHECKING:
    from experiments.common.run_record import RunRecord


def from_phantoms(plan: Plan, record: RunRecord) -> Inputs:
    """Phantoms, an encoder, a fine-tuned copy of it per task, and the tables of all of these."""
    return _job(plan).from_phantoms(plan, record)


def stage_names(plan: Plan) -> list[str]:
    """Stages of the embedded default up to its tables, in order."""
    return _job(plan).stage_names(plan)


def are_written(plan: Plan) -> bool:
    """Whether the run folder holds the phantoms already, complete."""
    return _job(plan).are_written(plan)


def _job(plan: Plan) -> ModuleType:
    return table_default if plan.form == "full" else factor_default
