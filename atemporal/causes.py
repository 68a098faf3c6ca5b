"""Why an attempt failed, or where that stands: one line for a reader."""

from __future__ import annotations

from atemporal.model import Attempt
from atemporal.states import DOCKER_REFUSED, Reason

_LIMIT = 300
_WHERE = {
    Reason.BOOT_DEADLINE: "no boot callback came: can its machine reach ATEMPORAL_CALLBACK_URL? "
    "Its console (EC2, `get-console-output`) says how far it came",
    Reason.PULL_DEADLINE: "its image was not there in time: the machine's console says why",
    Reason.QUEUE_DEADLINE: "no launcher took it: do launchers run?",
    Reason.LAUNCH_DEADLINE: "EC2 gave no instance in time",
    Reason.CLAIM_DEADLINE: "its machine was ready and did not claim it at its time: has it lost its "
    "network?",
    Reason.START_DEADLINE: "it had not started by its start deadline: its history says where it was",
    Reason.MAX_COST: "its job had cost more than its max_cost allows",
    Reason.UNREPORTED: "its machine reported no exit code",
}


def cause(attempt: Attempt) -> str:
    """What is known of why it failed; empty for one that did not, or whose exit code says it."""
    if attempt.detail:
        return _first_line(attempt.detail)
    refused = attempt.exit_code is None or attempt.reason in DOCKER_REFUSED
    if refused and (line := _first_line((attempt.log_tail or b"").decode(errors="replace"))):
        return line
    return _WHERE.get(attempt.reason, "") if attempt.reason else ""


def _first_line(text: str) -> str:
    lines = (line.strip() for line in text.splitlines())
    return next((line[:_LIMIT] for line in lines if line), "")
