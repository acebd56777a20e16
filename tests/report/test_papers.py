"""What a paper takes from a run: figures, Table 1, methods text, citation."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure

from lens import citation
from lens.files import write_json, write_table
from lens.formulas import read_csv
from lens.report.figures import save
from lens.report.methods import REFERENCES, methods
from lens.report.page import write_report
from lens.report.paper_tables import as_latex, as_markdown, latex, table1
from lens.report.results import read_results
from tests.report.test_hostile_names import HOSTILE

ROOT = Path(__file__).resolve().parents[2]


def test_a_figure_is_saved_thrice_with_fonts_and_the_same_bytes(tmp_path: Path) -> None:
    figure = Figure()
    figure.subplots().set_title("T2 $x$ " + HOSTILE["script"])
    for place in ("one", "other"):
        save(figure, tmp_path / place, "name")
    for suffix in (".pdf", ".svg", ".png"):
        one, other = ((tmp_path / p / f"name{suffix}").read_bytes() for p in ("one", "other"))
        if suffix == ".pdf":  # its fonts come in any order
            assert len(one) == len(other)
        else:
            assert one == other
        assert b"Date" not in one
    pdf = (tmp_path / "one" / "name.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/FontFile2" in pdf, "fonts are embedded, as TrueType"
    assert b"/Type3" not in pdf
    assert b"DejaVuSans" in pdf, "the fonts of the other formats"
    svg = (tmp_path / "one" / "name.svg").read_text("utf-8")
    box = re.search(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf)
    size = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', svg)
    assert box
    assert size
    np.testing.assert_allclose(
        [float(v) for v in box.groups()], [float(v) for v in size.groups()], rtol=1e-3
    )
    assert not re.search(rb"/(JavaScript|JS|OpenAction|URI|Launch)\b", pdf)


def test_png_and_pdf_are_made_again_only_where_they_are_not_the_svgs(tmp_path: Path) -> None:
    figure = Figure()
    axes = figure.subplots()
    files = [tmp_path / f"name{suffix}" for suffix in (".png", ".pdf")]

    def saved() -> list[bytes]:
        save(figure, tmp_path, "name")
        return [file.read_bytes() for file in files]

    first = saved()
    made = [file.stat() for file in files]
    saved()
    kept = [file.stat() for file in files]
    assert [each.st_ino for each in kept] == [each.st_ino for each in made], "not made again"
    for before, after in zip(made, kept, strict=True):
        assert after.st_mtime_ns > before.st_mtime_ns, "of the later run, too"
    for file in files:
        file.write_bytes(b"damaged")
        assert saved() == first
    axes.plot([0, 1], [0, 1])
    assert all(other != one for one, other in zip(first, saved(), strict=True)), "another figure"


def test_table_1_holds_the_numbers_of_every_task(finished: Path) -> None:
    table = table1(read_results(finished))
    assert table.columns == [("cls", "gland"), ("same", "gland")]
    whole = read_csv(finished / "tables" / "table1.csv").set_index(["group", "stage"])
    words = {"pre": "before", "ft": "after", "delta": "change"}
    for task in ("cls", "same"):
        groups = pd.read_csv(finished / task / "groups.csv")
        assert table.groups == list(dict.fromkeys(groups["group"])), "in the paper's order"
        for row in groups.to_dict("records"):
            found = whole.loc[(row["group"], words[row["stage"]])]
            for score, name in (("r2_median", "R2"), ("mse_z_median", "MSE")):
                for end in ("", "_low", "_high"):
                    value = found[f"{task} {row['roi']} {name}{end}"]
                    np.testing.assert_allclose(value, row[f"{score}{end}"], rtol=1e-9)
    cells = {(group, stage): cells for group, stage, cells in table.rows()}
    row = pd.read_csv(finished / "cls" / "groups.csv").iloc[0]
    assert cells["firstorder", "before"][0] == f"{row['r2_median']:.3f}".replace("-", "−")
    assert re.fullmatch(r"−?\d\.\d{3} \[−?\d\.\d{3}, −?\d\.\d{3}\]", cells["glcm", "change"][0])
    facts = read_results(finished).scopes["all"].facts["rows"]
    assert f"{facts['test']} test rows" in table.caption
    assert "50 bootstrap samples" in table.caption


def test_markdown_and_latex_have_a_cell_for_each_value(finished: Path) -> None:
    table = table1(read_results(finished))
    lines = as_markdown(table).splitlines()[2:]
    assert {line.count("|") - line.count("\\|") for line in lines} == {7}
    assert len(lines) == 2 + 3 * len(table.groups)
    check_latex(as_latex(table), columns=6, rows=2 + 3 * len(table.groups))


def check_latex(text: str, columns: int, rows: int) -> None:
    """Braces and environments are closed, and every row has all of its cells."""
    plain = re.sub(r"\\[{}\\&%$#_]", "", re.sub(r"%.*\n", "\n", text.replace("\\%", "")))
    assert plain.count("{") == plain.count("}")
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    found = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(found) == rows
    for line in found:
        spans = [int(each) for each in re.findall(r"\\multicolumn\{(\d+)\}", line)]
        cells = len(re.findall(r"(?<!\\)&", line)) + 1
        assert cells + sum(spans) - len(spans) == columns, line


def test_hostile_names_are_text_in_latex_and_markdown(folder: Path) -> None:
    names = [*HOSTILE.values(), r"\input{/etc/passwd}", "[x", "*x", "a|b", "~^_"]
    groups = pd.read_csv(folder / "cls" / "groups.csv")
    kinds = dict(zip(groups["group"].unique(), names, strict=False))
    groups["group"] = groups["group"].map(lambda name: kinds[name])
    groups["roi"] = names[-4]
    write_table(groups, folder / "cls" / "groups.csv")
    table = table1(read_results(folder))
    text, marked = as_latex(table), as_markdown(table)
    count = len(table.groups)
    check_latex(text, columns=2 + 2 * len(table.columns), rows=2 + 3 * count)
    assert "\u202e" not in text + marked
    assert "<script" not in re.sub(r"\\<script", "", marked)
    assert not re.search(r"\\(input|include|write|immediate|def)\b", latex(names[-5]))
    assert latex("[x") == "{[}x", "no option of the row above"
    assert latex("50% & more") == r"50\% \& more"
    compiled(text, folder)


def compiled(text: str, folder: Path) -> None:
    """The table in a document, where a TeX that reads any letter is installed."""
    engine = shutil.which("lualatex") or shutil.which("xelatex")
    if engine is None:
        return
    head = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}"
    (folder / "try.tex").write_text(f"{head}\n{text}\\end{{document}}\n", encoding="utf-8")
    done = subprocess.run(
        [engine, "-interaction=nonstopmode", "-halt-on-error", "try.tex"],
        cwd=folder, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]


CHANGES: dict[str, Any] = {
    "scores": "raw", "level": 0.013, "margin": 0.047, "equivalence": 0.137, "flips": 4321,
    "bootstraps": 777, "epochs": 233, "batch": 37, "rate": 0.0123, "seed": 976431, "seeds": 13,
    "l1": [0.00371], "l2": [0.00473], "mode": "paper", "adjust": ["size_of_gland"],
    "site": "scanner", "doctor": "full",
}  # fmt: skip


@pytest.mark.parametrize("setting", CHANGES)
def test_every_setting_is_in_the_text(finished: Path, setting: str) -> None:
    results = read_results(finished)
    before = methods(results)
    results.run["config"][setting] = CHANGES[setting]
    after = methods(results)
    assert before != after
    value = CHANGES[setting]
    if isinstance(value, float | int):
        assert f"{value:g}" in after
        assert f"{value:g}" not in before
    if isinstance(value, list):
        assert f"{value[0]:g}" in after if isinstance(value[0], float) else value[0] in after


@pytest.mark.parametrize(
    "fact", ["patients", "columns", "embedding_width", "scored", "folds", "hidden", "repeats"]
)
def test_every_size_is_in_the_text(finished: Path, fact: str) -> None:
    results = read_results(finished)
    facts = results.scopes["all"].facts
    before = methods(results)
    facts[fact] = 7531
    assert "7531" in methods(results)
    assert "7531" not in before


def test_the_text_cites_what_it_lists_in_order(finished: Path) -> None:
    text = methods(read_results(finished))
    body, _, listed = text.partition("## References")
    cited = [int(number) for number in re.findall(r"\[(\d+)\]", body)]
    assert list(dict.fromkeys(cited)) == [*range(1, max(cited) + 1)]
    entries = re.findall(r"^(\d+)\. (.+)$", listed, re.M)
    assert [int(number) for number, _ in entries] == [*range(1, max(cited) + 1)]
    assert {entry for _, entry in entries} <= set(REFERENCES.values())
    run = json.loads((finished / "run.json").read_text("utf-8"))
    assert f"Computed on {run['started'][:10]}" in body
    for name, version in run["versions"].items():
        assert version in body, name


def test_a_single_split_and_no_patient_left_out_read_well(folder: Path) -> None:
    run = json.loads((folder / "run.json").read_text("utf-8"))
    run["scopes"]["all"] |= {"folds": 0, "scored": 24}
    write_json(folder / "run.json", run)
    text = methods(read_results(folder))
    assert "one split by patient (n = 24 test patients)" in text
    assert "cross-validation by patient" not in text


def test_the_page_has_the_text_folded_and_redraws_the_same(
    folder: Path, undrawn: list[str]
) -> None:
    files = ("methods.md", "tables/table1.tex", "tables/table1.md", "tables/table1.csv")
    before = {name: (folder / name).read_bytes() for name in files}
    write_report(folder)
    assert {name: (folder / name).read_bytes() for name in files} == before
    page = (folder / "report.html").read_text("utf-8")
    assert "For a paper" in page
    section = page[page.index("For a paper") :]
    assert "Features were predicted from either embedding" in section
    assert "@software{radiomic_lens," in section
    assert r"\n" not in section[: section.index("</details>")], "lines end as lines"
    assert "<code>card.json</code>" in section


def test_the_citation_is_that_of_the_citation_file() -> None:
    known = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    paper = known["references"][0]
    assert known["message"] == citation.MESSAGE
    assert known["title"] == citation.TITLE
    assert known["license"] == citation.LICENCE
    assert [author["name"] for author in known["authors"]] == [citation.AUTHORS]
    assert paper["title"] == citation.PAPER_TITLE
    assert paper["year"] == citation.PAPER_YEAR
    assert paper["collection-title"] == citation.PAPER_VENUE
    assert [author["family-names"] for author in paper["authors"]] == [citation.PAPER_AUTHOR]
    text = citation.bibtex("1.2.3")
    assert text.count("{") == text.count("}")
    assert "version = {1.2.3}" in text
