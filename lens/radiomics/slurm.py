"""A batch script that runs the extraction on a Slurm cluster."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from lens.radiomics.workers import ONE_THREAD

SCRIPT = """\
#!/bin/bash
# Starts a Dask scheduler and workers on the nodes that Slurm gives, and runs the job on them.
# Edit the lines below for your cluster, then submit it: sbatch FILE. Submitted again after a time
# limit, it goes on where it was. The images and the cache must lie on a shared file system.
# (dask-jobqueue's SLURMCluster is another way: it submits workers one by one as Slurm has room;
# give its scheduler_address as --scheduler to the command at the end.)
#SBATCH --job-name=radiomics
#SBATCH --ntasks=16
#SBATCH --cpus-per-task=1
#SBATCH --mem-per-cpu={megabytes}M
#SBATCH --time=12:00:00
set -euo pipefail

cd {folder}
PYTHON={python}
export {environment}
export DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=0
FACTS=$(mktemp "$PWD/.dask-scheduler-XXXXXX")
rm "$FACTS"
trap 'kill $(jobs -p) 2>/dev/null || true; rm -f "$FACTS"' EXIT

"$PYTHON" -m dask scheduler --port 0 --no-dashboard --scheduler-file "$FACTS" &
for _ in $(seq 120); do
    [ -s "$FACTS" ] && break
    sleep 1
done
srun --ntasks="${{SLURM_NTASKS:-1}}" "$PYTHON" -m dask worker --scheduler-file "$FACTS" \\
    --nthreads 1 --memory-limit 0 --no-dashboard --death-timeout 300 &
ADDRESS=$("$PYTHON" -c "import json, sys; print(json.load(open(sys.argv[1]))['address'])" "$FACTS")

"$PYTHON" -m experiments.radiomics --scheduler "$ADDRESS" {arguments}
"""


def slurm_script(
    arguments: Sequence[str], *, python: str, folder: str, megabytes: int = 2000
) -> str:
    """A ready-to-edit sbatch script.

    Args:
        arguments: of ``experiments.radiomics``, without those about where the work is done.
        python: the interpreter, of an environment that all nodes see.
        folder: where the job runs; relative paths start there.
        megabytes: memory per worker.
    """
    return SCRIPT.format(
        megabytes=megabytes,
        folder=shlex.quote(folder),
        python=shlex.quote(python),
        environment=" ".join(f"{name}={value}" for name, value in ONE_THREAD.items()),
        arguments=shlex.join(arguments),
    )
