"""A run record for ``--dry-run``: tells which stages would be reused, runs and writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.common.outlook import Step
from experiments.common.run_record import RunRecord
from lens import cache
from lens.errors import InputError
from lens.files import file_hash, read_table


class Rehearsal(RunRecord):
    """Takes the place of a `RunRecord` while a job goes through its stages.

    Attributes:
        steps: the stages so far, in order.
    """

    dry = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, {})
        self.steps: list[Step] = []
        self._stale = False
        self._awaited: list[Path] = []

    def stage(
        self,
        name: str,
        code: Sequence[str],
        depends: Any,
        outputs: Sequence[Path],
        work: Callable[[], object],
        *,
        lasting: bool = False,
    ) -> None:
        """Notes whether the stage would be reused."""
        reused = not self._stale and self.reusable(name, cache.key(code, depends))
        self._add(name, reused, outputs)

    def to_do(self, name: str, outputs: Iterable[Path] = ()) -> None:
        """Notes a stage whose input is not there yet."""
        self._add(name, False, outputs)

    def content(self, path: Path, hashed: Callable[[Path], str] = file_hash) -> str:
        """Hash of a file or folder; of one that a stage is still to write, what equals no hash."""
        return f"awaited: {path}" if self.awaits(path) else super().content(path, hashed)

    def awaits(self, path: Path) -> bool:
        """Whether a file or folder is not there, or a stage is to write it anew."""
        return not path.exists() or any(path.is_relative_to(each) for each in self._awaited)

    def write_table(self, table: pd.DataFrame, path: Path) -> None:
        """Writes nothing; a table that is not there as it would be written is a change."""
        try:
            self._stale |= (
                not read_table(path).astype(str).equals(table.reset_index(drop=True).astype(str))
            )
        except InputError:
            self._stale = True

    def note(self, stage: str, content: Mapping[str, Any]) -> None:
        """Records nothing."""

    def finish(self, **content: Any) -> None:
        """Records nothing."""

    def clear(self, inputs: Iterable[Path] = ()) -> None:
        """Clears nothing away."""

    @property
    def all_done(self) -> bool:
        """Whether all stages so far would be reused, on the same tables."""
        return not self._stale and all(step.reused for step in self.steps)

    def _add(self, name: str, reused: bool, outputs: Iterable[Path]) -> None:
        self.steps.append(Step(name, reused, seconds=self.seconds_before(name)))
        if not reused:
            self._awaited += outputs
