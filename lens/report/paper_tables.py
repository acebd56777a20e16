"""The paper's Table 1 for a paper: all tasks side by side, as CSV, Markdown and LaTeX.

Laid out as there: a block of rows per feature group, a pair of columns (R2, MSE) per task and
region; before, after, and the change with its interval, which the paper does not have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lens.files import write_table, write_text
from lens.paper.groups import CLASSES, FILTERS
from lens.report.results import PAPER_FOLDER, Results
from lens.report.words import literal, number, short

NAME = "table1"

STAGES = {"pre": "before", "ft": "after", "delta": "change"}
"""Rows of a block."""

SCORES = {"r2_median": "R2", "mse_z_median": "MSE"}
"""Columns of a task and region, with their headings."""

DIGITS = 3

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "_": r"\_", "%": r"\%", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
    "−": r"$-$", "–": "--", "…": r"\dots{}",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table as it is laid out.

    Attributes:
        columns: task and region of each pair of columns.
        groups: feature groups, in the paper's order.
        values: task, region, group and stage -> the row of ``groups.csv``.
        caption: what is shown, of whom, how.
    """

    columns: list[tuple[str, str]]
    groups: list[str]
    values: dict[tuple[str, str, str, str], dict[str, Any]]
    caption: str

    def rows(self) -> Iterator[tuple[str, str, list[str]]]:
        """Group, stage and the cells, as text; a dash where a task has no such group."""
        for group in self.groups:
            for stage, word in STAGES.items():
                yield (
                    group,
                    word,
                    [
                        self._cell(task, roi, group, stage, score)
                        for task, roi in self.columns
                        for score in SCORES
                    ],
                )

    def _cell(self, task: str, roi: str, group: str, stage: str, score: str) -> str:
        row = self.values.get((task, roi, group, stage))
        if row is None:
            return "–"
        value = number(row[score], DIGITS)
        if stage != "delta" or value == "–":
            return value
        low, high = (number(row[f"{score}_{end}"], DIGITS) for end in ("low", "high"))
        return f"{value} [{low}, {high}]"


def table1(results: Results) -> Table:
    """Table 1 of a run, over all of its tasks."""
    values: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    columns: list[tuple[str, str]] = []
    groups: list[str] = []
    for task, tables in results.tasks.items():
        for row in tables.groups.to_dict("records"):
            roi, group, stage = str(row["roi"]), str(row["group"]), str(row["stage"])
            values[task, roi, group, stage] = {str(name): cell for name, cell in row.items()}
            columns.append((task, roi))
            groups.append(group)
    # The paper's classes, other classes and filters as they come, the paper's filters.
    known = (*CLASSES, None, *FILTERS)
    places = {name: at for at, name in enumerate(known)}
    distinct = sorted(dict.fromkeys(groups), key=lambda name: places.get(name, places[None]))
    return Table(list(dict.fromkeys(columns)), distinct, values, _caption(results))


def _caption(results: Results) -> str:
    """Units, n and scheme; the scope of each task where they differ."""
    config = results.run["config"]
    schemes = {}
    for task, scope in results.run["tasks"].items():
        rows = results.scopes[scope].facts["rows"]
        said = f"{rows['train']} train, {rows['val']} validation, {rows['test']} test rows"
        schemes.setdefault(said, []).append(task)
    each = [
        said if len(schemes) == 1 else f"{', '.join(literal(task) for task in tasks)}: {said}"
        for said, tasks in schemes.items()
    ]
    return (
        "Radiomic features read from the embeddings before and after fine-tuning, by feature group "
        "and image filter. R2: share of a feature's variance that is explained in test patients; "
        "MSE: mean squared error over the variance of the train patients (unitless). Medians over "
        "the features of a group; the change is the median of the features' own changes, with its "
        f"95% percentile interval from {config['bootstraps']} bootstrap samples of the test "
        "patients, projection and decoders held fixed. One split by patient "
        f"({'; '.join(each)}); {config['mode']} mode, seed {config['seed']}."
    )


def write_tables(folder: Path, results: Results) -> None:
    """Writes ``tables/table1`` as ``.csv``, ``.md`` and ``.tex``.

    Args:
        folder: of the run.
        results: its tables.
    """
    table = table1(results)
    write_table(as_frame(table), folder / PAPER_FOLDER / f"{NAME}.csv")
    write_text(folder / PAPER_FOLDER / f"{NAME}.md", as_markdown(table))
    write_text(folder / PAPER_FOLDER / f"{NAME}.tex", as_latex(table))


def as_frame(table: Table) -> pd.DataFrame:
    """Numbers in full: ``group, stage``, then ``<task> <roi> <score>`` with its ends."""
    rows = []
    for group in table.groups:
        for stage, word in STAGES.items():
            row: dict[str, Any] = {"group": group, "stage": word}
            for task, roi in table.columns:
                found = table.values.get((task, roi, group, stage), {})
                for score, name in SCORES.items():
                    for end in ("", "_low", "_high"):
                        row[f"{task} {roi} {name}{end}"] = found.get(f"{score}{end}")
            rows.append(row)
    return pd.DataFrame(rows)


def as_markdown(table: Table) -> str:
    """A table of pipes with the caption above."""
    heads = ["Features", ""]
    heads += [_plain(f"{task} {roi}: {name}") for task, roi in table.columns
              for name in SCORES.values()]  # fmt: skip
    lines = [f"**Table 1.** {_plain(table.caption)}", "", _piped(heads)]
    lines.append(_piped(["---", "---", *["---:"] * (len(heads) - 2)]))
    for group, stage, cells in table.rows():
        lines.append(_piped([_plain(group) if stage == "before" else "", stage, *cells]))
    return "\n".join(lines) + "\n"


def as_latex(table: Table) -> str:
    """A float with booktabs' rules; a block of rows per group, columns joined by task and region.

    Names are escaped and cut as in figures, so that none is a command.
    """
    pairs, width = len(table.columns), len(SCORES)
    tasks = [f"\\multicolumn{{{width}}}{{c}}{{{latex(f'{t} {roi}')}}}" for t, roi in table.columns]
    rules = [f"\\cmidrule(lr){{{3 + width * i}-{2 + width * (i + 1)}}}" for i in range(pairs)]
    heads = [latex(name) for _ in table.columns for name in SCORES.values()]
    body: list[str] = []
    for group, stage, cells in table.rows():
        if stage == "before" and body:
            body.append(r"\addlinespace")
        shown = [latex(group) if stage == "before" else "", stage, *map(latex, cells)]
        body.append(" & ".join(shown) + r" \\")
    # A table wider than the page is scaled down to it.
    fitted = pairs > 1
    lines = [
        "% \\usepackage{booktabs}" + (", \\usepackage{graphicx}" if fitted else ""),
        "% XeLaTeX or LuaLaTeX where names have letters that are not Latin.",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex(table.caption, whole=True)}}}",
        r"\label{tab:radiomic-lens}",
        *([r"\resizebox{\textwidth}{!}{%"] if fitted else []),
        rf"\begin{{tabular}}{{ll{'r' * width * pairs}}}",
        r"\toprule",
        f"Features & & {' & '.join(tasks)} \\\\",
        " ".join(rules),
        f" & & {' & '.join(heads)} \\\\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}" + ("}" if fitted else ""),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def latex(text: str, *, whole: bool = False) -> str:
    """Text for LaTeX: what has a meaning there is escaped, what cannot be seen is shown.

    Args:
        text: a name, or a sentence.
        whole: do not cut it where it is long.
    """
    shown = literal(text) if whole else short(text)
    # After the end of a row these two would belong to it.
    first = f"{{{shown[0]}}}" if shown[:1] in ("[", "*") else _LATEX.get(shown[:1], shown[:1])
    shown = first + "".join(_LATEX.get(char, char) for char in shown[1:])
    return re.sub(r"\bR2\b", "$R^2$", shown)


def _plain(text: str) -> str:
    """Text for Markdown, with nothing that it takes for markup."""
    return re.sub(r"([\\`*_{}\[\]<>|#$~])", r"\\\1", literal(text))


def _piped(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
