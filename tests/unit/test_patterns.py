"""No text that somebody sends keeps a process busy for longer than its length explains.

Every regular expression of the product that stands by itself is found in its module, is asked in the
ways in which the product asks it, and gets long texts of one piece repeated. The time that counts is the
processor's: four times the text may take about four times as long, and never sixteen.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import atemporal
import services

# What reads no stranger's text, and where it comes from.
OWN_TEXT = {
    "atemporal.cloud.service_model._EC2": "names of botocore's own files",
    "atemporal.local.demo_image._LIBRARY": "what ldd says of a program of this machine",
    "atemporal.price_table._REGION": "one column of the operator's price table",
    "atemporal.cli.admin._KEY": "the operator's own setting",
    "atemporal.cli.masks._URL_PASSWORD": "the operator's own settings",
    "atemporal.compose_env._MARKED": "a line of the file that its user gives on his own machine",
    "atemporal.compose_env._ASSIGNMENT": "a line of the file that its user gives on his own machine",
}
PIECES = (
    *(
        "a",
        "A",
        "0",
        " ",
        "\t",
        "\n",
        "/",
        "-",
        "_",
        ".",
        ":",
        "@",
        "=",
        "+",
        ",",
        "*",
        "?",
        "#",
        "\\",
    ),
    *(
        "'",
        '"',
        "{",
        "}",
        "$",
        "(",
        "[",
        "]",
        "a-",
        "-a",
        "a.",
        "A.",
        "a/",
        "/a",
        "/.",
        "a:",
        "a@",
    ),
    *("a=", "a ", " a", "1w", "1d", "1-", "://", "://:", "://a:", "://a:b", "?token=", "?a.token"),
    *("Bearer ", "export ", "atemporal-log ", "atemporal-log a ", "secret", "2015-04-25T05:27:27"),
    *("\x1b[", "\x1b[3", "${", "#\n", "\\a", "é", "\u2028"),
)
REPEATED = 1_500
WAYS = "fullmatch|match|search|sub|split|findall|finditer"
# Below this a figure is noise; a pattern that takes the square of its text takes far longer.
NOISE_S = 0.02


def _modules() -> Iterator[ModuleType]:
    for package in (atemporal, services):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            # The twin reads what this project itself writes; the others do something when imported.
            if not re.search(r"\.twin\b|\.versions\.|__main__$|migrations\.env$", found.name):
                yield importlib.import_module(found.name)


def _patterns() -> dict[str, tuple[re.Pattern[Any], set[str]]]:
    """Each pattern by its name, with the methods by which the product asks it."""
    found = {}
    sources = []
    for module in _modules():
        source = Path(str(module.__file__)).read_text()
        sources.append(source)
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern) and re.search(rf"^{name}\b.*=", source, re.M):
                found[f"{module.__name__}.{name}"] = value
    every = "\n".join(sources)
    return {
        name: (pattern, set(re.findall(rf"\b{name.rpartition('.')[2]}\.({WAYS})\(", every)))
        for name, pattern in found.items()
    }


PATTERNS = _patterns()


def _asking(pattern: re.Pattern[Any], how: str) -> Callable[[str], object]:
    if how == "sub":
        return lambda text: pattern.sub("", text)
    if how == "finditer":
        return lambda text: list(pattern.finditer(text))
    ask: Callable[[str], object] = getattr(pattern, how)
    return ask


def _seconds(ask: Callable[[str], object], text: str) -> float:
    best = float("inf")
    for _ in range(3):
        begun = time.process_time()
        ask(text)
        best = min(best, time.process_time() - begun)
        if best < NOISE_S:
            break
    return best


def _slow(pattern: re.Pattern[Any], how: str, pieces: Sequence[str] = PIECES) -> Iterator[str]:
    """The pieces whose repetition takes the square of its length, or more."""
    form = pattern.pattern
    if isinstance(form, bytes):
        pattern = re.compile(form.decode("latin-1"), pattern.flags)
    ask = _asking(pattern, how)
    for piece in pieces:
        for end in ("", "\0"):
            longer = _seconds(ask, piece * REPEATED * 4 + end)
            if longer > NOISE_S and longer > 9 * _seconds(ask, piece * REPEATED + end):
                yield repr(piece)


def test_the_patterns_are_found() -> None:
    assert len(PATTERNS) > 40
    assert set(OWN_TEXT) < set(PATTERNS)


@pytest.mark.parametrize("name", sorted(set(PATTERNS) - set(OWN_TEXT)))
def test_a_long_text_takes_no_more_time_than_its_length(name: str) -> None:
    pattern, ways = PATTERNS[name]
    slow = {how: sorted(set(_slow(pattern, how))) for how in ways or {"fullmatch"}}
    assert not any(slow.values()), f"{name} takes the square of: {slow}"


def test_the_check_sees_a_pattern_that_takes_the_square() -> None:
    password = re.compile(r"://[^/@:\s]*:[^\s]*(?=@)")
    assert list(_slow(password, "sub", ["://:"]))
