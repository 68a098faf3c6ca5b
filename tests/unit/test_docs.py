"""The documentation's generated parts are up to date, and its one page is one page."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_what_is_generated_is_fresh() -> None:
    files: dict[Path, str] = runpy.run_path(str(DOCS / "generate.py"))["generated"]()
    stale = [path.name for path, text in files.items() if path.read_text() != text]
    assert not stale, "run: python docs/generate.py"


def test_the_architecture_fits_a_page() -> None:
    assert len((DOCS / "ARCHITECTURE.md").read_text().splitlines()) <= 90


def test_links_lead_somewhere() -> None:
    import re

    for page in [DOCS.parent / "README.md", *DOCS.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} -> {target}"
