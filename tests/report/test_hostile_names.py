"""Hostile names: a browser runs no script and asks for nothing; figures draw them as they are."""

from __future__ import annotations

import json
import re
import shutil
import socketserver
import subprocess
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from lens.files import write_table
from lens.report.figures import save, stage_panels
from lens.report.page import write_report
from lens.report.words import LONGEST, literal, short

HOST = "hostile.example"
RUN = "document.documentElement.dataset.ran=6*7"
HOSTILE = {
    "script": f"<script>{RUN}</script>",
    "image": f'"><img src=http://{HOST}/image onerror="{RUN}">',
    "quotes": f"' onmouseover='{RUN}' autofocus onfocus='{RUN}' x='",
    "style": f"</style><link rel=stylesheet href=http://{HOST}/style><style>",
    "svg": f"]]></text><script>{RUN}</script><image href='http://{HOST}/svg'/>",
    "frame": f"<iframe src=http://{HOST}/frame></iframe><meta http-equiv=refresh content=0;url=http://{HOST}/go>",
    "template": "{{ 6*7 }}{% raw %}",
    "mathtext": r"$\alpha_{x}$ $\frac{1}$ 5$",
    "newline": "one\ntwo\r\x0bthree",
    "turned": "a\u202egnal\u202c\u2066b\u200f",
    "long": "name" * 1000,
}  # fmt: skip


def no_dots(text: str) -> str:
    """As part of a column's name, which holds neither dots nor blanks."""
    return "".join("_" if char == "." or char.isspace() else char for char in text)


@pytest.fixture(scope="module")
def hostile(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose every name is hostile, with its page drawn."""
    folder = Path(shutil.copytree(finished, tmp_path_factory.mktemp("hostile") / "run"))
    names = list(HOSTILE.values())
    task = folder / "cls"
    features = pd.read_parquet(task / "features.parquet")
    for number, column in enumerate(("modality", "roi", "image", "feature", "column")):
        features[column] = np.roll(np.resize(np.array(names, object), len(features)), number)
    # A change in each, so that the names are listed and drawn.
    features["verdict"] = np.resize(["lost", "gained", "recoded"], len(features))
    features["cluster"] = np.arange(len(features))
    write_table(features, task / "features.parquet")
    for name in ("groups.csv", "modalities.csv", "levels.csv", "encoding.csv"):
        table = pd.read_csv(task / name, keep_default_na=False, na_values=[""])
        for number, column in enumerate(("modality", "roi", "group", "grouping")):
            if column in table:
                kinds = {
                    kind: names[(i + number) % len(names)]
                    for i, kind in enumerate(table[column].unique())
                }
                keep = {"all": "all", "none": "none"} if column == "group" else {}
                table[column] = table[column].map(kinds | keep)
        write_table(table, task / name)
    rows = [
        {
            "patient_id": name,
            "file": f"/home/{name}.nii",
            "stage": name,
            "reason": name,
            "remedy": name,
        }
        for name in names
    ]
    write_table(pd.DataFrame(rows), folder / "failures.csv")
    write_table(pd.DataFrame({"column": names, "reason": names}), folder / "dropped.csv")
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    run["notes"] = names
    run["inputs"] = dict.fromkeys(names, "0" * 64)
    run["config"] |= {"adjust": names, "site": names[0]}
    run["scopes"]["all"] |= {"notes": names, "warnings": names, "modalities": names, "rois": names}
    # Task names are checked, but a page is also drawn from a folder that somebody else made.
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    write_report(folder)
    return folder


class Proxy(NamedTuple):
    """A proxy that answers nothing.

    Attributes:
        address: of it.
        asked: first lines of the requests.
    """

    address: str
    asked: list[str]

    def ours(self) -> list[str]:
        """Requests for what the names point to; a browser asks for things of its own as well."""
        return [line for line in self.asked if HOST in line]


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    asked: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked.append(self.rfile.readline().decode("latin-1"))
            self.wfile.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Proxy(f"127.0.0.1:{server.server_address[1]}", asked)
        server.shutdown()


def opened(page: Path, proxy: Proxy, folder: Path) -> str:
    """The document after a real browser has opened the page, run its scripts and waited."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("Chromium is not installed")
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={folder / 'profile'}", f"--proxy-server={proxy.address}",
            "--proxy-bypass-list=<-loopback>", "--virtual-time-budget=3000", "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert "<html" in done.stdout or "<svg" in done.stdout, done.stderr
    return done.stdout


def ran(document: str) -> bool:
    return 'data-ran="42"' in document


def test_the_browser_shows_what_an_unsafe_page_does(proxy: Proxy, tmp_path: Path) -> None:
    """Without escapes these names run and ask: what the next test does not see would be seen."""
    unsafe = tmp_path / "unsafe.html"
    unsafe.write_text(f'<html><body>{HOSTILE["script"]}<p title="{HOSTILE["image"]}</body></html>')
    assert ran(opened(unsafe, proxy, tmp_path))
    assert any("/image" in line for line in proxy.ours())


def test_a_page_of_hostile_names_runs_and_asks_nothing(
    hostile: Path, proxy: Proxy, tmp_path: Path
) -> None:
    document = opened(hostile / "report.html", proxy, tmp_path)
    assert "Left out" in document, "the whole page was read"
    assert "&lt;script&gt;" in document, "names are shown"
    assert not ran(document)
    assert not proxy.ours()


def test_the_map_shows_hostile_names_as_text(hostile: Path, browser: Any) -> None:
    from tests.report.browser import opening

    with opening(browser, hostile / "report.html") as opened:
        page = opened.page
        page.select_option("#feature-map .dt-length select", "100")
        shown = page.inner_text("#feature-map tbody")
        assert "<script>" in shown
        assert "onerror=" in shown
        assert r"a\u202egnal\u202c" in shown
        choices = page.locator("#feature-map [name=roi]").evaluate("(each) => each.textContent")
        assert "<iframe" in choices
        before = page.inner_text("#feature-map .status")
        page.fill("#feature-map [name=search]", "<img")
        page.wait_for_function(
            "before => document.querySelector('#feature-map .status').innerText !== before",
            arg=before,
        )
        page.locator("#feature-map canvas").scroll_into_view_if_needed()
        for mark in opened.marks():
            page.mouse.move(mark["x"] - 9, mark["y"])
            page.mouse.move(mark["x"], mark["y"], steps=3)
            page.wait_for_timeout(300)
            if page.locator("#vg-tooltip-element.visible").count():
                break
        page.locator("#vg-tooltip-element.visible").wait_for()
        assert "<img" in page.inner_text("#vg-tooltip-element")
        inside = "#feature-map :is(img, iframe, script, link), #vg-tooltip-element :is(img, iframe)"
        assert page.locator(inside).count() == 0
        assert page.evaluate("document.documentElement.dataset.ran") is None
        assert opened.complaints == []


def test_a_figure_opened_by_itself_runs_and_asks_nothing(
    hostile: Path, proxy: Proxy, tmp_path: Path
) -> None:
    document = opened(hostile / "figures" / "cls-verdicts.svg", proxy, tmp_path)
    assert "script" in document, "names are drawn"
    assert not ran(document)
    assert not proxy.ours()


def test_the_page_has_no_element_of_a_name(hostile: Path) -> None:
    page = (hostile / "report.html").read_text(encoding="utf-8")
    policy = re.findall(r"'sha256-([^'&]*)'|&#39;sha256-([^'&]*)&#39;", page)
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(policy) == len(scripts) >= 4, "of the page and of its libraries"
    page = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", page, flags=re.DOTALL)
    assert "<script" not in page
    assert "<iframe" not in page
    assert f"src=http://{HOST}" not in page.replace("&lt;img src=http://", "").replace(
        "&lt;iframe src=http://", ""
    )
    assert "default-src 'none'" in unescape(page), "the browser is told to load nothing"
    assert "{{ 6*7 }}" in page, "a name is no template"
    assert not set("\u202e\u202c\u2066\u200f\x00") & set(page)
    assert r"a\u202egnal\u202c\u2066b\u200f" in page


def texts(file: Path) -> set[str]:
    """What an SVG writes, after a look that it holds nothing but drawing."""
    root = ET.parse(file).getroot()
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert not tags & {"script", "iframe", "foreignObject", "a", "link", "meta"}, file
    width = float(root.attrib["width"].removesuffix("pt"))
    assert width < 2500, (file, "a long name does not stretch the figure")
    return {element.text for element in root.iter() if element.text}


def test_figures_draw_names_literally(tmp_path: Path) -> None:
    names = list(HOSTILE.values())
    rows = [
        {"group": group, "roi": roi, "stage": stage, "n_features": 3}
        for roi in names[:3]
        for group in names
        for stage in ("pre", "ft", "delta")
    ]
    values = dict.fromkeys(("r2_median", "r2_median_low", "r2_median_high"), 0.5)
    figure = stage_panels(pd.DataFrame(rows).assign(**values), "group", "roi", "R2")
    drawn = texts(save(figure, tmp_path, "names"))
    for name in names:
        assert short(name) in drawn, name
    assert r"one\ntwo\r\x0bthree" in drawn
    assert not set("\u202e\u2066\x00") & set("".join(drawn))


def test_figures_of_a_run_hold_drawing_alone(hostile: Path) -> None:
    drawn = {text for file in (hostile / "figures").glob("cls-*.svg") for text in texts(file)}
    assert any("script" in text.lower() for text in drawn), "hostile names were drawn"


def test_names_are_shown_as_they_are_or_as_escapes() -> None:
    assert literal("T2 Drüse µ $x$ 前立腺") == "T2 Drüse µ $x$ 前立腺"
    assert literal("a\u202eb\n\ud800") == r"a\u202eb\n\ud800"
    assert len(short("x" * 500)) == LONGEST
    assert short("x" * LONGEST) == "x" * LONGEST
