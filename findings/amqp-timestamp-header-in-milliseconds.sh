#!/usr/bin/env bash
# py-amqp 5.4.2: a header of AMQP's type timestamp whose number is milliseconds ends the reader's connection.
#
# The type is a 64-bit number of seconds, so 1,764,322,775,000 is valid on the wire, and clients that mean
# milliseconds do send it. One would expect the message with an odd time. py-amqp makes a datetime of it
# while it reads the content header, before anybody sees the message, and the ValueError leaves
# drain_events: the consumer can neither reject nor acknowledge what it never got, and the broker delivers
# the same message again after each reconnect. Seen: "year 57879 is out of range".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q amqp==5.4.2
"$work/venv/bin/python" - <<'PYTHON'
from struct import pack

from amqp.method_framing import frame_handler


class Connection:
    bytes_recv = 0


def deliver(seconds):
    entry = b"\x02at" + b"T" + pack(">Q", seconds)
    headers = pack(">I", len(entry)) + entry
    content_header = pack(">HHQ", 60, 0, 2) + pack(">H", 0x2000) + headers
    got = []
    read = frame_handler(Connection(), lambda *frame: got.append(frame[3]))
    for frame in ((1, 1, pack(">HH", 60, 60)), (2, 1, content_header), (3, 1, b"{}")):
        read(frame)
    return got[0].headers["at"]


print("seconds:", deliver(1_764_322_775))
try:
    print("milliseconds:", deliver(1_764_322_775_000))
except ValueError as error:
    print("milliseconds: ValueError:", error)
else:
    raise SystemExit("it is read now: this finding is out of date")
PYTHON
