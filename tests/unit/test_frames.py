"""What is written at once is byte for byte what py-amqp writes one by one."""

from __future__ import annotations

from struct import error as struct_error
from typing import Any

import pytest
from amqp import spec
from amqp.basic_message import Message
from amqp.method_framing import frame_writer
from amqp.serialization import dumps

from atemporal.broker import Outgoing, frames

FRAME_MAX = 4096


class _Transport:
    def __init__(self) -> None:
        self.written = b""

    def write(self, data: Any) -> None:
        self.written += bytes(data)


class _Connection:
    frame_max = FRAME_MAX
    bytes_sent = 0


def by_py_amqp(messages: list[Outgoing]) -> bytes:
    transport = _Transport()
    write = frame_writer(_Connection(), transport)
    for one in messages:
        given = {
            "content_type": "application/json",
            "application_headers": dict(one.headers) or None,
            "delivery_mode": 2,
            "correlation_id": one.correlation_id,
            "reply_to": one.reply_to,
            "message_id": one.message_id or None,
        }
        content = Message(one.body, **{name: value for name, value in given.items() if value})
        names = (0, one.exchange, one.routing_key, one.mandatory, False)
        write(1, 7, spec.Basic.Publish, dumps("Bssbb", names), content)
    return transport.written


@pytest.mark.parametrize(
    "messages",
    [
        [Outgoing("job.due", b'{"n":1}', "a.1.due", "atemporal.internal")],
        [Outgoing("job.due", b"{}", f"{n}.1.due", "atemporal.internal") for n in range(50)],
        [Outgoing("atemporal.dead", b"\xff", "", "", headers={"x-reason": "caf\u00e9"})],
        [Outgoing("reply", b"{}", "m", "", mandatory=False, correlation_id="c-1")],
        [Outgoing("a", b"{}", "m", "", correlation_id="c-1", reply_to="my.replies")],
        [Outgoing("a", b"x" * size, "m", "e") for size in (FRAME_MAX - 8, FRAME_MAX - 7, 20_000)],
        [Outgoing("a", b"", "m", "e"), Outgoing("b" * 255, b"y", "m" * 255, "e")],
    ],
    ids=[
        "one",
        "many",
        "headers",
        "reply",
        "reply to",
        "larger than a frame",
        "empty and longest",
    ],
)
def test_frames_are_those_of_py_amqp(messages: list[Outgoing]) -> None:
    assert frames.publish(messages, channel=7, frame_max=FRAME_MAX) == by_py_amqp(messages)


@pytest.mark.parametrize(
    "field", ["routing_key", "message_id", "exchange", "correlation_id", "reply_to"]
)
def test_a_name_that_does_not_fit_its_field_sends_nothing(field: str) -> None:
    given: dict[str, Any] = {"routing_key": "a", "message_id": "m", "exchange": "e"}
    good, bad = Outgoing(body=b"", **given), Outgoing(body=b"", **{**given, field: "n" * 256})
    with pytest.raises(struct_error):
        frames.publish([good, bad], channel=1, frame_max=FRAME_MAX)
