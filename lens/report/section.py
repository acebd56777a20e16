"""A section of the report, and what sections are made from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from lens.report.album import Album
from lens.report.assets import NONE, Assets, united
from lens.report.figures import save
from lens.report.results import Results, TaskTables
from lens.report.words import interval, literal, modality_name, number, p_told, p_value


class Need(NamedTuple):
    """A table of the results that a section is made from.

    Attributes:
        table: a field of `Results`, of its scopes or of its tasks; it must have rows.
        columns: at least one of them must be there; none means that any will do.
    """

    table: str
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """A part of the page.

    A new one is a module with its ``SECTION``, a template, and a line in `lens.report.sections`.

    Attributes:
        name: for people.
        needs: the section is left out where the results lack any of them.
        render: gives the section's HTML.
        assets: styles and scripts that this HTML needs.
    """

    name: str
    needs: tuple[Need, ...]
    render: Callable[[Report], Markup]
    assets: Assets = NONE


class Task(NamedTuple):
    """One task as a section sees it.

    Attributes:
        name: of the task.
        tables: of the task.
        scope: facts of the task's scope, as in ``run.json``.
    """

    name: str
    tables: TaskTables
    scope: dict[str, Any]


@dataclass(frozen=True)
class Report:
    """The results of a run, or of one of its tasks, and the folder of the figures.

    Attributes:
        results: what is shown.
        folder: where figures are written.
        album: pictures of patients.
    """

    results: Results
    folder: Path
    album: Album = field(default_factory=Album)

    @property
    def config(self) -> dict[str, Any]:
        """The settings of the run."""
        return self.results.run["config"]

    @property
    def tasks(self) -> list[Task]:
        """The tasks in the order of the run; one in a section of a single task."""
        results = self.results
        return [
            Task(name, tables, results.scopes[results.run["tasks"][name]].facts)
            for name, tables in results.tasks.items()
        ]

    @property
    def scopes(self) -> list[dict[str, Any]]:
        """The facts of each scope, as in ``run.json``, with its ``name``."""
        return [scope.facts | {"name": name} for name, scope in self.results.scopes.items()]

    def of_task(self, name: str) -> Report:
        """The part about one task and its scope."""
        scope = self.results.run["tasks"][name]
        part = dataclasses.replace(
            self.results,
            scopes={scope: self.results.scopes[scope]},
            tasks={name: self.results.tasks[name]},
        )
        return Report(part, self.folder, self.album)

    def has(self, need: Need) -> bool:
        """Whether the results meet a need."""
        tables = self.results.tables(need.table)
        if need.columns:
            return any(column in table for table in tables for column in need.columns)
        return bool(tables)

    def fill(self, template: str, **content: Any) -> Markup:
        """A template of this package, filled in.

        Args:
            template: its file name.
            content: its variables, besides ``run``, the content of ``run.json``; a name that the
                template uses and nobody gives is an error.
        """
        return Markup(
            templates("lens.report").get_template(template).render(run=self.results.run, **content)
        )

    def draw(self, figure: Figure, name: str) -> str:
        """Saves a figure under `name` (`lens.report.figures.save`), gives the SVG as a data URI."""
        content = save(figure, self.folder, name).read_text("utf-8")
        # Percent signs cost less than base64, above all around pictures that are base64 already.
        return "data:image/svg+xml," + quote(content, safe=" =:/;,+()!*@?$~[]{}|^")


def met(sections: Iterable[Section], report: Report) -> list[Section]:
    """The sections whose needs are met, in their order."""
    return [section for section in sections if all(report.has(need) for need in section.needs)]


def render_sections(sections: Iterable[Section], report: Report) -> list[Markup]:
    """The HTML of the sections whose needs are met, in their order."""
    return [section.render(report) for section in met(sections, report)]


def by_task(name: str, heading: Callable[[Report], Markup], parts: tuple[Section, ...]) -> Section:
    """A section that repeats its parts for every task, a task without any part left out.

    Args:
        name: of the section.
        heading: gives the HTML above the parts of one task.
        parts: sections of a single task: the only one of `Report.tasks`.
    """

    def render(report: Report) -> Markup:
        blocks = []
        for task in report.tasks:
            part = report.of_task(task.name)
            if found := render_sections(parts, part):
                blocks += [heading(part), *found]
        return Markup("\n").join(blocks)

    return Section(name, (), render, united(part.assets for part in parts))


def _shown(value: Any) -> Any:
    """What a template prints: text without unseen characters; HTML of ours as it is."""
    return literal(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def templates(*packages: str) -> jinja2.Environment:
    """The templates of packages, strict and escaped, with what prints numbers and names."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package, ".") for package in packages]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
    )
    environment.filters["number"] = number
    environment.filters["p_value"] = p_value
    environment.filters["modality_name"] = modality_name
    environment.globals["interval"] = interval
    environment.globals["p_told"] = p_told
    return environment
