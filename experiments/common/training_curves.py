"""Curves of a training on disk: ``history.csv`` and TensorBoard's event files."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from encoders.training import Curves


class CurveWriter:
    """Keeps ``history.csv`` and TensorBoard's event files of a run up to date.

    A progress callback (`encoders.Tracking.observe`), to be closed after the last epoch.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._events: _EventFile | None = None

    def __call__(self, curves: Curves) -> None:
        epochs = len(curves.loss)
        self._write_events(curves, epochs, len(curves.step_loss) // epochs)
        self._write_table(curves, epochs, len(curves.step_loss) // epochs)

    def _write_events(self, curves: Curves, epochs: int, steps: int) -> None:
        first = (epochs - 1) * steps
        if self._events is None:
            # What an earlier run wrote beyond its last checkpoint is written again.
            self._events = _EventFile(self._folder / "tensorboard", first + 1)
            if not first and np.isfinite(curves.start):
                self._events.add("loss/validation", curves.start, 0)
        for step in range(first, epochs * steps):
            self._events.add("loss/step", curves.step_loss[step], step + 1)
            self._events.add("rate", curves.rate[step], step + 1)
        self._events.add("loss/train", curves.loss[-1], epochs * steps)
        if np.isfinite(curves.validation[-1]):
            self._events.add("loss/validation", curves.validation[-1], epochs * steps)
        self._events.flush()

    def _write_table(self, curves: Curves, epochs: int, steps: int) -> None:
        import pandas as pd

        from lens.files import write_table

        table = pd.DataFrame(
            {
                "epoch": np.arange(1, epochs + 1),
                "step": np.arange(1, epochs + 1) * steps,
                "train_loss": curves.loss,
                "val_loss": curves.validation,
                "rate": curves.rate[steps - 1 :: steps],
                "best": np.arange(epochs) == curves.best_epoch,
            }
        )
        write_table(table, self._folder / "history.csv")

    def close(self) -> None:
        """Ends the event file."""
        if self._events is not None:
            self._events.close()


class _EventFile:
    """TensorBoard's event file, under a name without the host that tensorboardX puts into it."""

    def __init__(self, folder: Path, first: int) -> None:
        """Opens a file; what earlier ones in the folder say of steps from `first` on is void."""
        with _without_torch():
            from tensorboardX.proto import event_pb2
            from tensorboardX.record_writer import RecordWriter

        self._protocol: Any = event_pb2
        folder.mkdir(parents=True, exist_ok=True)
        self._file = RecordWriter(str(folder / f"events.out.tfevents.{time.time():.6f}"))
        self._write(file_version="brain.Event:2")
        session = self._protocol.SessionLog
        self._write(step=first, session_log=session(status=session.START))

    def add(self, tag: str, value: float, step: int) -> None:
        from tensorboardX.summary import scalar

        self._write(step=step, summary=scalar(tag, value))

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _write(self, **content: Any) -> None:
        event = self._protocol.Event(wall_time=time.time(), **content)
        self._file.write(event.SerializeToString())


@contextmanager
def _without_torch() -> Iterator[None]:
    """tensorboardX loads PyTorch where that is installed, for tensors that it is not given here.

    In a training that is 150 MiB beside the step's arrays, and seconds. None in `sys.modules` is
    what the import statement takes for a package that is not there.
    """
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        del sys.modules["torch"]
