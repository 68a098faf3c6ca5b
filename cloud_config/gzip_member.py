"""Members of a gzip file; several, one after the other, are one file with all their contents (RFC 1952).

Promise: `stored` gives the same bytes everywhere, as many for every content of a length. `deflated`
gives them for the same zlib: nothing else of the machine or the time is in them.
"""

from __future__ import annotations

import struct
import zlib

_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"
MOST_STORED = 0xFFFF
"""How many bytes one stored block takes."""


def stored(content: bytes) -> bytes:
    """Up to 65,535 bytes as they are."""
    if len(content) > MOST_STORED:
        raise ValueError(f"{len(content)} bytes are more than one stored block takes")
    block = struct.pack("<BHH", 1, len(content), len(content) ^ MOST_STORED)
    return _HEAD + block + content + _tail(content)


def deflated(content: bytes) -> bytes:
    """As small as zlib makes it."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL)
    return _HEAD + deflate.compress(content) + deflate.flush() + _tail(content)


def _tail(content: bytes) -> bytes:
    return struct.pack("<II", zlib.crc32(content), len(content) & 0xFFFFFFFF)
