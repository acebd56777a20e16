"""Every number in the sentences is that of the tables, and no two statements contradict."""

from __future__ import annotations

import dataclasses
import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lens.report import answer_section, doctor_section, largest_changes_section, verdicts_section
from lens.report.answer import answer
from lens.report.answer_text import in_lines
from lens.report.results import Results, read_results
from lens.report.section import Report, render_sections
from lens.report.statements import BADGES, Answer, Group, Statement, TaskAnswer
from tests.report.answers import CALLED, cases, drawn, with_tasks

ORDER = ["lost", "gained", "recoded", "unchanged", "undecided", "absent"]


def numbers_of(text: str) -> list[str]:
    """Numbers of a sentence in their order; words with digits in them, such as R2, are none."""
    plain = re.sub(r"\b(?=\w*[A-Za-z])[\w-]+", " ", text)
    return re.findall(r"−?\d+(?:\.\d+)?%?", plain)


def two(value: float) -> str:
    rounded = f"{value:.2f}"
    return (rounded if float(rounded) else "0.00").replace("-", "−")


def with_ends(row: Any, name: str) -> list[str]:
    return [two(row[name]), two(row[f"{name}_low"]), two(row[f"{name}_high"])]


class Tables:
    """What a task's sentences should say, worked out from its tables alone."""

    def __init__(self, results: Results, task: str) -> None:
        self.features = results.tasks[task].features
        self.levels = results.tasks[task].levels
        self.scope = results.scopes[results.run["tasks"][task]]
        self.level = results.run["config"]["level"]
        self.task = task
        self.count = {v: int((self.features["verdict"] == v).sum()) for v in ORDER}

    @property
    def p(self) -> float:
        return float(self.levels.loc[self.levels["level"] == "task", "p_group"].iloc[0])

    def whole(self) -> list[str]:
        found = [str(len(self.features)), f"{self.p:.4f}"]
        if self.p > self.level:
            singles = (self.count["lost"] + self.count["gained"], self.count["recoded"])
            found += [str(count) for count in singles if count]
        return found

    def headline(self) -> list[str]:
        rows = self.levels[(self.levels["level"] == "modality") & (self.levels["group"] == "all")]
        per_verdict = [int((rows["verdict"] == v).sum()) for v in ORDER]
        changed = len(CALLED)
        more = [str(n - 3 if i < changed else n) for i, n in enumerate(per_verdict) if n > 3]
        if rows["verdict"].isin(["lost", "gained"]).any():
            return more
        single = [str(self.count[v]) for v in CALLED if self.count[v]]
        if single:
            return [str(len(self.features)), *single]
        return [] if self.p <= self.level or not self.told() else more

    def compared(self) -> list[str]:
        facts = self.scope.facts
        scored = [facts["scored"]] if facts["scored"] < facts["patients"] else []
        return [
            *map(str, (len(self.features), facts["patients"], facts["embedding_width"], *scored))
        ]

    def each(self) -> list[str]:
        return [str(count) for count in self.count.values() if count]

    def largest(self, verdict: str) -> list[str]:
        rows = self.features[self.features["verdict"] == verdict]
        rows = rows.iloc[np.argsort(-rows["delta_r2"].abs().to_numpy(), kind="stable")]
        rows = rows[~rows["cluster"].duplicated()][:2]
        return [n for row in rows.to_dict("records") for n in with_ends(row, "delta_r2")]

    def nonlinear(self, verdict: str) -> list[str]:
        mine = self.features["verdict"] == verdict
        return [str(int(mine.sum())), str(int((mine & self.features["linear_only"]).sum()))]

    def known(self) -> tuple[float, float, int, int]:
        doctor = self.scope.doctor
        if doctor.get("form") == "full":
            own = [row["detectable"] for row in doctor["tasks"] if row["task"] == self.task]
            loss = max([*own, doctor["detectable"]])
            return loss, doctor["median_r2"], doctor["explained"], doctor["tested"]
        read = self.features[self.features["p_present_pre"] <= self.level]
        loss, r2 = read["smallest_loss"].median(), read["r2_ridge_pre"].median()
        return (loss if len(read) else np.inf), r2, len(read), len(self.features)

    def told(self) -> bool:
        loss, r2, explained, _ = self.known()
        return explained > 0 and loss <= 0.75 * r2

    def limit(self) -> list[str]:
        loss, r2, explained, of = self.known()
        if not explained:
            found = [str(of)]
        elif np.isinf(loss):
            found = [two(r2), "80%", str(explained), str(of)]
        else:
            found = [two(loss), *([] if self.told() else [two(r2)]), "80%", str(explained), str(of)]
        doctor = self.scope.doctor
        for row in doctor.get("false_alarms", []):
            found += [str(row["alarms"]), str(row["runs"])]
        if drawn := doctor.get("nothing_changed"):
            ends = [f"{100 * drawn[name]:.0f}%" for name in ("low", "high")]
            found += [str(drawn["alarms"]), str(drawn["draws"]), "95%", *ends]
        return found

    def withheld(self) -> list[list[str]]:
        groups = self.features[self.features["withheld"] != ""].groupby("withheld")
        return [
            [str(len(rows)), *(str(n) for v in ORDER if (n := int((rows["verdict"] == v).sum())))]
            for _, rows in groups
        ]


def check_group(group: Group, tables: Tables) -> None:
    modality, roi = group.numbers["modality"], group.numbers["roi"]
    levels = tables.levels[
        (tables.levels["level"] == "modality")
        & (tables.levels["modality"] == modality)
        & (tables.levels["roi"] == roi)
    ]
    row = levels[levels["group"] == "all"].iloc[0]
    assert group.verdict == row["verdict"]
    assert group.name == f"{modality.upper()} {roi}"
    assert numbers_of(group.size) == with_ends(row, "delta_r2_cv")
    own = tables.features.query("modality == @modality and roi == @roi")
    still = group.verdict in ("unchanged", "undecided", "absent")
    others = [v for v in (*CALLED, *(["absent"] if still else [])) if v != group.verdict]
    counts = {v: int((own["verdict"] == v).sum()) for v in ORDER}
    listed = [f"{counts[v]} {v}" for v in others if counts[v]]
    said = f"{counts[group.verdict]} of {len(own)} features {group.verdict}"
    assert group.counts == ", ".join([said, *listed])
    classes = levels[(levels["group"] != "all") & (levels["verdict"] != group.verdict)]
    if still:
        classes = classes[classes["verdict"].isin(CALLED)]
    classes = classes.iloc[np.argsort(classes["verdict"].map(ORDER.index), kind="stable")]
    said = [
        f"{row['group']} {row['verdict']} {a} [{b}, {c}]"
        for row in classes[:3].to_dict("records")
        for a, b, c in [with_ends(row, "delta_r2_cv")]
    ] + ([f"and {len(classes) - 3} more"] if len(classes) > 3 else [])
    assert group.classes == (f"but {', '.join(said)}" if said else "")


def expected(statement: Statement, tables: Tables, results: Results, nth: int) -> list[str]:
    """The numbers of a statement, the nth of its kind, in their order."""
    facts = tables.scope.facts
    verdict = "gained" if re.search(r"gain", statement.text) else "lost"
    collapsed = [
        row for row in facts.get("spectrum", [])
        if row["collapsed"] and row["task"] in ("", tables.task)
    ]  # fmt: skip
    encoders = int(tables.features["retrained"].iloc[0])
    by_kind: dict[str, Callable[[], list[str]]] = {
        "compared": tables.compared,
        "each": tables.each,
        "largest": lambda: tables.largest(verdict),
        "nonlinear": lambda: tables.nonlinear(verdict),
        "limit": tables.limit,
        "withheld": lambda: tables.withheld()[nth],
        "few patients": lambda: [str(facts["scored"])],
        "exposure": lambda: [str(facts["patients"])] if "saw all" in statement.text else [],
        "seeds": lambda: {1: ["3"], 2: ["2", "3"]}.get(encoders, [str(encoders)]),
        "collapse": lambda: [
            f"{100 * collapsed[nth]['leading']:.1f}%",
            f"{collapsed[nth]['effective_rank']:.1f}",
            str(collapsed[nth]["width"]),
        ],
        "warning": lambda: numbers_of(facts["warnings"][nth]),
    }
    return by_kind[statement.kind]()


def check_numbers(results: Results, found: Answer) -> None:
    assert [task.task for task in found.tasks] == [*results.tasks]
    for task in found.tasks:
        tables = Tables(results, task.task)
        assert numbers_of(task.whole.text) == tables.whole()
        assert numbers_of(task.headline.text) == tables.headline(), task.headline.text
        assert len(task.groups) == len(tables.features.groupby(["modality", "roi"]))
        for group in task.groups:
            check_group(group, tables)
        seen: dict[str, int] = {}
        for statement in task.more:
            nth = seen.setdefault(statement.kind, 0)
            wanted = expected(statement, tables, results, nth)
            assert numbers_of(statement.text) == wanted, statement.text
            seen[statement.kind] += 1
        assert {"compared", "each", "limit", "seeds"} <= set(seen)
        assert seen.get("withheld", 0) == len(tables.withheld())


def check_no_contradiction(task: TaskAnswer, results: Results) -> None:
    """Words that exclude each other do not meet, and each is there where the tables say so."""
    tables = Tables(results, task.task)
    words = " ".join([task.headline.text, task.whole.text, *(g.text for g in task.groups)])
    words += " ".join(statement.text for statement in task.more)
    group_called = any(group.verdict in ("lost", "gained") for group in task.groups)
    single = sum(tables.count[v] for v in CALLED)
    by_task = tables.p <= tables.level
    assert sum(tables.count.values()) == len(tables.features)
    assert task.headline.text.startswith("No change is shown") == (
        not (group_called or single or by_task)
    )
    assert task.headline.text.startswith("No change as a whole") == (
        bool(single) and not (group_called or by_task)
    )
    assert ("Not as a whole: no change" in words) == (not by_task)
    assert ("Yes: a change of R2 is shown" in words) == by_task
    assert "no feature changed" not in words
    called = tables.count["lost"] + tables.count["gained"]
    assert ("no single feature can be called" in words) <= (called == 0)
    assert ("none is called" in words) <= (tables.count["gained"] == 0)
    alarms = "false alarms" in words
    something = group_called or bool(single) or by_task
    assert (task.badge.name == "cannot tell") == (alarms or not (something or tables.told()))
    warned = {each.kind for each in task.more if each.warns} - {"limit"}
    if task.badge.name == "pass":
        assert not warned
        assert tables.told()
    if "would have shown" in task.badge.why:
        assert not something


@pytest.fixture(scope="module")
def made(finished: Path) -> dict[str, Results]:
    return cases(read_results(finished))


@pytest.fixture(scope="module")
def said(made: dict[str, Results]) -> dict[str, Answer]:
    return {name: answer(results) for name, results in made.items()}


def test_every_number_is_that_of_the_tables(
    made: dict[str, Results], said: dict[str, Answer]
) -> None:
    for name, results in made.items():
        try:
            check_numbers(results, said[name])
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


@pytest.mark.parametrize("seed", range(12))
def test_numbers_and_words_of_results_at_random(finished: Path, seed: int) -> None:
    results = read_results(finished)
    tables = drawn(results.tasks["cls"], 100 + seed, rois=1 + seed % 4)
    results = with_tasks(results, {"a": tables})
    found = answer(results)
    check_numbers(results, found)
    (task,) = found.tasks
    check_no_contradiction(task, results)


def test_no_two_statements_contradict(made: dict[str, Results], said: dict[str, Answer]) -> None:
    for name, results in made.items():
        for task in said[name].tasks:
            check_no_contradiction(task, results)


BADGE = {
    "nothing found": {"pass", "look", "cannot tell"},
    "cannot tell": {"cannot tell"},
    "nothing read": {"cannot tell"},
    "false alarms": {"cannot tell"},
    "few patients, many left out": {"look", "cannot tell"},
    "collapsed": {"look"},
}


def test_badges_follow_their_rules(said: dict[str, Answer]) -> None:
    for name, allowed in BADGE.items():
        assert {task.badge.name for task in said[name].tasks} <= allowed, name
    badges = {task.badge.name for found in said.values() for task in found.tasks}
    assert badges == set(BADGES), "each is among the cases"


def test_patients_left_out_are_counted_once(
    made: dict[str, Results], said: dict[str, Answer]
) -> None:
    def told(name: str) -> Statement:
        (found,) = [each for each in said[name].notes if each.kind == "left out"]
        return found

    kept = next(iter(made["few left out"].scopes.values())).split["patient_id"].nunique()
    many, few = told("few patients, many left out"), told("few left out")
    assert numbers_of(many.text) == ["63", str(kept + 63), f"{6300 / (kept + 63):.0f}%", "60"]
    assert numbers_of(few.text) == ["2", str(kept + 2), f"{200 / (kept + 2):.0f}%"]
    assert many.warns
    assert not few.warns
    assert not [each for each in said["as it was"].notes if each.kind == "left out"]


def shown(results: Results, folder: Path) -> str:
    """What a reader sees of the page's words, its figures left out."""
    report = Report(results, folder)
    parts = render_sections(
        (answer_section.SECTION, verdicts_section.SECTION, doctor_section.SECTION), report
    )
    for task in results.tasks:
        parts += render_sections((largest_changes_section.SECTION,), report.of_task(task))
    page = re.sub(r"<style>.*?</style>", "", "\n".join(parts), flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).replace("\u00a0", " ").split())


def test_page_and_terminal_say_the_same_and_the_rest_of_the_page_agrees(
    made: dict[str, Results], said: dict[str, Answer], undrawn: list[str], tmp_path: Path
) -> None:
    def squeezed(text: str) -> str:
        return re.sub(r"\s|:", "", text)

    for name, results in made.items():
        page, lines = squeezed(shown(results, tmp_path)), squeezed(in_lines(results))
        for task in said[name].tasks:
            texts = [task.whole.text, task.headline.text, task.badge.why, task.badge.name]
            texts += [each.text for each in task.more]
            texts += [part for g in task.groups for part in (g.name, g.size, g.counts, g.classes)]
            for text in texts:
                assert squeezed(text) in page, (name, text)
                assert squeezed(text) in lines, (name, text)
            tables = Tables(results, task.task)
            called = tables.count["lost"] + tables.count["gained"]
            for found in re.findall(r"otherwayfor(\d+)ofthe(\d+)featuresthat", page):
                assert int(found[0]) <= int(found[1])
                if len(results.tasks) == 1:
                    assert int(found[1]) == called
        for phrase in ("beyonditsinterval", "nofeaturechanged", "nothingchanged."):
            assert phrase not in page, name
        doctor = next(iter(results.scopes.values())).doctor
        told = [Tables(results, task).told() for task in results.tasks]
        if doctor.get("form") == "short":
            assert ("cohortcannotanswer" in page) == (not all(told)), name


def test_the_doctor_names_the_task_that_shows_least(made: dict[str, Results]) -> None:
    (scope,) = made["six tasks"].scopes.values()
    least = max(
        made["six tasks"].tasks, key=lambda task: Tables(made["six tasks"], task).known()[0]
    )
    assert f" on {least}, the task that shows least" in scope.doctor["sentence"]
    (scope,) = made["five regions"].scopes.values()
    assert "shows least" not in scope.doctor["sentence"]


def test_a_wrong_number_would_be_seen(made: dict[str, Results], said: dict[str, Answer]) -> None:
    """The check itself: tables that are not those of the sentences fail it."""
    results = made["five regions"]
    found = said["five regions"].tasks[0]
    features = results.tasks["a"].features.copy()
    at = features.index[features["verdict"] == "undecided"][0]
    features.loc[at, "verdict"] = "lost"
    other = dataclasses.replace(results.tasks["a"], features=features)
    tables = Tables(dataclasses.replace(results, tasks={"a": other}), "a")
    (each,) = [statement for statement in found.more if statement.kind == "each"]
    assert numbers_of(each.text) != tables.each()


def test_statements_carry_their_numbers(made: dict[str, Results], said: dict[str, Answer]) -> None:
    """What a script reads from the structure is what the sentence says."""
    for name, results in made.items():
        for task in said[name].tasks:
            tables = Tables(results, task.task)
            assert task.whole.numbers["p"] == pytest.approx(tables.p)
            for statement in task.more:
                if statement.kind == "each":
                    assert statement.numbers == {v: n for v, n in tables.count.items() if n}
                if statement.kind == "limit":
                    assert statement.numbers["loss"] == pytest.approx(tables.known()[0])
            json.dumps([dict(s.numbers) for s in task.more], default=float)


def test_names_of_groups_are_inert_and_short(finished: Path) -> None:
    results = read_results(finished)
    tables = results.tasks["cls"]
    hostile = {"t2": "x" * 500, "adc": "a\u202eb\n"}
    renamed = dataclasses.replace(
        tables,
        features=tables.features.replace({"modality": hostile}),
        levels=tables.levels.replace({"modality": hostile}),
    )
    (task,) = answer(with_tasks(results, {"cls": renamed})).tasks
    names = [group.name for group in task.groups]
    assert all(len(name) < 130 for name in names)
    assert not set("\u202e\n") & set("".join([*names, task.headline.text]))
    assert pd.Series(names).is_unique


def test_equal_embeddings_are_said_to_be_equal(finished: Path) -> None:
    results = read_results(finished)
    ((name, scope),) = results.scopes.items()
    prints = scope.facts["fingerprints"]
    after = prints["after"] | {"cls": prints["before"]}
    facts = scope.facts | {"fingerprints": prints | {"after": after}}
    told = dataclasses.replace(results, scopes={name: dataclasses.replace(scope, facts=facts)})
    kinds = {task.task: [each.kind for each in task.more] for task in answer(told).tasks}
    assert "same" in kinds["cls"]
    assert "same" not in kinds["same"], "twice the embedding is another one"
    assert not any("same" in [s.kind for s in task.more] for task in answer(results).tasks)
