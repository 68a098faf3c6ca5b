"""The documentation's generated parts are up to date, and its one page is one page."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from atemporal.states import Reason

DOCS = Path(__file__).parents[2] / "docs"


def _read(name: str) -> str:
    return (DOCS / name).read_text()


def test_what_is_generated_is_fresh() -> None:
    files: dict[Path, str] = runpy.run_path(str(DOCS / "generate.py"))["generated"]()
    stale = [path.name for path, text in files.items() if path.read_text() != text]
    assert not stale, "run: python docs/generate.py"


def test_the_architecture_fits_a_page() -> None:
    assert len(_read("ARCHITECTURE.md").splitlines()) <= 90


def test_every_reason_is_told_with_what_it_means() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (\w+) \| (yes|no) \|", _read("endings.md"), re.M)
    told = {name: (outcome, fault, again == "yes") for name, outcome, fault, again in rows}
    assert told == {str(one): (str(one.outcome), str(one.fault), one.retryable) for one in Reason}


def test_links_lead_somewhere() -> None:
    for page in [DOCS.parent / "README.md", *DOCS.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} -> {target}"
