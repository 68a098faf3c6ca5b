"""The environment a job gets, and the payload format older clients send it in.

Promise: a name that reaches a container is `[A-Za-z_][A-Za-z0-9_]*`, a value is any text without
NUL, newlines included, and arrives byte for byte. A payload is base64 of lines `NAME=value`; it may
come wrapped at 76 columns, and with its `+` turned into spaces by a client that posts it as a form
without escaping (`curl -d payload=$payload`).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping

from atemporal.pattern import whole

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
RESERVED_PREFIX = "ATEMPORAL_"
LONGEST = 131_071
"""How many bytes one NAME=VALUE, or one argument, may have.

Linux's MAX_ARG_STRLEN is one more, for the NUL: neither docker's command line nor the container can be
started with a longer one.
"""
NAME_PATTERN, NO_NAME_PATTERN = whole(_NAME.pattern), f"^{RESERVED_PREFIX}"
"""What may be a variable's name, and which of these may not, for schemas."""
# What is repeated in a refusal: upper case, as names are and few secrets, perhaps behind `export`.
_MEANT_AS_NAME = re.compile(r"(export\s+)?[A-Z0-9_.\s-]{1,40}")
# Go's white space, by which docker and compose read: Python counts four separators more.
SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
)
SPACE += "\u2028\u2029\u202f\u205f\u3000"


def check(env: Mapping[str, str]) -> None:
    """Refuse names and values that can not be an environment.

    Raises:
        ValueError: naming the first offender; the value itself is never in the message.
    """
    for name, value in env.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a variable name; {_why_no_name(name)}")
        if name.startswith(RESERVED_PREFIX):
            raise ValueError(f"{name} is reserved: names may not begin with {RESERVED_PREFIX}")
        if "\0" in value:
            raise ValueError(f"the value of {name} holds a NUL character")
        try:
            size = len(name) + 1 + len(value.encode())
        except UnicodeEncodeError:
            raise ValueError(f"the value of {name} is not valid Unicode text") from None
        if size > LONGEST:
            raise ValueError(
                f"{name} takes {size} bytes with its name, and a program can be started with {LONGEST} "
                "in one variable: split it, or let the container fetch it"
            )


def parse_lines(text: str, *, own: Callable[[str], str | None] | None = None) -> dict[str, str]:
    """Read lines `NAME=value` as docker reads an env file.

    Values are verbatim, blank lines and `#` lines are passed over, and so is a byte order mark. A line
    ends with a newline only, and a carriage return before it. With `own`, a line `NAME` alone takes
    what that gives for the name, and nothing when it gives None.
    Source: docker's command line, opts/file.go and kvfile (28.x).

    Raises:
        ValueError: a line without `=` or with a bad name, by its number.
    """
    env: dict[str, str] = {}
    for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        line = raw.removesuffix("\r").lstrip(SPACE)
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals and own is None:
            raise ValueError(f"line {number} has no '='; write one NAME=value a line")
        check_name(name, f"line {number}")
        if equals:
            env[name] = value
        elif own is not None and (mine := own(name)) is not None:
            env[name] = mine
    return env


def check_name(name: str, where: str) -> None:
    """Refuse what is not a variable's name.

    Raises:
        ValueError: with `where` it stands, and why it is none.
    """
    if not _NAME.fullmatch(name):
        # It may be a piece of a value, of a secret on several lines for example.
        shown = repr(name) if _MEANT_AS_NAME.fullmatch(name) else "what stands here"
        raise ValueError(f"{where}: {shown} is not a variable name; {_why_no_name(name)}")


def _why_no_name(name: str) -> str:
    if name.split()[:1] == ["export"]:
        return "remove export"
    if name[:1].isascii() and name[:1].isdigit():
        return "it must not begin with a digit"
    return "use letters, digits and _"


def decode_payload(payload: object) -> dict[str, str]:
    """Read base64 of an env file.

    Raises:
        ValueError: not text, not base64, not UTF-8, or a bad line.
    """
    if not isinstance(payload, str):
        raise ValueError("is not text")  # noqa: TRY004 - it is about a client's input
    compact = "".join(payload.replace(" ", "+").split())
    try:
        text = base64.b64decode(compact, validate=True).decode()
    except binascii.Error:
        raise ValueError("not base64 (of an env file, one NAME=value a line)") from None
    except UnicodeDecodeError:
        raise ValueError("decodes to bytes that are not UTF-8 text") from None
    return parse_lines(text)


def encode_payload(env: Mapping[str, str]) -> str:
    """Write an environment as base64 of an env file; a value's newlines are kept as they are.

    The format has no escape for newlines, so such a value reads back as more than one line: the
    exact environment is the mapping, the payload is for clients that know only this format.
    """
    return base64.b64encode("".join(f"{n}={v}\n" for n, v in env.items()).encode()).decode()
