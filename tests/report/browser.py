"""A real browser on a page: what it logs, and what it asks for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Browser, Page, sync_playwright


class Opened(NamedTuple):
    """A page in a browser.

    Attributes:
        page: of Playwright.
        complaints: messages on the console, errors, and requests for anything but the file.
    """

    page: Page
    complaints: list[str]

    @property
    def status(self) -> str:
        """What the map says of itself."""
        return self.page.inner_text("#feature-map .status")

    def told(self, text: str) -> None:
        """Waits until the map says so."""
        self.page.locator("#feature-map .status", has_text=text).wait_for()

    def rows(self) -> list[list[str]]:
        """Texts of the table's cells on its present page."""
        return self.page.evaluate(
            "() => [...document.querySelectorAll('#feature-map tbody tr')]"
            ".map((row) => [...row.cells].map((cell) => cell.innerText))"
        )

    def marks(self) -> list[dict[str, Any]]:
        """The features on the map with their places on the screen, in pixels."""
        return self.page.evaluate(
            """() => {
              const { view } = document.getElementById("feature-map");
              const area = document.querySelector("#feature-map canvas").getBoundingClientRect();
              const left = view.origin()[0] + view.padding().left;
              const top = view.origin()[1] + view.padding().top;
              return view.data("features").map((mark) => ({
                index: mark.index, feature: mark.feature, verdict: mark.verdict,
                change: mark.change, beyond: mark.beyond,
                x: area.x + left + view.scale("x")(mark.x),
                y: area.y + top + view.scale("y")(mark.y),
              }));
            }"""
        )


@contextmanager
def browsing() -> Iterator[Browser]:
    """A headless Chromium; a skip with its reason where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opening(browser: Browser, path: Path, *, width: int = 1400, **options: Any) -> Iterator[Opened]:
    """Opens a file; with a map of features, waits for it.

    Args:
        browser: of `browsing`.
        path: of the page.
        width: of the window in pixels.
        options: of Playwright's ``new_context``.
    """
    context = browser.new_context(
        viewport={"width": width, "height": 1000}, reduced_motion="reduce", **options
    )
    context.set_default_timeout(120_000)
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (complaints.append("dialog"), dialog.dismiss()))
    page.on(
        "request",
        lambda request: (
            request.url.startswith(("file:", "data:", "blob:"))
            or complaints.append(f"request: {request.url[:80]}")
        ),
    )
    page.goto(path.as_uri())
    opened = Opened(page, complaints)
    if options.get("java_script_enabled", True):
        opened.told("features shown")
    yield opened
    context.close()
