"""All that is measured on an accelerator, most important first, each part in its own time.

``python -m benchmarks.accelerator --out FILE`` runs the benchmarks of this package one after
another, each in a process of its own that is ended at its limit, and keeps what each had found by
then in one file. A part that fails or is cut is named there; the others go on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks import harness

QUICK = "--xla_gpu_autotune_level=0"
"""XLA without its search for the fastest kernels, which takes minutes for a network."""


@dataclass(frozen=True)
class Part:
    """A benchmark with its flags.

    Attributes:
        words: module and flags.
        limit: seconds after which it is ended.
        xla: flags of the compiler.
    """

    words: str
    limit: int
    xla: str = ""


PARTS = {
    "sweep": Part(
        "sweep --epochs 40 --turns 2 --more-pairs 256 --peers torch,~fused~Adam"
        " torch,~stack~as~CUDA~graph torch,~loop~of~CUDA~graphs"
        " torch,~compiled~stack~as~CUDA~graph",
        100,
    ),
    "encoder": Part(
        "encoder --batches 4 --precisions tf32 bfloat16 --turns 5 --no-memory --no-backward"
        " --variants ours ours-one-program torch torch-compiled",
        90,
        QUICK,
    ),
    "ridge": Part("ridge --turns 3 --peers torch himalaya", 40),
    "decode": Part(
        "decode --shapes 595 256 2511 5000 512 2511 --conditions 1 --turns 5 --only CUDA card", 40
    ),
    "refit": Part("refit --widths 256 --draws 300 --memory", 45, QUICK),
    "analysis": Part("analysis --sizes 850 2511 1000", 150, QUICK),
    "training": Part(
        "training --size tiny --shapes 32 96 96 --batches 8 --precisions tf32 bfloat16"
        " --jobs classification --variants ours torch torch-compiled --turns 5 --no-memory",
        110,
        QUICK,
    ),
    "sweep, loops": Part(
        "sweep --epochs 20 --turns 2 --peers torch torch,~stack torch,~compiled~loop", 110
    ),
    "sweep, float32": Part(
        "sweep --epochs 100 --turns 2 --precision float32"
        " --peers torch,~stack~as~CUDA~graph torch,~compiled~stack~as~CUDA~graph",
        60,
    ),
}
"""In the order of importance; ``~`` stands for a space within a word."""


@dataclass(frozen=True)
class Config:
    """What runs."""

    parts: tuple[str, ...] = tuple(PARTS)
    """Their names, in this order."""
    seconds: float = 3600
    """In which all must end: a part gets no more than what is left."""
    out: Path = harness.RESULTS / "accelerator.json"
    """Where the figures go, part by part."""


def main(config: Config) -> None:
    """Runs the parts and writes what each gave."""
    end = time.monotonic() + config.seconds
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(config.parts):
            left = end - time.monotonic()
            if left < 10:
                print(f"no time left for {', '.join(config.parts[number:])}", flush=True)
                break
            out = Path(folder, f"{number}.json")
            print(f"== {name}", flush=True)
            start = time.monotonic()
            how = run(PARTS[name], min(PARTS[name].limit, left), out)
            seconds = time.monotonic() - start
            print(f"== {name}: {how} after {seconds:.0f} s", flush=True)
            found: dict[str, Any] = {"ended": how, "seconds": round(seconds, 1)}
            if out.is_file():
                found |= json.loads(out.read_text(encoding="utf-8"))
            harness.record_part(config.out, name, found)


def run(part: Part, limit: float, out: Path) -> str:
    """How a part ended: "done", "cut" at its limit, or its exit code."""
    module, *flags = (word.replace("~", " ") for word in part.words.split())
    command = [sys.executable, "-u", "-m", f"benchmarks.{module}", *flags, "--out", str(out)]
    environment = os.environ | {
        # The peers need memory of the card too.
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.5",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {part.xla}".strip(),
    }
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with the jobs that it started
        process.wait()
        return "cut"
    return "done" if code == 0 else f"exit code {code}"


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
