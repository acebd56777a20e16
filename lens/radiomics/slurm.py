"""A batch script that runs the extraction on a Slurm cluster."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from lens.radiomics.processes import ONE_THREAD

SCRIPT = """\
#!/bin/bash
# Starts a Dask scheduler and workers on the nodes that Slurm gives, and runs the job on them.
# Edit the lines below for your cluster, then submit it: sbatch FILE. Submitted again after a time
# limit, it goes on where it was. The images and the cache must lie on a shared file system.
# (dask-jobqueue's SLURMCluster is another way: it submits workers one by one as Slurm has room;
# give it protocol="tls://" and its scheduler_address as --scheduler to the command at the end.)
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

# Only who holds this certificate, which lasts as long as the job, speaks to the scheduler and the
# workers. Their HTTP servers, which Dask always starts, answer on their own node alone, and with
# nothing.
DASK=$(mktemp -d "$PWD/.dask-XXXXXX")
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$DASK"' EXIT
FACTS=$DASK/scheduler.json
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=radiomics \\
    -keyout "$DASK/key.pem" -out "$DASK/cert.pem" 2> "$DASK/openssl.log" ||
    {{ cat "$DASK/openssl.log" >&2; exit 1; }}
TLS=DASK_DISTRIBUTED__COMM__TLS__
export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=true "${{TLS}}CA_FILE=$DASK/cert.pem"
for ROLE in SCHEDULER WORKER CLIENT; do
    export "${{TLS}}${{ROLE}}__CERT=$DASK/cert.pem" "${{TLS}}${{ROLE}}__KEY=$DASK/key.pem"
done
export DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES=[] DASK_DISTRIBUTED__WORKER__HTTP__ROUTES=[]
HTTP="--no-dashboard --dashboard-address 127.0.0.1:0"

"$PYTHON" -m dask scheduler --protocol tls --port 0 $HTTP --scheduler-file "$FACTS" &
for _ in $(seq 120); do
    [ -s "$FACTS" ] && break
    sleep 1
done
srun --ntasks="${{SLURM_NTASKS:-1}}" "$PYTHON" -m dask worker --scheduler-file "$FACTS" \\
    --nthreads 1 --memory-limit 0 $HTTP --death-timeout 300 &
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
