"""Secrets that are known, taken out of texts that others have written.

Promise: of a known secret nothing is left in a text: not as it is, not as JSON, a URL or base64 writes
it, not line by line, and not the piece of it at a text's cut end. The password of any URL goes too, and
what stands behind `Bearer`.
Failure: a value of fewer than `SHORTEST` characters is not looked for: it would be found everywhere.
What nobody has named is no secret here.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

from atemporal.cli.masks import MASK

SHORTEST = 6
"""So many characters a value has at least that is looked for."""
# A cut secret's piece that is shorter may be a word of the text as well.
_PIECE = 4
# A word at a time, and to its last @: a search for each beginning would take the square of a long word.
_WORD = re.compile(r"[^\s\"']+")
_PASSWORD = re.compile(r"://[^/@:]*:")
_NAMED = re.compile(
    r"(?P<before>\bBearer\s+|[?&](?:[\w.-]*(?:password|token|secret|signature|credential))=)[^\s&\"'<>]+",
    re.IGNORECASE,
)


class Scrubber:
    """Takes secrets out of texts and of what JSON is made of."""

    def __init__(self, secrets: Iterable[str]) -> None:
        """Take the secrets as they are; empty and short ones are passed over."""
        whole = {line for one in secrets for line in (one, one.strip(), *one.splitlines())}
        known = {one for one in whole if len(one) >= SHORTEST}
        # The longest first: one may be a part of another.
        forms = sorted({form for one in known for form in _forms(one)}, key=len, reverse=True)
        self._known = sorted(known, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, forms))) if forms else None

    def text(self, text: str, *, cut: bool = False) -> str:
        """A text without them; of one that is `cut` the pieces at both ends go as well."""
        if self._secrets is not None:
            text = self._secrets.sub(MASK, text)
        text = _WORD.sub(_without_password, text)
        text = _NAMED.sub(rf"\g<before>{MASK}", text)
        return self._without_pieces(text) if cut else text

    def value(self, value: Any) -> Any:
        """What JSON is made of, without them in any text of it, names included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(name)): self.value(one) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(one) for one in value]
        return value

    def _without_pieces(self, text: str) -> str:
        first = max((_overlap(one, text) for one in self._known), default=0)
        if first:
            text = MASK + text[first:]
        last = max((_overlap(text, one) for one in self._known), default=0)
        return text[:-last] + MASK if last else text


def _without_password(word: re.Match[str]) -> str:
    """A word without what stands, as in a URL, between the first name's colon and the last @."""
    text, end = word[0], word[0].rfind("@")
    begin = _PASSWORD.search(text, 0, max(end, 0))
    return f"{text[: begin.end()]}{MASK}{text[end:]}" if begin else text


def _overlap(left: str, right: str) -> int:
    """The length of the longest end of the one that begins the other, if it is long enough to tell."""
    for size in range(min(len(left), len(right)), _PIECE - 1, -1):
        if left[-size:] == right[:size]:
            return size
    return 0


def _forms(secret: str) -> Iterator[str]:
    yield secret
    yield from (quote(secret), quote(secret, safe=""), quote_plus(secret))
    yield from (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
    yield repr(secret)[1:-1]
    raw = secret.encode(errors="surrogateescape")
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for shift in range(3):
            # What is before and behind it in the encoded text has a part in the characters at the edges.
            encoded = encode(bytes(shift) + raw).decode().rstrip("=")
            core = encoded[(0, 2, 3)[shift] : len(encoded) - ((shift + len(raw)) % 3 != 0)]
            if len(core) >= SHORTEST:
                yield core
