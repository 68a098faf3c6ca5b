"""One language: the project speaks in the field's terms, and none of its first, private words is left.

`docs/glossary.md` says what each term means and what stood there before. The old words may stand there,
in the changelog, in the migrations (which are history) and here.
"""

from __future__ import annotations

import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HISTORY = (
    "docs/glossary.md",
    "CHANGELOG.md",
    "LICENSE",
    "atemporal/migrations/versions/",
    "tests/unit/test_vocabulary.py",
)

# Whole words, in whatever case, in every text of the project.
WORDS = """
    books ledgers? unaccounted overstay(s|ed|ing)? cells? candidates? cooled cooling pardon(s|ed)?
    admit(s|ted)? unborn wakeups? wake-ups? bury buried burials? judge?ments? findings blind apart
    flavours? mishaps? fates? dice strikes? struck sabotages? mischief witness(es)? gates? orders moves
"""
PHRASES = r"double[- ]entry|first words?|silent machines?|(chaos|fault) storm|the storm|a storm"
# A turn of a loop; something may still turn into something, and people take turns.
TURN = r"(a|the|each|every|last|one|first|next|no|failed|any|its|whose|this|that|per) turns?"

# Names in Python: as English words some of them are as good as ever.
NAMES = frozenset(
    {
        *("Edge", "Gate", "Standing", "Wait", "Wake", "Wakes", "Wakeups", "about", "act"),
        *("admit", "admitted", "apart", "blind", "books", "buried", "bury", "candidate"),
        *("candidates", "cell", "cells", "dice", "doubled", "edge", "fate", "findings"),
        *("flavour", "gate", "judge", "judgement", "look", "market", "mend", "mischief"),
        *("mishap", "move", "moves", "orders", "overstayed", "pardon", "sabotage", "said"),
        *("standing", "storm", "strike", "told", "trip", "turn", "turns", "unaccounted"),
        *("unsure", "waits", "wakes", "witness", "worker"),
    }
)
# Parts of names, between underscores or capitals, that mean nothing else.
PARTS = frozenset(
    {
        *("books", "bury", "buried", "cell", "cells", "candidate", "candidates", "dice", "fate"),
        *("fates", "findings", "flavour", "judgement", "ledger", "mischief", "mishap", "mishaps"),
        *("overstay", "overstayed", "sabotage", "storm", "unborn", "wakes", "wakeups", "witness"),
    }
)
# A field's first name, which clients may still write; and what EC2 and others call so themselves.
ALIASES = {
    "market": (
        "atemporal/model/",
        "atemporal/cli/",
        "atemporal/tables/",
        "atemporal/twin/",
        "docs/messages.md",
        "docs/schemas/",
        "README.md",
        "tests/",
    ),
    "flavour": ("atemporal/model/", "tests/"),
    "worker": ("benchmarks/peer_runs/oban.py",),
}

_TEXT = re.compile(rf"\b({'|'.join(WORDS.split())}|{PHRASES}|{TURN})\b", re.IGNORECASE)


def in_text(text: str) -> Iterator[tuple[int, str]]:
    """Each old word of a text, with its line."""
    for number, line in enumerate(text.splitlines(), 1):
        for match in _TEXT.finditer(line):
            yield number, match[0]


def in_names(source: str) -> Iterator[tuple[int, str]]:
    """Each old name of a Python source, with its line; also as a part between underscores."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME:
            parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", token.string)
            if token.string.strip("_") in NAMES or PARTS & {part.lower() for part in parts}:
                yield token.start[0], token.string


def _files() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return sorted(
        name
        for name in filter(None, listed.stdout.split("\0"))
        if not name.startswith(HISTORY) and (ROOT / name).is_file()
    )


def _allowed(name: str, word: str) -> bool:
    if name.startswith("findings/") and word == "findings":
        # There the word means what it says: what was found out about other people's software.
        return True
    alias = next((old for old in ALIASES if word.lower().startswith(old)), None)
    return alias is not None and name.startswith(ALIASES[alias])


def test_no_old_word_is_left() -> None:
    left = []
    for name in _files():
        text = (ROOT / name).read_text(errors="replace")
        hits = [*in_text(name), *in_text(text)]
        if name.endswith(".py"):
            hits += in_names(text)
        left += [f"{name}:{line}: {word}" for line, word in hits if not _allowed(name, word)]
    assert not left, f"{len(left)} old words:\n" + "\n".join(left)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The Books do not balance", ["Books"]),
        ("a failed turn, in turn, turns X into Y", ["failed turn"]),
        ("handbooks, cellar, buried_at", []),
    ],
)
def test_an_old_word_is_found_whole(text: str, words: list[str]) -> None:
    assert [word for _, word in in_text(text)] == words


def test_an_old_name_is_found_though_the_word_may_stand_in_a_sentence() -> None:
    source = 'told = "what they said"\n_turn(told)\n'
    assert [word for _, word in in_names(source)] == ["told", "_turn", "told"]
