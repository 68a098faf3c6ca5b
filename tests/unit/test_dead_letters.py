"""How dead letters are read, whoever put them there, and how they are sent again."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atemporal.broker import DEAD, REASON_HEADER, ROUTING_KEY_HEADER
from atemporal.broker.dead_letters import again, copy_of, plain, read
from atemporal.broker.frames import publish
from atemporal.messages import BODY_LIMIT, LAUNCH, REAP, SCHEDULE, SUBMIT
from atemporal.model.dead_letter import (
    QUEUES,
    DeadLetter,
    DeadReason,
    LetterState,
    RecordedLetter,
)
from atemporal.model.text import storable
from tests.letters import DIED, by_broker, delivered, delivery, refused

ID = UUID("0198c0de-0000-7000-8000-000000000001")
FRAME_MAX = 131_072


def recorded(letter: DeadLetter, **fields: Any) -> RecordedLetter:
    """The letter as it is recorded."""
    own = {name: value for name, value in letter if name in RecordedLetter.model_fields}
    return RecordedLetter.model_validate(
        {
            **own,
            "id": ID,
            "received_at": DIED,
            "state": LetterState.KEPT,
            "decided_at": None,
            "decided_by": None,
            "replayed_at": None,
            "read_at": DIED,
            **fields,
        }
    )


def test_a_copy_says_what_its_message_was_and_why_it_died() -> None:
    letter = refused(
        b'{"image":1}',
        {"image": "is no text", "env": "is too large"},
        message_id="order-17",
        correlation_id="c-1",
        reply_to="my.replies",
        headers={"traceparent": "00-1", "CC": ["elsewhere"]},
        properties={"app_id": "shop", "timestamp": datetime(2030, 1, 1)},  # noqa: DTZ001
    )
    assert (letter.reason, letter.detail) == (
        DeadReason.INVALID,
        "image: is no text; env: is too large",
    )
    assert letter.errors == {"image": "is no text", "env": "is too large"}
    origin = (letter.queue, letter.exchange, letter.routing_key, letter.dead_at)
    assert origin == ("atemporal.submit", "atemporal", "job.submit", DIED)
    ids = (letter.message_id, letter.correlation_id, letter.reply_to)
    assert ids == ("order-17", "c-1", "my.replies")
    assert letter.properties == {
        "app_id": "shop",
        "timestamp": "2030-01-01T00:00:00+00:00",
        "headers": {"traceparent": "00-1", "CC": ["elsewhere"]},
    }
    assert (letter.body, letter.body_size) == (b'{"image":1}', 11)


def test_no_header_of_a_message_acts_on_the_broker_in_its_copy_or_its_replay() -> None:
    headers = {"CC": ["atemporal.submit"], "BCC": ["a"], "x-death": [{"queue": "a"}]}
    copy = copy_of(delivery(headers=headers), "a: b", {"a": "b"}, queue=SUBMIT, at=DIED)
    sent = again(recorded(refused(headers=headers)))
    for out in (copy, sent):
        assert all(name.startswith("x-atemporal-") for name in out.headers)


def test_a_copy_of_the_release_before_is_read() -> None:
    headers = {REASON_HEADER: "body: is not JSON", ROUTING_KEY_HEADER: "job.submit"}
    letter = read(delivery(routing_key=DEAD, exchange="", headers=headers))
    assert (letter.reason, letter.detail, letter.queue, letter.errors) == (
        DeadReason.INVALID,
        "body: is not JSON",
        SUBMIT,
        {},
    )


def test_a_message_whose_properties_can_not_be_read_says_so() -> None:
    why = "its properties can not be read: 'utf-8' codec"
    copy = copy_of(delivery(unreadable=why), why, {}, queue=LAUNCH, at=DIED)
    letter = read(delivered(copy))
    assert (letter.reason, letter.detail, letter.queue) == (DeadReason.UNREADABLE, why, LAUNCH)
    # One that the broker itself put there, headers and all.
    letter = read(delivery(routing_key=DEAD, exchange="", unreadable=why))
    assert (letter.reason, letter.detail, letter.queue) == (DeadReason.UNREADABLE, why, None)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("delivery_limit", DeadReason.DELIVERY_LIMIT),
        ("rejected", DeadReason.REJECTED),
        ("expired", DeadReason.EXPIRED),
        ("maxlen", DeadReason.MAXLEN),
        ("{of a later} broker", DeadReason.UNKNOWN),
    ],
)
def test_what_the_broker_dead_lettered_is_told_with_its_history(
    word: str, reason: DeadReason
) -> None:
    letter = by_broker(word, LAUNCH)
    assert letter.reason is reason
    assert letter.detail
    assert (letter.queue, letter.exchange, letter.routing_key) == (
        LAUNCH,
        "atemporal",
        "job.submit",
    )
    (death,) = letter.deaths
    assert (death.reason, death.queue, death.time) == (word, LAUNCH, DIED.replace(microsecond=0))
    assert letter.dead_at == death.time


def test_what_says_nothing_about_itself_is_kept_as_unknown() -> None:
    letter = read(delivery(b"?", routing_key=DEAD, exchange=""))
    assert (letter.reason, letter.queue, letter.body) == (DeadReason.UNKNOWN, None, b"?")
    why = recorded(letter).why_not_replayable
    assert why is not None
    assert "where it came from" in why


def test_a_replay_goes_to_its_queue_with_the_same_ids() -> None:
    sent = again(recorded(refused(b"{1}", message_id="m", correlation_id="c", reply_to="r")))
    assert (sent.exchange, sent.routing_key, sent.body) == ("", SUBMIT, b"{1}")
    assert (sent.message_id, sent.correlation_id, sent.reply_to) == ("m", "c", "r")
    assert sent.required


def test_a_replay_without_an_id_has_the_letters() -> None:
    assert again(recorded(refused())).message_id == f"dead-letter.{ID}"


def test_nobody_who_waited_for_a_direct_reply_is_answered() -> None:
    letter = refused(reply_to="amq.rabbitmq.reply-to.g1h2AA1yZXBseUAxMjM0NQ==")
    assert again(recorded(letter)).reply_to is None


@pytest.mark.parametrize("times", [1, 2])
def test_a_replay_that_dies_again_names_its_letter_and_its_first_routing_key(times: int) -> None:
    first = refused(b"no JSON", message_id="m-1")
    for _ in range(times):
        back = delivered(again(recorded(first)))
        copy = copy_of(back, "body: is not JSON", {"body": "is not JSON"}, queue=SUBMIT, at=DIED)
        first = read(delivered(copy))
        assert first.replay_of == ID
        assert (first.routing_key, first.message_id) == ("job.submit", "m-1")


def test_a_replay_that_the_broker_dead_letters_names_its_letter_too() -> None:
    sent = again(recorded(refused()))
    history = [
        {"queue": SUBMIT, "reason": "rejected", "exchange": "", "routing-keys": [sent.routing_key]}
    ]
    letter = read(delivered(sent, headers={**sent.headers, "x-death": history}))
    assert (letter.replay_of, letter.routing_key) == (ID, "job.submit")


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"redelivered": True}, True),
        ({"body": b"[]"}, False),
        ({"message_id": "other"}, False),
        ({"died": DIED + timedelta(microseconds=1)}, False),
        ({"queue": LAUNCH}, False),
    ],
)
def test_the_digest_is_that_of_the_letter_however_often_it_comes(
    change: dict[str, Any], same: bool
) -> None:
    usual: dict[str, Any] = {"body": b"{}", "message_id": "m"}
    assert (refused(**{**usual, **change}).digest == refused(**usual).digest) is same


def test_the_digest_of_what_comes_again_does_not_count_how_often() -> None:
    history = {"x-death": [{"queue": LAUNCH, "reason": "rejected"}]}
    first, second = (
        read(delivery(headers={**history, **more})) for more in ({}, {"x-delivery-count": 3})
    )
    assert first.digest == second.digest


def test_a_body_that_no_reader_takes_is_kept_in_part_and_not_sent_again() -> None:
    letter = refused(b"x" * (BODY_LIMIT + 1))
    assert (len(letter.body), letter.body_size) == (BODY_LIMIT, BODY_LIMIT + 1)
    why = recorded(letter).why_not_replayable
    assert why is not None
    assert str(BODY_LIMIT + 1) in why
    assert recorded(refused(b"x" * BODY_LIMIT)).why_not_replayable is None


def test_a_letter_of_a_foreign_queue_can_not_be_sent_again() -> None:
    assert QUEUES == (LAUNCH, REAP, SCHEDULE, SUBMIT)
    why = recorded(by_broker("expired", "others.queue")).why_not_replayable
    assert why is not None
    assert "others.queue" in why


LONG = "\U0001f4ee" * 100_000


@pytest.mark.parametrize(
    "fields",
    [
        {"errors": {f"field {n}{LONG[:300]}": LONG for n in range(500)}},
        {"headers": {LONG[:60]: LONG}},
        {"headers": {f"h{n}": "x" for n in range(20_000)}},
    ],
    ids=["errors", "a header", "headers"],
)
def test_a_copy_fits_a_frame_whatever_is_wrong_with_it(fields: dict[str, Any]) -> None:
    errors = fields.pop("errors", {"a": "b"})
    reason = "; ".join(errors.values())
    copy = copy_of(delivery(**fields), reason, errors, queue=SUBMIT, at=DIED)
    written = publish([copy], channel=1, frame_max=FRAME_MAX)
    # The method's frame, then the header's.
    method = int.from_bytes(written[3:7], "big") + 8
    assert int.from_bytes(written[method + 3 : method + 7], "big") + 8 < FRAME_MAX // 2
    assert read(delivered(copy)).errors.keys() >= {next(iter(errors))[:200]}


def test_long_headers_are_left_out_and_their_replay_is_known_all_the_same() -> None:
    sent = again(recorded(refused()))
    headers = {**sent.headers, "long": "x" * 70_000}
    history = [{"queue": SUBMIT, "reason": "rejected"}]
    for letter in (
        refused(headers=headers),
        read(delivery(headers={**headers, "x-death": history})),
    ):
        assert "long" not in letter.properties["headers"]
        assert "left_out" in letter.properties
        assert letter.replay_of == ID


def test_values_that_json_has_not_are_text() -> None:
    deep: list[Any] = []
    for _ in range(500):
        deep = [deep]
    values = {
        "time": datetime(2030, 1, 1),  # noqa: DTZ001
        "bytes": b"\xff\0",
        "decimal": Decimal("1.5"),
        "nan": float("nan"),
        "text": "a\0\ud800",
        "number": 1,
        "none": None,
    }
    assert plain(values) == {
        "time": "2030-01-01T00:00:00+00:00",
        "bytes": "\\xff\\x00",
        "decimal": "1.5",
        "nan": "nan",
        "text": "a\\x00\\ud800",
        "number": 1,
        "none": None,
    }
    assert len(json.dumps(plain(deep))) < 100


TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(),
        TEXT,
        st.binary(max_size=20),
        st.datetimes(),
        st.decimals(),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=10,
)
OURS = st.sampled_from(
    [
        *("x-death", "x-atemporal-reason", "x-atemporal-cause", "x-atemporal-errors"),
        *("x-atemporal-queue", "x-atemporal-exchange", "x-atemporal-routing-key"),
        *("x-atemporal-dead-at", "x-atemporal-properties", "x-atemporal-replay-of"),
    ]
)
FORGED = st.one_of(
    VALUES,
    VALUES.map(lambda value: json.dumps(plain(value))),
    st.just("9" * 5000),
    st.lists(
        st.dictionaries(
            st.sampled_from(["queue", "reason", "count", "time", "exchange", "routing-keys"]),
            VALUES,
        ),
        max_size=3,
    ),
    TEXT.map(lambda text: text * 1000),
)


@given(
    headers=st.dictionaries(st.one_of(OURS, TEXT), FORGED, max_size=8),
    properties=st.dictionaries(st.sampled_from(["app_id", "timestamp", "type"]), VALUES),
    ids=st.lists(st.one_of(st.none(), TEXT), min_size=3, max_size=3),
    body=st.binary(max_size=50),
)
def test_whatever_lies_among_the_dead_letters_can_be_kept(
    headers: dict[str, Any], properties: dict[str, Any], ids: list[str | None], body: bytes
) -> None:
    names = ("message_id", "correlation_id", "reply_to")
    given = dict(zip(names, ids, strict=True))
    letter = read(
        delivery(
            body, headers=headers, properties=properties, routing_key=DEAD, exchange="", **given
        )
    )
    dumped = letter.model_dump()
    json.dumps([letter.errors, letter.properties], allow_nan=False)
    texts = [value for value in dumped.values() if isinstance(value, str)]
    texts += [text for pair in letter.errors.items() for text in pair]
    assert all(map(storable, texts))
    assert storable(json.dumps(dumped["properties"], ensure_ascii=False))
    assert all(storable(str(death)) for death in letter.deaths)
    # What is indexed has to fit into a page of an index.
    assert all(len((dumped[name] or "").encode()) < 2000 for name in ("queue", "routing_key"))
    sent = again(recorded(letter, queue=SUBMIT))
    assert publish([sent], channel=1, frame_max=FRAME_MAX)


@pytest.mark.parametrize(
    "text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "soon", ""]
)
def test_a_time_that_postgres_would_not_give_back_is_none(text: str) -> None:
    headers = {REASON_HEADER: "a: b", "x-atemporal-dead-at": text}
    assert read(delivery(headers=headers)).dead_at is None
