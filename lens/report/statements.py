"""What the answer is made of: sentences that carry the numbers they were written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

BADGES = {
    "pass": "the answer can be read as it stands",
    "look": "there is an answer, and something to look at before it is believed",
    "cannot tell": "no change is shown, and these patients would not even have shown a "
    "large loss; or too much is called where nothing was taken away",
}
"""Badges of a task, each with its meaning; the rules are those of `lens.report.badges`."""


@dataclass(frozen=True)
class Statement:
    """A sentence written from the tables.

    Attributes:
        kind: what it is about, such as ``limit``.
        text: the sentence, names without unseen characters.
        numbers: what it was written from, unrounded, by name; every number of the text is one of
            them, but for those that are the same in every run, such as the power of 80%.
        warns: whether it is a reason to look before the answer is believed.
    """

    kind: str
    text: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    warns: bool = False


@dataclass(frozen=True)
class Group:
    """What became of the features of one modality and region, in parts for a table and for a line.

    Attributes:
        verdict: of the mean change of R2 over its features.
        name: modality and region.
        size: the mean change with its 95% interval.
        counts: how many of its features have the same verdict by themselves, how many another one
            that speaks of a change, and in a group without a change how many are absent.
        classes: feature classes whose verdict is another one; an empty text without any.
        numbers: what all of this was written from.
    """

    verdict: str
    name: str
    size: str
    counts: str
    classes: str
    numbers: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The parts as one sentence."""
        classes = f"; {self.classes}" if self.classes else ""
        return f"{self.verdict}: {self.name}, R2 {self.size}, {self.counts}{classes}."


@dataclass(frozen=True)
class Badge:
    """Whether an answer can be read as it stands.

    Attributes:
        name: of `BADGES`.
        why: the reasons, in a sentence.
    """

    name: str
    why: str


@dataclass(frozen=True)
class TaskAnswer:
    """The answer on one task.

    Attributes:
        task: its name, without unseen characters.
        badge: how far the answer can be relied on.
        headline: the answer in a few words.
        whole: the test of the task as a whole.
        groups: a row per modality and region, losses first.
        more: what else is known, then what is not, warnings first.
    """

    task: str
    badge: Badge
    headline: Statement
    whole: Statement
    groups: tuple[Group, ...]
    more: tuple[Statement, ...]


@dataclass(frozen=True)
class Answer:
    """What a run found.

    Attributes:
        tasks: in the order of the run.
        notes: about all tasks: patients left out, and notes of the run word for word.
    """

    tasks: tuple[TaskAnswer, ...]
    notes: tuple[Statement, ...]
