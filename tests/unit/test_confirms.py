"""Which messages the broker has answered, in whatever order and grouping its answers come."""

from __future__ import annotations

import random
from collections import defaultdict
from types import SimpleNamespace

import pytest
from kombu.exceptions import KombuError

from atemporal.broker import Outgoing
from atemporal.broker.confirms import Confirms


class _Channel:
    def __init__(self) -> None:
        self.events: defaultdict[str, set[object]] = defaultdict(set)


def messages(count: int, *, required: bool = True) -> list[Outgoing]:
    return [Outgoing("a", b"", f"m{n}", "e", required=required) for n in range(1, count + 1)]


@pytest.mark.parametrize("seed", range(5))
def test_answers_in_any_order_settle_exactly_what_they_name(seed: int) -> None:
    rng, confirms = random.Random(seed), Confirms(_Channel())
    first = confirms.sent(messages(60)).last
    second = confirms.sent(messages(40)).last
    assert (first, second) == (60, 100)
    open_tags = set(range(1, 101))
    while open_tags:
        tag, multiple = rng.choice(sorted(open_tags)), rng.random() < 0.3
        confirms._on_ack(tag, multiple)
        open_tags -= {one for one in open_tags if one == tag or (multiple and one < tag)}
        for last in (first, second):
            left = {one for one in open_tags if one <= last}
            assert confirms.answered(last) == (not left)
            assert confirms.open_until(last) == len(left)
    assert confirms.take_refused() == ()


@pytest.mark.parametrize("multiple", [False, True])
def test_a_nack_of_what_is_required_is_a_failure_and_of_another_is_told(multiple: bool) -> None:
    confirms = Confirms(_Channel())
    confirms.sent(messages(3, required=False))
    confirms._on_nack(2, multiple)
    confirms._on_ack(3, True)
    refused = [message.message_id for message, _ in confirms.take_refused()]
    assert refused == (["m1", "m2"] if multiple else ["m2"])
    confirms.sent(messages(1))
    confirms._on_nack(4)
    with pytest.raises(KombuError, match="refused"):
        confirms.take_refused()


def test_what_no_queue_takes_is_told_of_that_message_alone() -> None:
    confirms = Confirms(_Channel())
    confirms.sent(messages(3, required=False))
    returned = SimpleNamespace(properties={"message_id": "m2"})
    confirms._on_return(None, "e", "a", returned)
    confirms._on_ack(3, True)
    assert [message.message_id for message, _ in confirms.take_refused()] == ["m2"]
    confirms.sent(messages(2, required=False))
    confirms._on_ack(5, True)
    assert confirms.take_refused() == ()
