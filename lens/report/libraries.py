"""Libraries of the page in JavaScript, as installed packages ship them.

Vega, Vega-Lite and Vega-Embed (BSD-3-Clause) come with ``vl-convert-python``, DataTables with
jQuery (MIT) with ``itables``. Nothing is fetched.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import cache
from importlib.metadata import distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from lens.cache import fingerprint, finish, finished
from lens.files import write_text
from lens.user_folders import cache_home


class Library(NamedTuple):
    """Text of a library, with the notes on its licence that it holds.

    Attributes:
        script: defines what the library is called by on ``window``.
        style: its style sheet; empty without one.
    """

    script: str
    style: str = ""


VEGA = """Vega, Vega-Lite, Vega-Embed, Vega-Tooltip: BSD-3-Clause, as below,
Copyright University of Washington Interactive Data Lab and contributors.
D3: ISC, Copyright Mike Bostock. Bundled by vl-convert:"""

VEGA_ENTRY = "window.vegaEmbed = vegaEmbed;"
"""What the page's script calls it by."""

DATATABLES = """DataTables and its extensions: MIT, as below, Copyright SpryMedia Ltd.
jQuery: MIT, Copyright OpenJS Foundation and contributors. The others are named at the end.
Bundled by itables:"""


def vega() -> Library:
    """Vega-Lite with everything it needs: ``window.vegaEmbed``.

    Bundling takes seconds. What came of it is kept in the user's cache folder, where that can be
    written, and taken from there while it is what was kept (`lens.cache`).
    """
    kept = cache_home() / "vega.js"
    key = fingerprint(VEGA_ENTRY, version("vl-convert-python"))
    if finished(kept, key):
        bundle = kept.read_text("utf-8")
    else:
        import vl_convert

        bundle = vl_convert.javascript_bundle(VEGA_ENTRY)
        with suppress(OSError):
            write_text(kept, bundle)
            finish(kept, key)
    return Library(f"{_terms('vl-convert-python', VEGA)}(() => {{\n{bundle}\n}})();\n")


def datatables() -> Library:
    """DataTables with its buttons: ``window.DataTable``.

    Raises:
        RuntimeError: the bundle is not a module with an export of its own.
    """
    spec = find_spec("itables")  # not imported: it would look for a notebook
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "html"
    module = (folder / "dt_bundle.js").read_text("utf-8")
    found = re.search(r"export\{[^}]*?([\w$]+) as default[^}]*\};?", module)
    if found is None:
        raise RuntimeError("itables: dt_bundle.js exports nothing by default")
    script = f"{module[: found.start()]}window.DataTable = {found[1]};{module[found.end() :]}"
    style = (folder / "dt_bundle.css").read_text("utf-8")
    return Library(f"{_terms('itables', DATATABLES)}(() => {{\n{script}\n}})();\n", style)


def _terms(package: str, others: str) -> str:
    """A comment with the licence that a package ships, and whose code its bundle holds."""
    text = distribution(package).read_text("licenses/LICENSE") or ""
    return f"/*\n{others}\n{text.replace('*/', '* /')}\n*/\n"


LIBRARIES = {"vega": vega, "datatables": datatables}


@cache
def library(name: str) -> Library:
    """A library by its name in `LIBRARIES`, read once."""
    return LIBRARIES[name]()
