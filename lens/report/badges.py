"""The badge of a task: pass, look, or cannot tell, each by a rule that a reader can check."""

from __future__ import annotations

from collections.abc import Sequence

from lens.report.answer_limits import Limit
from lens.report.statements import Badge, Statement

WORDS = {
    "collapse": "the embeddings have collapsed",
    "warning": "a warning about the tables or settings",
    "few patients": "few patients",
    "exposure": "gains cannot be told from memory",
    "left out": "many patients left out",
}
"""Kinds of statements that warn, in the words of a reason."""


def badge(changed: bool, found: Limit, statements: Sequence[Statement]) -> Badge:
    """The badge of a task and why, by the first rule that holds.

    - *cannot tell*: changes that take nothing away raised too many false alarms; or nothing is
      shown to change, and these patients would not have shown large losses
      (`lens.report.answer_limits.Limit.told`).
    - *look*: a statement warns; or a change is shown, and large losses may still go unseen.
    - *pass*: neither.

    Args:
        changed: whether a change is shown: by the test of the task, of a group or of a feature.
        found: what the cohort can show.
        statements: of the task and of the run.
    """
    if found.alarms:
        return Badge("cannot tell", "Too much is called where nothing was taken away.")
    if not changed and not found.told:
        return Badge(
            "cannot tell",
            "Even a large loss could go unseen in these patients, so that this says little.",
        )
    kinds = dict.fromkeys(each.kind for each in statements if each.warns)
    reasons = [WORDS[kind] for kind in kinds if kind in WORDS]
    if not found.told:
        reasons.append("more may be lost than these patients can show")
    if reasons:
        return Badge("look", f"Look first: {'; '.join(reasons)}.")
    if changed:
        return Badge("pass", "Nothing speaks against reading this as it stands.")
    return Badge("pass", "These patients would have shown a large loss.")
