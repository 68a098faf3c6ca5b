"""Which of EC2's events are worth following: the real shapes, and everything else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from atemporal.cloud import Notice
from atemporal.cloud.notices import read_notice

INSTANCE = "i-0123456789abcdef0"


def event(kind: str, **detail: Any) -> dict[str, Any]:
    """An event as EventBridge delivers it."""
    return {
        "version": "0",
        "id": "7bf73129-1428-4cd3-a780-95db273d1602",
        "detail-type": kind,
        "source": "aws.ec2",
        "account": "123456789012",
        "time": "2030-01-01T12:00:00Z",
        "region": "us-east-1",
        "resources": [f"arn:aws:ec2:us-east-1:123456789012:instance/{INSTANCE}"],
        "detail": {"instance-id": INSTANCE, **detail},
    }


STATE = "EC2 Instance State-change Notification"
SPOT = "EC2 Spot Instance Interruption Warning"


@pytest.mark.parametrize("state", ["stopping", "stopped", "shutting-down", "terminated"])
def test_a_change_towards_the_end_is_a_notice(state: str) -> None:
    body = json.dumps(event(STATE, state=state))
    assert read_notice(body) == Notice(INSTANCE, state)


def test_an_interruption_warning_is_a_notice() -> None:
    body = json.dumps(event(SPOT, **{"instance-action": "terminate"}))
    assert read_notice(body) == Notice(INSTANCE, "interruption")


@pytest.mark.parametrize(
    "other",
    [
        event(STATE, state="pending"),
        event(STATE, state="running"),
        event(STATE, state=["terminated"]),
        event(STATE),
        event("EC2 Instance Rebalance Recommendation"),
        {**event(STATE, state="terminated"), "source": "my.app"},
        {**event(STATE, state="terminated"), "detail": "terminated"},
        {**event(STATE, state="terminated"), "detail": None},
        event(STATE, **{"state": "terminated", "instance-id": "i-1' OR 1=1"}),
        event(STATE, **{"state": "terminated", "instance-id": 7}),
        ["terminated"],
        None,
        17,
    ],
)
def test_anything_else_is_none(other: Any) -> None:
    assert read_notice(json.dumps(other)) is None


@pytest.mark.parametrize("text", ["", "terminated", "{", "\ud800", "[" * 100_000, "NaN"])
def test_garbage_is_none(text: str) -> None:
    assert read_notice(text) is None
