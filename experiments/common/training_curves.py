"""Curves of a training on disk: ``history.csv`` and TensorBoard's event files."""

from __future__ import annotations

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
        self._writer: Any = None

    def __call__(self, curves: Curves) -> None:
        epochs = len(curves.loss)
        self._write_events(curves, epochs, len(curves.step_loss) // epochs)
        self._write_table(curves, epochs, len(curves.step_loss) // epochs)

    def _write_events(self, curves: Curves, epochs: int, steps: int) -> None:
        from tensorboardX import SummaryWriter

        first = (epochs - 1) * steps
        if self._writer is None:
            # What an earlier run wrote beyond its last checkpoint is written again.
            self._writer = SummaryWriter(
                str(self._folder / "tensorboard"), purge_step=first + 1, flush_secs=10
            )
        for step in range(first, epochs * steps):
            self._writer.add_scalar("loss/step", curves.step_loss[step], step + 1)
            self._writer.add_scalar("rate", curves.rate[step], step + 1)
        self._writer.add_scalar("loss/train", curves.loss[-1], epochs * steps)
        if np.isfinite(curves.validation[-1]):
            self._writer.add_scalar("loss/validation", curves.validation[-1], epochs * steps)
        self._writer.flush()

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
        if self._writer is not None:
            self._writer.close()
