"""The page in a browser: it loads in silence, and its map, table, keys, export and print work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser

from lens.report.answer_groups import change
from lens.report.words import label, p_value
from tests.report.browser import Opened, opening

MAP = "#feature-map"


@pytest.fixture
def opened(browser: Browser, finished: Path) -> Iterator[Opened]:
    """The page of two tasks; whatever a test does to it, it must do in silence."""
    with opening(browser, finished / "report.html") as page:
        yield page
        assert page.complaints == []


@pytest.fixture(scope="module")
def features(finished: Path) -> pd.DataFrame:
    return pd.read_parquet(finished / "cls" / "features.parquet")


def number(cell: str) -> float:
    return float(cell.split()[0].replace("−", "-"))


def test_filters_and_search_hold_for_map_and_table(opened: Opened, features: pd.DataFrame) -> None:
    page, total = opened.page, len(features)
    assert opened.status.startswith(f"cls: {total} of {total} features shown")
    assert len(opened.marks()) == total
    page.select_option(f"{MAP} [name=modality]", "=ADC")
    adc = int((features["modality"] == "adc").sum())
    opened.told(f"{adc} of {total} features shown")
    page.fill(f"{MAP} [name=search]", "GLCM adc.gland.wavelet")
    wanted = features["column"].str.contains("adc.gland.wavelet-LLH_glcm", regex=False)
    opened.told(f"{wanted.sum()} of {total} features shown")
    assert {mark["index"] for mark in opened.marks()} == set(features.index[wanted])
    assert len(opened.rows()) == wanted.sum()
    page.click(f"{MAP} button[type=reset]")
    opened.told(f"{total} of {total} features shown")
    for verdict in features["verdict"].unique():
        page.uncheck(f"{MAP} [name=verdict][value={verdict}]")
    opened.told(f"0 of {total} features shown")
    assert opened.rows() == [["No feature matches"]]
    page.click(f"{MAP} button[type=reset]")
    page.fill(f"{MAP} [name=most]", "-0.2")
    opened.told(f"{(features['delta_r2'] <= -0.2).sum()} of {total} features shown")
    page.click(f"{MAP} button[type=reset]")
    page.select_option(f"{MAP} [name=task]", label="same")
    opened.told(f"same: {total} of {total}")


def test_the_table_sorts_by_mouse_and_by_keys(opened: Opened, features: pd.DataFrame) -> None:
    page = opened.page
    head = page.locator(f"{MAP} thead th", has_text="Change of R2")
    head.click()
    page.wait_for_selector(f"{MAP} th[aria-sort=ascending]")
    assert number(opened.rows()[0][4]) == pytest.approx(features["delta_r2"].min(), abs=0.006)
    order = head.locator(".dt-column-order")
    order.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(f"{MAP} th[aria-sort=descending]")
    assert number(opened.rows()[0][4]) == pytest.approx(features["delta_r2"].max(), abs=0.006)
    cells = [number(row[4]) for row in opened.rows()]
    assert cells == sorted(cells, reverse=True)


def test_a_mark_tells_its_name_value_interval_and_verdict(opened: Opened) -> None:
    mark = next(mark for mark in opened.marks() if mark["verdict"] == "lost")
    opened.page.locator(f"{MAP} canvas").scroll_into_view_if_needed()
    mark = next(each for each in opened.marks() if each["index"] == mark["index"])
    opened.page.mouse.move(mark["x"] - 40, mark["y"])
    opened.page.mouse.move(mark["x"], mark["y"], steps=4)
    opened.page.locator("#vg-tooltip-element.visible").wait_for()
    told = opened.page.inner_text("#vg-tooltip-element")
    # Another mark may lie on top of it.
    shown = [each for each in opened.marks() if each["feature"] in told]
    assert shown
    assert any(each["change"] in told and each["verdict"] in told for each in shown)
    assert all("[" in each["change"] for each in shown)


def draw_box(opened: Opened) -> tuple[list[dict], tuple[float, float, float, float]]:
    """Draws a box around the left half of the marks; gives all marks and the box's edges."""
    page = opened.page
    page.locator(f"{MAP} canvas").scroll_into_view_if_needed()
    marks = opened.marks()
    right = float(np.median([mark["x"] for mark in marks])) + 0.5
    left, top = min(m["x"] for m in marks) - 3, min(m["y"] for m in marks) - 3
    bottom = max(m["y"] for m in marks) + 3
    page.mouse.move(right, bottom)
    page.mouse.down()
    page.mouse.move(left, top, steps=6)
    page.mouse.up()
    page.locator(f"{MAP} .status", has_text="in the box").wait_for()
    return marks, (left, top, right, bottom)


def test_a_box_on_the_map_selects_in_the_table(opened: Opened) -> None:
    page = opened.page
    marks, (left, top, right, bottom) = draw_box(opened)
    inside = [mark for mark in marks if left <= mark["x"] <= right]
    assert 0 < len(inside) < len(marks)
    assert f"{len(inside)} in the box" in opened.status
    assert f"of {len(inside)} features" in page.inner_text(f"{MAP} .dt-info")
    assert {row[0] for row in opened.rows()} <= {mark["feature"] for mark in inside}
    page.mouse.dblclick((left + right) / 2, (top + bottom) / 2)
    page.wait_for_function(f"!document.querySelector('{MAP} .status').innerText.includes('box')")


def test_a_box_is_gone_with_its_map(opened: Opened, features: pd.DataFrame) -> None:
    """A map that was replaced hears of a new width no more."""
    page, total = opened.page, len(features)
    draw_box(opened)
    page.click(f"{MAP} button[type=reset]")
    page.wait_for_function(f"!document.querySelector('{MAP} .status').innerText.includes('box')")
    for width in (900, 1100):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(300)
        assert "in the box" not in opened.status
    assert f"of {total} features" in page.inner_text(f"{MAP} .dt-info")


def test_numbers_are_rounded_as_elsewhere_on_the_page(
    opened: Opened, features: pd.DataFrame
) -> None:
    opened.page.select_option(f"{MAP} .dt-length select", "100")
    shown = {row[0]: row[2:6] for row in opened.rows()}
    assert len(shown) == min(100, len(features))
    for row in features.to_dict("records"):
        if cells := shown.get(label(row)):
            for cell, column in zip(
                cells, ("r2_ridge_pre", "r2_ridge_ft", "delta_r2"), strict=False
            ):
                assert cell == change(row, column)
            assert cells[3] == p_value(row["p_maxt"])


def test_what_is_shown_is_saved_as_csv(opened: Opened, features: pd.DataFrame) -> None:
    page = opened.page
    page.uncheck(f"{MAP} [name=verdict][value=lost]")
    kept = features[features["verdict"] != "lost"]
    opened.told(f"{len(kept)} of ")
    with page.expect_download() as download:
        page.click(f"{MAP} .dt-buttons button")
    assert download.value.suggested_filename == "features-cls.csv"
    table = pd.read_csv(download.value.path()).set_index("Column")
    expected = kept.set_index("column").loc[table.index]
    assert len(table) == len(kept)
    assert table["Verdict"].tolist() == expected["verdict"].tolist()
    for name, column in {
        "R2 before": "r2_ridge_pre", "R2 after": "r2_ridge_ft", "Change of R2": "delta_r2",
        "Change of R2, low": "delta_r2_low", "R2 after, high": "r2_ridge_ft_high",
    }.items():  # fmt: skip
        np.testing.assert_allclose(table[name], expected[column], atol=0.00051)


def test_all_is_reached_by_keys(opened: Opened) -> None:
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.url.endswith("#main")
    reached = set()
    page.focus(f"{MAP} [name=task]")
    for _ in range(60):
        reached.add(
            page.evaluate(
                "document.activeElement.name || document.activeElement.type"
                " || document.activeElement.className"
            )
        )
        page.keyboard.press("Tab")
    wanted = {"task", "search", "modality", "roi", "image", "feature_class", "cluster", "least"}
    assert wanted | {"most", "verdict", "view", "reset", "button", "dt-column-order"} <= reached
    page.focus(f"{MAP} button.cluster")
    cluster = page.inner_text(f"{MAP} button.cluster")
    page.keyboard.press("Enter")
    page.wait_for_function(f"document.querySelector('{MAP} [name=cluster]').value === '{cluster}'")
    page.locator(f"{MAP} .status", has_text=re.compile(r": [1-9]\d? of")).wait_for()
    assert {row[6] for row in opened.rows()} == {cluster}
    page.check(f"{MAP} [name=view][value='1']")
    page.wait_for_selector(f"{MAP}[data-view='1']")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_window_cuts_nothing_off(browser: Browser, finished: Path, scheme: str) -> None:
    page_file = finished / "report.html"
    with opening(browser, page_file, width=420, color_scheme=scheme) as opened:
        page = opened.page
        assert page.evaluate("document.documentElement.scrollWidth") <= 420
        paper = page.evaluate("getComputedStyle(document.querySelector('main')).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") is (scheme == "light")
        # What is wider than its place can be scrolled to, by keys too.
        assert page.evaluate(
            "[...document.querySelectorAll('table')].every((table) => "
            "table.clientWidth <= 420 || table.closest('.scroll[tabindex]') !== null)"
        )
        assert opened.complaints == []


def test_paper_has_all_and_fits(browser: Browser, finished: Path, features: pd.DataFrame) -> None:
    with opening(browser, finished / "report.html", width=700) as opened:
        page = opened.page
        page.emulate_media(media="print", color_scheme="dark")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.evaluate("document.documentElement.scrollWidth") <= 700
        assert page.evaluate(
            "[...document.querySelectorAll('main *')].filter((each) => "
            "each.getBoundingClientRect().right > 701).map((each) => each.outerHTML.slice(0, 90))"
        ) == []  # fmt: skip
        assert page.locator("details:not([open])").count() == 0
        assert page.locator(f"{MAP} canvas").is_hidden()
        assert page.locator(".map-on-paper img").first.is_visible()
        assert len(opened.rows()) == len(features)
        ink = page.evaluate("getComputedStyle(document.body).color")
        assert ink == "rgb(28, 36, 48)", "paper is white on a dark screen, too"
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert len(opened.rows()) == 10


def test_without_scripts_the_figure_stands_for_the_map(browser: Browser, finished: Path) -> None:
    with opening(browser, finished / "report.html", java_script_enabled=False) as opened:
        page = opened.page
        assert page.locator(MAP).is_hidden()
        assert page.locator(".map-on-paper img").count() == 2
        assert page.locator(".map-on-paper img").first.is_visible()
        assert page.locator("noscript").is_visible()
        assert page.evaluate("document.querySelector('.map-on-paper img').naturalWidth") > 300
