"""Ctrl-C and other signals to stop: the program ends at once and leaves nothing behind.

What is finished stays and is reused by the next run; what is half written, the lock of the run
folder and the worker processes go. A thread of its own does this, for the main one may be in the
middle of a long computation, and an exception raised there may be lost in a library.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress

from lens.lock import release_all
from lens.unfinished import begin_nothing_more, remove_own

WORDS = {
    "SIGINT": "interrupted",
    "SIGTERM": "told to stop (SIGTERM)",
    "SIGHUP": "told to stop (the terminal was closed)",
}

KILLED = 128
"""Added to the number of the signal, the exit code as shells have it: 130 after Ctrl-C."""


def stop_tidily() -> None:
    """From now on the signals in `WORDS` end the program as said above, within a second or so.

    Those that the program was started to ignore (as ``nohup`` does) stay ignored. To be called
    once, in the main thread.
    """
    # Workers share semaphores; the process that tidies these up after them would warn of each.
    quiet = "ignore::UserWarning:multiprocessing.resource_tracker"
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), quiet]))
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    names = [name for name in WORDS if hasattr(signal, name)]
    numbers = [getattr(signal, name) for name in names]
    caught = [each for each in numbers if signal.getsignal(each) != signal.SIG_IGN]
    for number in caught:
        # Python's handler does nothing: the number arrives in the pipe, whatever Python does.
        signal.signal(number, _noted)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_wait, args=(reading, caught), daemon=True).start()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: _as_before(caught))


def _noted(number: int, frame: object) -> None:
    pass


def _as_before(numbers: list[int]) -> None:
    """In a copy of this process: a signal to it is none to us."""
    signal.set_wakeup_fd(-1)
    for number in numbers:
        signal.signal(number, signal.SIG_DFL)


def _wait(reading: int, caught: list[int]) -> None:
    while True:
        for number in os.read(reading, 64):
            if number in caught:
                _stop(number)


def _stop(number: int) -> None:
    try:
        begin_nothing_more()
        workers = _kill_workers()
        remove_own()
        release_all([os.getpid(), *workers])
        words = WORDS[signal.Signals(number).name]
        text = f"\n{words}: what is finished is kept; the same command goes on from there\n"
        with suppress(OSError):
            os.write(2, text.encode())
        # A library may have opened its file anew meanwhile.
        remove_own()
    finally:
        os._exit(KILLED + number)


def _kill_workers() -> list[int]:
    """Kills what this process started; gives the numbers of those processes."""
    import psutil

    killed = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            # This one ends by itself after us, and tidies up what the others shared.
            if "resource_tracker" in " ".join(child.cmdline()):
                continue
            child.kill()
            killed.append(child)
    psutil.wait_procs(killed, timeout=3)
    return [child.pid for child in killed]
