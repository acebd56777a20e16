"""The page of a run folder: one self-contained HTML file that opens offline."""

from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from lens.files import write_text
from lens.probes.sweep import grid_warnings
from lens.report import figures
from lens.report.context import confounds, encoding_figure, encoding_rows
from lens.report.evidence import evidence, verdict_figure
from lens.report.power import power_figure
from lens.report.ranking import label, rank
from lens.report.results import Results, Scope, TaskTables, read_results
from lens.verdicts.doctor_summary import table
from lens.verdicts.encoding import MAX_ROWS


def write_report(folder: Path) -> Path:
    """Draws the figures of a finished run and writes ``report.html``; gives its path.

    Raises:
        InputError: the folder is not that of a finished run.
    """
    results = read_results(folder)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lens.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["number"] = number
    environment.globals["interval"] = interval
    page = environment.get_template("page.html").render(**_content(results, folder / "figures"))
    write_text(folder / "report.html", page)
    return folder / "report.html"


def number(value: float, digits: int = 2) -> str:
    """A number for people: fixed digits, a true minus sign, a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    # Adding zero turns a rounded minus zero into zero.
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def interval(row: dict[str, Any], name: str, digits: int = 2) -> Markup:
    """Value and ``[low, high]`` of a column that has its interval beside it."""
    low, high = number(row[f"{name}_low"], digits), number(row[f"{name}_high"], digits)
    return Markup("{} <small>[{}, {}]</small>").format(number(row[name], digits), low, high)


def _content(results: Results, folder: Path) -> dict[str, Any]:
    paper = results.run["config"]["mode"] == "paper"
    scopes = {name: _scope(name, scope, folder) for name, scope in results.scopes.items()}
    return {
        "run": results.run,
        "paper": paper,
        "scopes": list(scopes.values()),
        "tasks": [
            _task(name, task, scopes[results.run["tasks"][name]], folder, results.run["config"])
            for name, task in results.tasks.items()
        ],
        "failures": results.failures.to_dict("records"),
    }


def _scope(name: str, scope: Scope, folder: Path) -> dict[str, Any]:
    """The facts of a scope, with the selected penalties and the drawing of its sweep."""
    selected = scope.sweep[scope.sweep["selected"]].iloc[0]
    drawing = "sweep" if scope.facts["folder"] == "." else f"sweep-{name}"
    return scope.facts | {
        "name": name,
        "selected": selected.to_dict(),
        "warnings": grid_warnings(scope.sweep),
        "figure": _embed(figures.sweep_heatmap(scope.sweep), folder, drawing),
        "dropped": scope.dropped.to_dict("records"),
        "doctor": _doctor(scope, folder, drawing.replace("sweep", "doctor")),
    }


def _doctor(scope: Scope, folder: Path, drawing: str) -> dict[str, Any] | None:
    """What the doctor says of the scope; None where it was not asked."""
    if scope.doctor is None:
        return None
    figure = power_figure(scope.plants, scope.doctor["detectable"])
    return scope.doctor | {
        "rows": table(scope.doctor).to_dict("records"),
        "figure": _embed(figure, folder, drawing),
    }


def _task(
    name: str, task: TaskTables, scope: dict[str, Any], folder: Path, config: dict[str, Any]
) -> dict[str, Any]:
    ranking = rank(task.features, paper=config["mode"] == "paper")
    drawings = {
        "groups": figures.group_dumbbells(task.groups),
        "modalities": figures.modality_dumbbells(task.modalities),
        "verdicts": verdict_figure(task.features),
        "encoding": encoding_figure(task.encoding),
    }
    if any(len(rows) for _, rows in ranking.blocks()):
        drawings["features"] = figures.feature_changes(ranking)
    return {
        "name": name,
        "scope": scope,
        "groups": _by_stage(task.groups, ["roi", "group"]),
        "overall": _by_stage(
            task.modalities[task.modalities["group"] == "all"], ["roi", "modality"]
        ),
        "figures": {
            kind: _embed(figure, folder, f"{name}-{kind}") for kind, figure in drawings.items()
        },
        "ranking": [
            (kind, [row | {"label": label(row)} for row in rows.to_dict("records")])
            for kind, rows in ranking.blocks()
        ],
        "similarity": task.similarity.to_dict("records"),
        "value_name": ranking.value_name,
        "called": int((task.features["q_bh_split"] < 0.05).sum()),
        "confounds": confounds(task.features),
        "encoding": encoding_rows(task.encoding),
        "encoding_limit": MAX_ROWS,
        "evidence": evidence(task.features, config["level"], config["margin"]),
    }


def _by_stage(table: pd.DataFrame, keys: list[str]) -> list[dict[str, Any]]:
    """One entry per group with the rows of its stages beside each other."""
    return [
        dict(zip(keys, names, strict=True))
        | {row["stage"]: row for row in rows.to_dict("records")}
        | {"n_features": int(rows["n_features"].iloc[0])}
        for names, rows in table.groupby(keys, sort=False)
    ]


def _embed(figure: Figure, folder: Path, name: str) -> str:
    """Saves a figure and gives its SVG as a data URI."""
    content = figures.save(figure, folder, name).read_bytes()
    return "data:image/svg+xml;base64," + base64.b64encode(content).decode()
