"""The page is its list of sections: each is there if, and only if, its tables are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from markupsafe import Markup

from lens.report.page import write_report
from lens.report.results import read_results
from lens.report.section import Need, Report, Section, by_task
from lens.report.sections import SECTIONS


def page(folder: Path, *sections: Section) -> str:
    return write_report(folder, sections).read_text(encoding="utf-8")


def without_scripts(html: str) -> str:
    """The page as it is read; what its own scripts hold is looked at in `test_assets`."""
    return re.sub(r"<(script|style)[^>]*>.*?</\1>", "", html, flags=re.DOTALL)


def one(name: str, *needs: Need) -> Section:
    def render(report: Report) -> Markup:
        return Markup("<h2>{}: {}</h2>").format(name, ", ".join(t.name for t in report.tasks))

    return Section(name, needs, render)


def test_a_section_appended_to_the_list_is_on_the_page_and_the_others_stay(
    folder: Path, undrawn: list[str]
) -> None:
    before = page(folder, *SECTIONS)
    after = page(folder, *SECTIONS, one("A new section"))
    assert "<h2>A new section: cls, same</h2>" not in before
    heading = '<span id="a-new-section-cls-same"></span><h2>A new section: cls, same</h2>'
    line = '<li class="level-2"><a href="#a-new-section-cls-same">A new section: cls, same</a></li>'
    assert after.replace(f"\n{heading}", "").replace(f"{line}\n", "") == before
    assert after.index("<h2>Run facts</h2>") < after.index("<h2>A new section")
    assert len(undrawn) > 10, "the figures of all sections"


@pytest.mark.parametrize(
    ("need", "there"),
    [
        (Need("features"), True),
        (Need("features", ("verdict",)), True),
        (Need("features", ("r2_of_tomorrow", "verdict")), True),
        (Need("features", ("r2_of_tomorrow",)), False),
        (Need("planted"), False),
        (Need("failures"), False),
        (Need("split"), True),
    ],
)
def test_a_section_without_its_tables_is_left_out(folder: Path, need: Need, there: bool) -> None:
    assert Report(read_results(folder), folder).has(need) is there
    assert ("<h2>Guarded:" in page(folder, one("Guarded", Need("split"), need))) is there


def test_a_need_of_no_known_table_is_a_mistake(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="no table is called featuers"):
        Report(read_results(finished), tmp_path).has(Need("featuers"))


def test_the_confounds_are_shown_where_they_were_asked(finished: Path) -> None:
    """They were not here."""
    html = (finished / "report.html").read_text(encoding="utf-8")
    assert "<h3>Confounds</h3>" not in html
    assert html.count("<h3>How much of the embedding is radiomics</h3>") == 2
    assert html.count("<h2>Beyond the verdicts: ") == 2


def test_the_doctors_short_form_is_a_sentence_and_no_figure(
    folder: Path, undrawn: list[str]
) -> None:
    html = page(folder, *SECTIONS)
    content = json.loads((folder / "doctor" / "doctor.json").read_text(encoding="utf-8"))
    assert html.count("<h2>What this cohort can show</h2>") == 1
    assert content["sentence"] in html
    assert "no false-alarm rate was measured" in content["sentence"]
    assert "smallest loss of R2 with 80% power, same" in html
    assert undrawn
    assert not [name for name in undrawn if "doctor" in name]
    assert not (folder / "figures" / "doctor.svg").exists()
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    run["config"]["doctor"] = "off"
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    assert "What this cohort can show" not in page(folder, *SECTIONS)


def test_a_confound_column_brings_its_section(folder: Path, undrawn: list[str]) -> None:
    path = folder / "cls" / "features.parquet"
    table = pd.read_parquet(path)
    for name in ("r2_site_pre", "r2_site_ft", "delta_r2_site"):
        table[name] = 0.25
    table.assign(delta_r2_site_low=0.2, delta_r2_site_high=0.3).to_parquet(path)
    html = page(folder, *SECTIONS)
    assert html.count("<h3>Confounds</h3>") == 1
    assert "<tr><td>at sites that no probe was fitted at</td>" in html
    assert html.index("Beyond the verdicts: cls") < html.index("<h3>Confounds</h3>")


def test_parts_of_a_task_see_that_task_alone_and_an_empty_task_has_no_heading(
    folder: Path,
) -> None:
    table = pd.read_parquet(folder / "cls" / "features.parquet")
    table.assign(extra=1.0).to_parquet(folder / "cls" / "features.parquet")

    def heading(report: Report) -> Markup:
        return Markup("<h2>About {}</h2>").format(*(task.name for task in report.tasks))

    section = by_task("parts", heading, (one("Part", Need("features", ("extra",))),))
    html = page(folder, section)
    assert re.findall(r"<h2>.*</h2>", html) == ["<h2>About cls</h2>", "<h2>Part: cls</h2>"]


def test_names_of_sections_are_distinct() -> None:
    names = [section.name for section in SECTIONS]
    assert len(set(names)) == len(names)


def test_the_page_opens_offline_and_escapes_what_it_shows(folder: Path, undrawn: list[str]) -> None:
    path = folder / "dropped.csv"
    path.write_text("column,reason\nt2.gland.<b>,constant & useless\n")
    html = without_scripts(page(folder, *SECTIONS))
    references = re.findall(r'(?:src|href)="([^"]{0,40})', html)
    assert references
    shown = ("data:image/svg+xml,", "#")
    assert all(reference.startswith(shown) for reference in references)
    assert "<code>t2.gland.&lt;b&gt;</code> (constant &amp; useless)" in html


def test_drawn_twice_is_the_same_to_the_byte(finished: Path, folder: Path) -> None:
    for each in (folder / "figures").iterdir():
        each.unlink()
    page(folder, *SECTIONS)
    for name in ("report.html", *(f"figures/{f.name}" for f in (finished / "figures").iterdir())):
        one, other = ((place / name).read_bytes() for place in (folder, finished))
        # The fonts of a PDF come in any order, and its record tells its hash.
        if name.endswith((".pdf", ".done.json")):
            assert len(one) == len(other)
        else:
            assert one == other, name


def test_what_the_verdicts_do_not_know_is_said_once_a_task(
    folder: Path, undrawn: list[str]
) -> None:
    html = page(folder, *SECTIONS)
    unknown = "Whom fine-tuning saw is not known"
    assert html.count(unknown) == 2
    assert "are too few to tell how far seeds differ" not in html
    path = folder / "cls" / "features.parquet"
    table = pd.read_parquet(path).assign(retrained=2, r2_unexposed_pre=0.5)
    table.to_parquet(path)
    html = page(folder, *SECTIONS)
    assert html.count(unknown) == 1
    assert html.count("2 encoders fine-tuned from different seeds are too few to tell") == 1


@pytest.mark.parametrize(("scores", "words"), [("normal", "normal scores"), ("raw", "own values")])
def test_the_meaning_of_r2_is_said(
    folder: Path, undrawn: list[str], scores: str, words: str
) -> None:
    path = folder / "run.json"
    text = path.read_text(encoding="utf-8").replace('"scores": "normal"', f'"scores": "{scores}"')
    path.write_text(text, encoding="utf-8")
    assert words in page(folder, *SECTIONS).split("<h3>")[0]
