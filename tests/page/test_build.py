"""The committed build is that of the sources, and its logic holds without a browser."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

from page_bucket_cases import CASES, cases_text

BUILT = Path(__file__).parents[2] / "src" / "infertrace" / "collector" / "page"
MAX_SCRIPT_BYTES = 64 * 1024


def test_the_committed_build_is_fresh(page_tools: Callable[..., str], tmp_path: Path) -> None:
    page_tools("node", "build.mjs", "--out", str(tmp_path))
    fresh = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    committed = {path.name: path.read_bytes() for path in BUILT.iterdir() if path.is_file()}
    assert fresh.keys() == committed.keys()
    stale = [name for name in fresh if fresh[name] != committed[name]]
    assert not stale, f"run `npm ci && npm run build` in page/: {stale}"


def test_the_sources_have_their_types(page_tools: Callable[..., str]) -> None:
    page_tools("npm", "run", "--silent", "types")


def test_the_logic(page_tools: Callable[..., str]) -> None:
    told = page_tools("npm", "test")
    assert "# fail 0" in told
    assert "# skipped 0" in told


def test_the_cases_are_those_of_the_collector() -> None:
    assert CASES.read_text(encoding="utf-8") == cases_text()


def test_the_script_is_small() -> None:
    assert len(gzip.compress((BUILT / "app.js").read_bytes(), 9)) <= MAX_SCRIPT_BYTES


def test_what_is_in_it_is_licensed() -> None:
    text = (BUILT / "THIRD_PARTY_LICENSES.txt").read_text(encoding="utf-8")
    for name in ("preact", "@preact/signals", "@preact/signals-core"):
        assert f"{name} " in text
    assert text.count("MIT") >= 3
