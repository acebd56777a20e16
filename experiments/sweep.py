"""The main job: what did fine-tuning change, in radiomic features?

Input are tables of your own (--pre, --ft, --radiomics), images of your own (--cohort,
--encoder-pre, --encoder-ft) or, without either, an embedded cohort of phantoms, end to end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.common.anonymous import Hidden, check_out
from experiments.common.cli import DONE, alone, list_set_aside, run
from experiments.main_job.config import EXAMPLES, GROUPS, Config
from experiments.main_job.plan import named_files, run_folder, settle
from lens.lock import of_folder

if TYPE_CHECKING:
    from lens.anonymise import Names


def hidden(config: Config) -> Hidden:
    """What is asked to be hidden."""
    return Hidden(
        config.privacy.anonymise, config.privacy.salt, run_folder(config), named_files(config),
        config.analysis.id_column,
    )  # fmt: skip


@alone(lambda config: of_folder(settle(config).out), hidden)
def job(config: Config, names: Names) -> int:
    """Runs the stages, one after another, and gives the exit code."""
    # Imported here so that --help and wrong usage do not wait for JAX.
    from experiments.common.album import album_of
    from experiments.common.run_record import RunRecord
    from experiments.main_job.analysis import analyse
    from experiments.main_job.check_first import check_first
    from experiments.main_job.images import from_cohort
    from experiments.main_job.inputs import PAGE, from_tables
    from experiments.main_job.sizes import check_disk
    from lens.report.page import write_report
    from lens.report.results import PAPER_FILES, PAPER_FOLDER

    plan = settle(config)
    config = plan.config
    if names.hides:
        check_out(plan.out)
    cohort = check_first(plan)
    if config.dry_run:
        from experiments.main_job.dry_run import outlook

        print(outlook(plan, cohort, names))
        return DONE
    if not config.tables.pre:
        check_disk(plan, cohort)
    record = RunRecord(plan.out, plan.flags(), names)
    if config.tables.pre:
        inputs = from_tables(plan, names)
    elif config.images.cohort is not None:
        inputs = from_cohort(plan, record, names)
    else:
        from experiments.main_job.phantoms import from_phantoms

        inputs = from_phantoms(plan, record)
    set_aside = analyse(plan, inputs, record)
    of_page = (PAGE, "figures", PAPER_FOLDER, *PAPER_FILES)
    with record.writing(*(plan.out / name for name in of_page)):
        page = write_report(plan.out, album=album_of(plan.out, images=config.page.images))
    record.clear([*inputs.files(), *plan.files()])
    print(f"report: {page}")
    return list_set_aside(set_aside, plan.out / "failures.csv")


if __name__ == "__main__":
    run(Config, job, groups=GROUPS, examples=EXAMPLES, description=__doc__)
