"""Python commands that start with the packages imported: each a fork of one process that has them.

Imports take longer than most of what the documentation's commands do. Every command is a process
all the same, with its own arguments, folder, output and exit code.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

from tests.pictures import svg_alone

IMPORTED = (
    "torch", "encoders.architectures", "encoders.cohort_embeddings", "encoders.sources",
    "experiments.common.album", "experiments.doctor", "experiments.main_job.analysis",
    "experiments.main_job.check_first", "experiments.main_job.images",
    "experiments.main_job.inputs", "experiments.main_job.sizes", "experiments.sweep",
    "lens.comparison", "lens.probes.refit", "lens.radiomics.cohort_features",
    "lens.radiomics.workers", "lens.report.page", "tyro",
)  # fmt: skip
"""None of them starts a thread or opens a device when it is imported."""

CLIENT = """
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as link:
    link.connect({address!r})
    asked = json.dumps([{words!r} + sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(link, [len(asked).to_bytes(4, "big") + asked], [0, 1, 2])
    code = link.recv(1)
os._exit(code[0] if code else 1)
"""


@contextmanager
def warm_python(folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """Has ``python`` and ``radiomic-lens`` in `folder` answered by forks, until the context ends.

    Args:
        folder: where the two commands are written.
        environment: in which the packages are imported; a command then has its own.
    """
    address = str(folder / "socket")
    for name, words in {
        "python": [],
        "radiomic-lens": ["-m", "experiments.common.commands"],
    }.items():
        code = CLIENT.format(address=address, words=words)
        (folder / f"{name}.py").write_text(code)
        file = folder / name
        file.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{folder}/{name}.py" "$@"\n')
        file.chmod(0o755)
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.warm", address, *IMPORTED], env=environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield
    finally:
        server.communicate()


def serve(address: str, *imported: str) -> None:
    """Imports the modules, then answers commands until the input ends, each in a fork.

    The function returns in the forks alone, to end as a program does. What was imported is left out
    of Python's search for cycles, which would copy all of its memory in every fork.
    """
    for name in imported:
        importlib.import_module(name)
    if "lens.cache" in sys.modules:
        # Reads the sources that every job holds its earlier stages against.
        sys.modules["lens.cache"].code_version("experiments.sweep")
    gc.collect()
    gc.freeze()
    if "lens.report.figures" in sys.modules:
        # What pictures look like is the law of tests.report.test_sections.
        svg_alone(pytest.MonkeyPatch())
    warnings.filterwarnings("ignore", message="os.fork", category=RuntimeWarning)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(address)
        door.listen()
        print("ready", flush=True)
        while door in select.select([door, sys.stdin], [], [])[0]:
            link, _ = door.accept()
            with link:
                # One that waits, and one that is the command: it may call others meanwhile.
                if not os.fork():
                    words, folder, variables, files = _received(link)
                    if command := os.fork():
                        _, status = os.waitpid(command, 0)
                        link.send(bytes([os.waitstatus_to_exitcode(status) % 256]))
                        os._exit(0)
                    break
        else:
            # Their processor time counts once they have been waited for.
            with suppress(ChildProcessError):
                while os.wait():
                    pass
            os._exit(0)
    for to, each in enumerate(files):
        os.dup2(each, to)
        os.close(each)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    end(words)


def _received(link: socket.socket) -> tuple[list[str], str, dict[str, str], list[int]]:
    """A command's words, folder and environment, and where it reads and writes."""
    data, files, *_ = socket.recv_fds(link, 1 << 16, 3)
    size = int.from_bytes(data[:4], "big")
    while len(data) < 4 + size:
        data += link.recv(1 << 16)
    return *json.loads(data[4:]), files


def end(words: list[str]) -> NoReturn:
    """Runs a command and ends the process with its code, but leaves it to the system to free
    what was imported: Python takes longer for that than many a command for all it does."""
    code: object = None
    try:
        run(words)
    except SystemExit as left:
        code = left.code
    except BaseException:
        sys.excepthook(*sys.exc_info())  # pyright: ignore[reportArgumentType]
        code = 1
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit((code or 0) % 256)


def run(words: list[str]) -> None:
    """What ``python WORDS`` does: ``-m module``, ``-c code``, a file, or code from the input."""
    first = words[0] if words else "-"
    if first == "-m":
        sys.argv = words[1:]
        sys.path.insert(0, str(Path.cwd()))
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif first in ("-c", "-"):
        code = words[1] if first == "-c" else sys.stdin.read()
        sys.argv = [first, *words[2 if first == "-c" else 1 :]]
        sys.path.insert(0, "")
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), main.__dict__)
    elif first.startswith("-"):
        os.execv(sys.executable, [sys.executable, *words])
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(first).resolve().parent))
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    serve(*sys.argv[1:])
