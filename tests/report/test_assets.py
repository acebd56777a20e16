"""Scripts, styles and data of the page: what a browser may run is known by its hash."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest
from markupsafe import Markup

from lens.report import libraries
from lens.report.assets import NONE, Assets, inline, packed, united
from lens.report.contents import contents
from lens.report.sections import SECTIONS

ENDS = "</script><script>alert(1)</script><!-- <script> ]]> \u2028 \u202e &amp; '\""


def test_data_cannot_end_their_element_and_come_back_as_they_were() -> None:
    html = packed("some-data", {ENDS: [ENDS, 1.5, None]})
    (inner,) = re.findall(r'^<script type="text/plain" id="some-data">(.*)</script>$', html)
    assert re.fullmatch(r"[A-Za-z0-9+/=]+", inner)
    assert json.loads(gzip.decompress(base64.b64decode(inner))) == {ENDS: [ENDS, 1.5, None]}
    assert packed("some-data", [1]) == packed("some-data", [1]), "of no date"
    with pytest.raises(ValueError, match="JSON compliant"):
        packed("some-data", float("nan"))


def test_the_policy_names_every_script_and_nothing_else() -> None:
    found = inline(united(section.assets for section in SECTIONS))
    hashes = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in found.scripts
    ]
    assert re.findall(r"'sha256-([^']+)'", found.policy) == hashes
    assert len(set(hashes)) == len(hashes) >= 4
    directives = dict(part.strip().split(" ", 1) for part in found.policy.split(";"))
    assert directives.pop("default-src") == "'none'"
    assert "unsafe" not in directives.pop("script-src")
    assert directives.pop("style-src") == "'unsafe-inline'"
    assert directives == {"img-src": "data:", "base-uri": "'none'", "form-action": "'none'"}
    for text in found.scripts:
        assert "</script" not in text.lower()
        assert "<!--" not in text
    for text in found.styles:
        assert "</style" not in text.lower()


def test_a_page_holds_the_assets_of_its_sections_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = libraries.Library("window.fake = '</script>';", "b {}")
    monkeypatch.setattr(libraries, "library", lambda name: fake)
    one = Assets(("a",), ("map_section.css",), ("map_section.js",))
    both = united([one, NONE, one, Assets(("a", "b"))])
    assert both == Assets(("a", "b"), ("map_section.css",), ("map_section.js",))
    found = inline(both)
    assert found.scripts[:2] == ["window.fake = '<\\/script>';"] * 2
    assert len(found.scripts) == 4
    assert len(inline(NONE).scripts) == 1


def test_the_libraries_say_under_what_terms_they_are() -> None:
    vega, datatables = libraries.library("vega"), libraries.library("datatables")
    assert "Redistribution and use in source and binary forms" in vega.script[:3000]
    assert "University of Washington" in vega.script[:300]
    assert "Permission is hereby granted, free of charge" in datatables.script[:2500]
    assert "jQuery JavaScript Library" in datatables.script
    assert "window.DataTable =" in datatables.script
    assert "export{" not in datatables.script


def test_the_bundle_is_kept_and_not_trusted_blindly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bundles = []

    def bundle(entry: str) -> str:
        bundles.append(entry)
        return f"/* bundled */ {entry}"

    monkeypatch.setattr("vl_convert.javascript_bundle", bundle)
    first = libraries.vega()
    assert "/* bundled */ window.vegaEmbed = vegaEmbed;" in first.script
    assert libraries.vega() == first
    assert len(bundles) == 1, "kept"
    (kept,) = tmp_path.rglob("vega.js")
    kept.write_text("somebody else's", "utf-8")
    assert libraries.vega() == first
    assert len(bundles) == 2, "bundled again"
    # A file where the folder would be: nothing can be kept there.
    monkeypatch.setenv("XDG_CACHE_HOME", str(kept))
    assert libraries.vega() == first


def test_every_heading_is_in_the_contents_once() -> None:
    text = "<h2>A &lt;b&gt; <i>c</i></h2><p>x</p><h3 class='x'>A b c</h3>"
    text += '<h3 id="own">Z</h3><h2>—</h2>'
    html, entries = contents(text)
    assert [(entry.level, entry.anchor, entry.text) for entry in entries] == [
        (2, "a-b-c", Markup("A &lt;b&gt; c")),
        (3, "a-b-c-2", Markup("A b c")),
        (3, "own", Markup("Z")),
        (2, "section", Markup("—")),
    ]
    assert all(html.count(f'id="{entry.anchor}"') == 1 for entry in entries)
    assert re.sub(r'<span id="[^"]*"></span>', "", html) == text
