"""The documentation agrees with the code and with itself, and every line of it can be read.

What is generated is fresh, what is named is there (links, tests, modules, decisions, settings), the
one page is one page.
"""

from __future__ import annotations

import fnmatch
import re
import runpy
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from atemporal.settings import Settings
from atemporal.states import Reason
from tests.metrics import documented

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DECISIONS = DOCS / "adr"
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        *(page for page in DOCS.rglob("*.md") if "node_modules" not in page.parts),
        *(ROOT / "services").glob("*/README.md"),
    ]
)
LONGEST = 120
ORIGINAL = "https://github.com/andrerocker/atemporal"

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def _read(name: str) -> str:
    return (DOCS / name).read_text()


def _prose(page: Path) -> Iterator[tuple[int, str]]:
    """A page's lines that are neither of a table nor of a block of code, with their numbers."""
    code = False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.lstrip().startswith("```"):
            code = not code
        elif not code and not line.startswith("|"):
            yield number, line


def _anchors(page: Path) -> set[str]:
    """What a link to the page's headings may be, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}


def _named(pattern: str) -> Iterator[tuple[str, str]]:
    """What the pattern finds in the pages about the present, each with its page."""
    for page in PAGES:
        if page.name != "CHANGELOG.md":
            for name in re.findall(pattern, page.read_text(), re.M):
                yield str(page.relative_to(ROOT)), name


def _metrics() -> set[str]:
    """What `/metrics` shows, by the page that is generated from it."""
    return set(documented())


def _decisions() -> dict[int, Path]:
    return {int(page.name[:4]): page for page in sorted(DECISIONS.glob("[0-9]*.md"))}


def test_what_is_generated_is_fresh() -> None:
    files: dict[Path, str] = runpy.run_path(str(DOCS / "generate.py"))["generated"]()
    stale = [path.name for path, text in files.items() if path.read_text() != text]
    assert not stale, "run: python docs/generate.py"


def test_the_architecture_fits_a_page() -> None:
    assert len(_read("ARCHITECTURE.md").splitlines()) <= 90


def test_every_reason_is_told_with_what_it_means() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (\w+) \| (yes|no) \|", _read("endings.md"), re.M)
    listed = {name: (outcome, fault, again == "yes") for name, outcome, fault, again in rows}
    assert listed == {
        str(one): (str(one.outcome), str(one.fault), one.retryable) for one in Reason
    }


@every_page
def test_no_line_is_too_long(page: Path) -> None:
    # An address can not be broken.
    long = [
        f"{page.name}:{number} has {len(line)} characters"
        for number, line in _prose(page)
        if len(re.sub(r"https?://\S+", "", line)) > LONGEST
    ]
    assert not long, f"no more than {LONGEST}"


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        to = page.parent / path if path else page
        assert to.exists(), f"{page.name} -> {target}"
        assert not anchor or anchor in _anchors(to), f"{page.name} -> {target}"


@every_page
def test_the_original_is_linked_where_it_is_named_first(page: Path) -> None:
    named = re.search(r"\bthe\s+original\b", page.read_text(), re.I)
    if named:
        linked = re.compile(r"the\s+original\]\(" + re.escape(ORIGINAL), re.I)
        assert linked.match(page.read_text(), named.start()), f"link {ORIGINAL} there"


def test_each_number_of_a_guarantee_stands_once_and_in_order() -> None:
    rows = re.findall(r"^\| ([SOAC])(\d+) \|", _read("guarantees.md"), re.M)
    assert {letter for letter, _ in rows} == set("SOAC")
    for letter in "SOAC":
        numbers = [int(number) for one, number in rows if one == letter]
        assert numbers == list(range(1, len(numbers) + 1)), letter


def _named_and_missing(text: str) -> tuple[set[str], list[str]]:
    """What a text names as `file.py` or `file.py::name`, and what of it is not there."""
    named = re.findall(r"`([\w/]+\.py)((?:::\w+)*)`", text)
    missing = []
    for path, names in dict.fromkeys(named):
        file = next((one for one in (ROOT / "tests" / path, ROOT / path) if one.exists()), None)
        source = file.read_text() if file else ""
        defined = all(
            re.search(rf"^\s*(class|def) {name}\b", source, re.M)
            for name in names.split("::")
            if name
        )
        if file is None or not defined:
            missing.append(path + names)
    return {path + names for path, names in named}, missing


def test_what_the_guarantees_name_is_there() -> None:
    named, missing = _named_and_missing(_read("guarantees.md"))
    assert len(named) > 100
    assert not missing


def _threats() -> list[list[str]]:
    """The rows of the table of threats, each in its columns."""
    rows = re.findall(r"^\| (T\d+ \|.+) \|$", _read("security.md"), re.M)
    return [re.split(r" (?<!\\)\| ", row) for row in rows]


def test_each_threat_has_what_stops_it_what_is_left_and_a_test() -> None:
    rows = _threats()
    assert [row[0] for row in rows] == [f"T{number}" for number in range(1, len(rows) + 1)]
    known = set(re.findall(r"^\| (\w+) \| [^|]+ \|$", _read("security.md"), re.M))
    for number, who, *columns in rows:
        assert len(columns) == 4, number
        assert all(column.strip() for column in columns), number
        assert who in known, number
        tests, missing = _named_and_missing(columns[3])
        assert tests, f"{number} has no test"
        assert all((ROOT / "tests" / one.partition("::")[0]).exists() for one in tests), number
        assert not missing, number


def test_what_stops_a_threat_is_there() -> None:
    for number, _, _, stops, _, _ in _threats():
        for path in re.findall(r"`([\w.-]+/[\w./-]+)`", stops):
            assert (ROOT / path).exists(), f"{number}: {path}"


def test_a_threat_that_is_named_is_in_the_table() -> None:
    numbers = {row[0] for row in _threats()}
    assert set(re.findall(r"\bT\d+\b", _read("security.md"))) <= numbers


def test_what_contributors_are_sent_to_is_there() -> None:
    named = re.findall(r"`((?:[\w.]+/)+[\w.]*)`", (ROOT / "CONTRIBUTING.md").read_text())
    # A name in capitals stands for one that is still to be given.
    missing = [path for path in named if path.lower() == path and not (ROOT / path).exists()]
    assert not missing


def test_every_setting_that_is_named_is_there() -> None:
    # A name that ends in * stands for several.
    for page, name in _named(r"\bATEMPORAL_(?!TEST_)([A-Z]\w*\*?)"):
        pattern = name.lower()
        assert fnmatch.filter(Settings.model_fields, pattern), f"{page}: ATEMPORAL_{name}"


def test_every_metric_that_is_named_is_there() -> None:
    metrics = _metrics()
    for page, name in _named(r"`(?:[^`]*\b)?(atemporal_\w+)"):
        assert name in metrics, page


def test_every_make_target_that_is_named_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for page, name in _named(r"(?:^|`)make ([a-z-]+)"):
        assert name in targets, page


def test_decisions_are_numbered_without_holes_and_say_what_they_must() -> None:
    decisions = _decisions()
    assert list(decisions) == list(range(1, len(decisions) + 1))
    assert len(decisions) == len(list(DECISIONS.glob("[0-9]*.md"))), "a number was given twice"
    for number, page in decisions.items():
        text = page.read_text()
        assert text.startswith(f"# {number}. "), page.name
        for part in ("Status", "Context", "Decision", "Consequences"):
            assert re.search(rf"^\*\*{part}\b", text, re.M), f"{page.name} has no {part}"


def test_the_index_of_decisions_is_complete() -> None:
    rows = re.findall(
        r"^\| \[ADR (\d+)\]\((\S+)\) \| (.+) \| (\w+) \|$",
        (DECISIONS / "README.md").read_text(),
        re.M,
    )
    listed = {int(number): (name, title, status) for number, name, title, status in rows}
    written = {}
    for number, page in _decisions().items():
        text = page.read_text()
        title = text.splitlines()[0].partition(". ")[2]
        status = re.findall(r"^\*\*Status\.\*\* (\w+)", text, re.M)[0]
        written[number] = (page.name, title, status.lower())
    assert listed == written


def test_every_decision_that_is_named_is_there() -> None:
    for page, number in _named(r"\bADR (\d+)"):
        assert int(number) in _decisions(), page


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["project"]["dynamic"] == ["version"]
    source = ROOT / project["tool"]["hatch"]["version"]["path"]
    assert re.search(r'^__version__ = "\d+\.\d+\.\d+"$', source.read_text(), re.M)


def test_every_python_that_is_promised_is_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    promised = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert workflow["jobs"]["ci"]["strategy"]["matrix"]["python"] == promised
    assert project["requires-python"] == f">={promised[0]}"


def test_the_hooks_have_no_versions_of_their_own() -> None:
    # What `make lint` installs by constraints.txt is what they run.
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [source["repo"] for source in hooks["repos"]] == ["local"]
    for hook in hooks["repos"][0]["hooks"]:
        assert hook["language"] == "system", hook["id"]
        program = hook["entry"].split()[0]
        assert program in ("make", "shellcheck") or program.startswith(".venv/bin/"), hook["id"]


def test_every_setting_says_what_it_means() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
