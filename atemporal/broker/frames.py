"""Messages as the bytes that AMQP 0-9-1 publishes them with.

Promise: what py-amqp would send for the same messages, one frame after the other in one buffer, so that
a batch is one write and not one for each message.
Mechanism: a message is a method frame (Basic.Publish), a header frame with its properties, and frames
of its body, each no longer than the connection allows (AMQP 0-9-1, sections 2.3.5 and 4.2). The method
frame is the same for all messages to one place.
Failure: a name or an id of more than 255 bytes does not fit its field: `struct.error`, nothing is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import pack

from amqp.serialization import dumps

from atemporal.broker.envelope import Outgoing

_METHOD, _HEADER, _BODY = 1, 2, 3
_END = b"\xce"
_OVERHEAD = 8
_BASIC, _PUBLISH = 60, 40
_CONTENT_TYPE, _HEADERS, _DELIVERY_MODE = 0x8000, 0x2000, 0x1000
_CORRELATION_ID, _REPLY_TO, _MESSAGE_ID = 0x0400, 0x0200, 0x0080
_JSON = b"\x10application/json"
_PERSISTENT = b"\x02"


def publish(messages: Sequence[Outgoing], *, channel: int, frame_max: int) -> bytes:
    """Encode all, in order, for a channel whose frames have at most `frame_max` bytes.

    Raises:
        struct.error: a name or an id is too long.
    """
    methods: dict[tuple[str, str, bool], bytes] = {}
    parts: list[bytes] = []
    for message in messages:
        place = (message.exchange, message.routing_key, message.mandatory)
        method = methods.get(place)
        if method is None:
            method = methods[place] = _frame(_METHOD, channel, _method(message))
        parts.append(method)
        parts.append(_frame(_HEADER, channel, _header(message)))
        parts.extend(_body(message.body, channel, frame_max - _OVERHEAD))
    return b"".join(parts)


def _method(message: Outgoing) -> bytes:
    names = _short(message.exchange) + _short(message.routing_key)
    return pack(">HHH", _BASIC, _PUBLISH, 0) + names + pack("B", message.mandatory)


def _header(message: Outgoing) -> bytes:
    flags, values = _CONTENT_TYPE | _DELIVERY_MODE, _JSON
    if message.headers:
        flags |= _HEADERS
        values += dumps("F", [dict(message.headers)])
    values += _PERSISTENT
    if message.correlation_id is not None:
        flags |= _CORRELATION_ID
        values += _short(message.correlation_id)
    if message.reply_to is not None:
        flags |= _REPLY_TO
        values += _short(message.reply_to)
    if message.message_id:
        flags |= _MESSAGE_ID
        values += _short(message.message_id)
    return pack(">HHQH", _BASIC, 0, len(message.body), flags) + values


def _body(body: bytes, channel: int, longest: int) -> Iterator[bytes]:
    for start in range(0, len(body), longest):
        yield _frame(_BODY, channel, body[start : start + longest])


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return pack(">BHI", kind, channel, len(payload)) + payload + _END


def _short(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return pack("B", len(data)) + data
