"""Env files as `docker compose` reads them; and docker's env files that look as if written for it.

Promise: a file means here what it means as an `env_file` of docker compose 2.40 (whose parser is
compose-go 2.9), or it is refused with the number of its line. Values are never in a message. Stricter
than compose: a name is one that every program can have, behind a closing quote may stand a comment only,
and a name alone is one on a last line without a newline too.
Mechanism: one pass over the text, statement by statement. `tests/unit/compose_env.json` holds what the
real compose made of each shape; docs/adr/0027 says why no library does this.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from atemporal.environment import SPACE, check_name

# White space within a line, as compose-go has it: narrower than that between statements.
_BLANKS = "[\t\v\f\r \x85\xa0]"
_TO_VALUE = re.compile(f"{_BLANKS}*")
_TO_STATEMENT = re.compile(f"(?:[{SPACE}]|#[^\n]*)*")
_NAME = re.compile(f"(?:export{_BLANKS}+)?([^=:\n]*)([=:\n]|$)")
_QUOTED = {
    quote: re.compile(rf"{quote}((?:\\.|[^{quote}\\])*){quote}", re.DOTALL) for quote in "'\""
}
_TO_NEWLINE = re.compile("[^\n]*")
_ESCAPE = re.compile(r'\\(?:[abfnrtv$"\\]|0[0-9]{0,3})')
_ESCAPED = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    # A dollar sign is left as `$$` to the substitution that follows.
    '"': '"',
    "\\": "\\",
    "$": "$$",
}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR = re.compile(r":?[-?+]")
_PLAIN = re.compile(r"[^$}\n]+")

_ASSIGNMENT = re.compile(r"\s*(export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)", re.DOTALL)
_MARKED = re.compile(r"""\s*(['"]).*\1\s*(?:#.*)?|.* #.*|.*\$\{.*""", re.DOTALL)


class Suspect(NamedTuple):
    """A line that docker and compose read differently."""

    line: int
    name: str


def suspects(text: str) -> Iterator[Suspect]:
    """The lines of an env file that look as if written for compose: quotes, comments, `${`, `export`."""
    for number, line in enumerate(text.split("\n"), start=1):
        assignment = _ASSIGNMENT.fullmatch(line)
        if assignment and (assignment[1] or _MARKED.fullmatch(assignment[3])):
            yield Suspect(number, assignment[2])


def parse(
    text: str, *, own: Callable[[str], str | None], before: Mapping[str, str]
) -> dict[str, str]:
    """Read an env file by compose's rules, behind the files that gave `before`; return both together.

    `own` gives the caller's own value of a name: a name alone takes it, and where a value refers to a
    name it wins over what the files say.

    Raises:
        ValueError: a bad name, a quote or a `${` that is not closed, a variable that has to be set.
    """
    env = dict(before)
    at, line, begun = (1 if text.startswith("\ufeff") else 0), 1, 0

    def known(name: str) -> str | None:
        mine = own(name)
        return env.get(name) if mine is None else mine

    while (at := _end(_TO_STATEMENT, text, at)) < len(text):
        line, begun = line + text.count("\n", begun, at), at
        where = f"line {line}"
        statement = _NAME.match(text, at)
        assert statement, "the expression fits any text"
        name, at = statement[1].strip(SPACE), statement.end()
        check_name(name, where)
        if statement[2] in ("", "\n"):
            if (mine := own(name)) is not None:
                env[name] = mine
            continue
        at = _end(_TO_VALUE, text, at)
        quote = text[at : at + 1]
        if quote not in _QUOTED:
            value = text[at : (at := _end(_TO_NEWLINE, text, at))]
            env[name] = _substitute(value.partition(" #")[0].rstrip(SPACE), known, where)
            continue
        quoted = _QUOTED[quote].match(text, at)
        if quoted is None:
            raise ValueError(f"{where}: the quote before the value of {name} is not closed")
        at = quoted.end()
        behind = text[at : (at := _end(_TO_NEWLINE, text, at))].strip(SPACE)
        if behind and not behind.startswith("#"):
            raise ValueError(f"{where}: there is more than a comment behind the value of {name}")
        value = re.sub(rf"\\({quote})|(\\.)", r"\1\2", quoted[1], flags=re.DOTALL)
        if quote == '"':
            value = _substitute(_ESCAPE.sub(_unescaped, value), known, where)
        env[name] = value
    return env


def _end(expression: re.Pattern[str], text: str, at: int) -> int:
    """Where the longest match that begins at `at` ends."""
    match = expression.match(text, at)
    return match.end() if match else at


def _unescaped(escape: re.Match[str]) -> str:
    code = escape[0][1:]
    if not code.startswith("0"):
        return _ESCAPED[code]
    # Three octal digits are a character; of others compose drops the zero.
    is_octal = re.fullmatch("[0-3][0-7]{2}", code[1:])
    return chr(int(code, 8)) if is_octal else f"\\{code[1:]}"


def _substitute(value: str, known: Callable[[str], str | None], where: str) -> str:
    """Put values in the place of `$NAME`, `${NAME}`, `${NAME:-default}` and its kin."""
    try:
        return _substituted(value, 0, known, where, inner=False)[0]
    except RecursionError:
        raise ValueError(f"{where}: its ${{ are nested too deeply") from None


def _substituted(
    value: str, at: int, known: Callable[[str], str | None], where: str, *, inner: bool
) -> tuple[str, int]:
    """The text from `at` on, to the end or, if `inner`, to the brace that closes; and where that is."""
    done = []
    while at < len(value):
        if inner and value[at] in "}\n":
            break
        if plain := _PLAIN.match(value, at):
            done.append(plain[0])
            at = plain.end()
        elif value.startswith("$$", at):
            done.append("$")
            at += 2
        elif value[at] == "$" and (name := _VARIABLE.match(value, at + 1)):
            done.append(known(name[0]) or "")
            at = name.end()
        elif value.startswith("${", at):
            text, at = _braced(value, at + 2, known, where)
            done.append(text)
        else:
            done.append(value[at])
            at += 1
    return "".join(done), at


def _braced(
    value: str, at: int, known: Callable[[str], str | None], where: str
) -> tuple[str, int]:
    """What stands for `${...}`, whose name begins at `at`; and where its closing brace ends."""
    name = _VARIABLE.match(value, at)
    if name is None:
        raise ValueError(f"{where}: behind ${{ stands no name of a variable")
    found, at = known(name[0]), name.end()
    word, operator = "", _OPERATOR.match(value, at)
    if operator:
        word, at = _substituted(value, operator.end(), known, where, inner=True)
    if not value.startswith("}", at):
        raise ValueError(
            f"{where}: ${{{name[0]} is not closed, or goes on with other signs than :- - :+ + :? ?"
        )
    at += 1
    sign = operator[0] if operator else ""
    is_there = bool(found) if sign.startswith(":") else found is not None
    if sign.endswith("?") and not is_there:
        raise ValueError(f"{where}: {name[0]} has to be set, and is not")
    if sign.endswith("+"):
        return (word if is_there else ""), at
    return (found or "") if is_there or not sign else word, at
