"""Styles and scripts of the page: written into it, and the only ones that a browser may run."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from markupsafe import Markup

from lens.report import libraries
from lens.report.palette import style_sheet


class Assets(NamedTuple):
    """What a section needs besides its HTML; the page holds each of them once.

    Attributes:
        libraries: names in `lens.report.libraries.LIBRARIES`.
        styles, scripts: files of this package, ``.css`` and ``.js``. A script runs once, after the
            whole page is read and after its libraries, in strict mode and an async
            function of its own.
    """

    libraries: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()
    scripts: tuple[str, ...] = ()


NONE = Assets()
"""Of a section that is HTML alone."""


class Inline(NamedTuple):
    """The assets of a page as text.

    Attributes:
        styles: content of ``<style>`` elements.
        scripts: content of ``<script>`` elements.
        policy: Content-Security-Policy: these scripts by their hashes and no other; nothing is
            loaded from anywhere.
    """

    styles: list[Markup]
    scripts: list[Markup]
    policy: str


def united(several: Iterable[Assets]) -> Assets:
    """All assets in the order in which they are first named, each once."""
    lists = zip(*several, strict=True)
    return Assets(
        *(tuple(dict.fromkeys(name for names in part for name in names)) for part in lists)
    )


def inline(assets: Assets) -> Inline:
    """Reads the assets from the installed packages.

    Raises:
        FileNotFoundError: this package lacks a file.
        RuntimeError: a library is not as its package used to be.
    """
    found = [libraries.library(name) for name in assets.libraries]
    styles = [style_sheet(), _file("page.css")]
    styles += [each.style for each in found if each.style]
    styles += [_file(name) for name in assets.styles]
    ours = ("page.js", *assets.scripts)
    scripts = [each.script for each in found]
    scripts += ["(async () => {\n" + '"use strict";\n' + _file(name) + "})();\n" for name in ours]
    # A browser reads every end of a line as \n, and takes the hash of that.
    scripts = [
        _closed(text, "script").replace("\r\n", "\n").replace("\r", "\n") for text in scripts
    ]
    hashes = " ".join(f"'{_hash(text)}'" for text in scripts)
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return Inline(
        [Markup(_closed(text, "style")) for text in styles],
        [Markup(text) for text in scripts],
        policy,
    )


def packed(name: str, content: Any) -> Markup:
    """A ``<script>`` that no browser runs, with the id `name`, for a script of the page to read.

    It holds JSON, compressed with gzip and written in base64: small, and nothing in it can end the
    element or start another, whatever the names say.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    found = base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
    return Markup('<script type="text/plain" id="{}">{}</script>').format(name, found)


def _closed(text: str, element: str) -> str:
    """A script or style that cannot end its element: in both languages ``<\\/`` means ``</``."""
    return re.sub(
        rf"</(?={element})|<(?=!--)", lambda found: found[0][0] + "\\" + found[0][1:], text
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return "sha256-" + base64.b64encode(digest).decode()


@cache
def _file(name: str) -> str:
    return (resources.files("lens.report") / name).read_text("utf-8")
