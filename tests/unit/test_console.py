"""An exit is recovered from what the machine wrote on its console."""

from __future__ import annotations

import base64
import json

from atemporal.console import exit_record
from atemporal.states import Reason

ID = "01900000-0000-7000-8000-000000000001.1"
RECORD = json.dumps({"phase": "run", "exit_code": 7, "claim": "c"})


def _log(text: bytes) -> str:
    return f"atemporal-log {ID} {base64.b64encode(text).decode()}"


def test_the_record_and_its_log_between_other_lines() -> None:
    console = "\r\n".join(
        [
            "[ 1.0] Linux",
            f"atemporal-exit {ID} {RECORD}",
            _log(b"hello "),
            "[ 2.0] x",
            _log(b"world"),
        ]
    )
    record = exit_record(console, ID)
    assert record is not None
    assert (record.reason, record.exit_code) == (Reason.EXIT_NONZERO, 7)
    assert record.log_tail == b"hello world"


def test_another_attempts_record_is_not_ours() -> None:
    assert exit_record(f"atemporal-exit {ID[:-1]}2 {RECORD}", ID) is None


def test_a_torn_record_is_none_and_a_torn_log_line_is_left_out() -> None:
    assert exit_record(f"atemporal-exit {ID} {RECORD[:-5]}", ID) is None
    console = f"atemporal-exit {ID} {RECORD}\n{_log(b'a')}\natemporal-log {ID} !!\n{_log(b'b')}"
    record = exit_record(console, ID)
    assert record is not None
    assert record.log_tail == b"ab"


def test_the_last_record_counts() -> None:
    second = RECORD.replace("7", "0")
    record = exit_record(f"atemporal-exit {ID} {RECORD}\natemporal-exit {ID} {second}\n", ID)
    assert record is not None
    assert record.exit_code == 0
