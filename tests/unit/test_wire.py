"""What anybody may send is read, or is a message that says why it was not."""

from __future__ import annotations

import gzip
from struct import pack
from typing import Any

import pytest
from amqp.basic_message import Message
from amqp.serialization import dumps

from atemporal.broker.wire import UNREADABLE, PlainMessage, frame_handler

BODY = b'{"image":"nginx"}'
DELIVER = pack(">HH", 60, 60)
CORRELATION_ID, REPLY_TO, MESSAGE_ID = 0x0400, 0x0200, 0x0080


class _Connection:
    bytes_recv = 0


def short(text: bytes) -> bytes:
    return pack(">B", len(text)) + text


def table(*entries: bytes) -> bytes:
    content = b"".join(entries)
    return pack(">I", len(content)) + content


def received(properties: bytes, body: bytes = BODY) -> Message:
    """What py-amqp makes of one delivery with these properties, flags and all."""
    got: list[Any] = []
    on_frame = frame_handler(_Connection(), lambda *given: got.append(given[3]))
    header = pack(">HHQ", 60, 0, len(body)) + properties
    for frame in ((1, 1, DELIVER), (2, 1, header), (3, 1, body)):
        on_frame(frame)
    (message,) = got
    assert bytes(message.body) == body
    message.delivery_info = {"delivery_tag": 1}
    assert isinstance(message, Message)
    return message


@pytest.mark.parametrize(
    "properties",
    [
        pytest.param(pack(">H", CORRELATION_ID) + short(b"caf\xe9"), id="correlation id"),
        pytest.param(pack(">H", MESSAGE_ID) + short(b"\xff\xfe"), id="message id"),
        pytest.param(pack(">H", REPLY_TO) + short(b"\x80queue"), id="reply to"),
        pytest.param(
            pack(">H", 0x2000) + table(short(b"at") + b"T" + pack(">Q", 1_764_322_775_000)),
            id="milliseconds",
        ),
        pytest.param(pack(">H", 0x2000) + table(short(b"x") + b"?"), id="header's type"),
    ],
)
def test_a_message_with_unreadable_properties_says_so_and_ends_nothing(properties: bytes) -> None:
    message = PlainMessage(received(properties))
    assert "its properties can not be read" in message.headers[UNREADABLE]
    assert bytes(message.body) == BODY


def test_tables_in_tables_deeper_than_the_stack_are_unreadable_properties() -> None:
    nested = b""
    for _ in range(5000):
        nested = short(b"x") + b"F" + pack(">I", len(nested)) + nested
    message = PlainMessage(received(pack(">H", 0x2000) + table(nested)))
    assert "its properties can not be read" in message.headers[UNREADABLE]
    assert bytes(message.body) == BODY


def test_readable_properties_are_read() -> None:
    properties = pack(">H", CORRELATION_ID | MESSAGE_ID) + short("é".encode()) + short(b"m-1")
    message = PlainMessage(received(properties))
    assert message.properties["correlation_id"] == "é"
    assert message.properties["message_id"] == "m-1"
    assert UNREADABLE not in message.headers


@pytest.mark.parametrize("method", ["gzip", "application/x-bz2", "zlib", "none", ""])
@pytest.mark.parametrize("body", [BODY, gzip.compress(BODY, mtime=0)], ids=["plain", "packed"])
def test_no_header_changes_a_body(method: str, body: bytes) -> None:
    headers = dumps("F", [{"compression": method, "other": "kept"}])
    message = PlainMessage(received(pack(">H", 0x2000) + headers, body))
    assert bytes(message.body) == body
    assert message.errors == []
    assert message.headers["other"] == "kept"
