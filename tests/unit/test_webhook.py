"""Webhooks without a server: where one may be sent to, how it is signed, when it is tried again."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from atemporal.errors import Invalid
from atemporal.model.webhook import parse_webhook
from atemporal.webhook import retry, signature
from atemporal.webhook.address import networks, split, why_refused

PUBLIC = ["93.184.216.34", "8.8.8.8", "2606:2800:220:1:248:1893:25c8:1946", "64:ff9b::808:808"]
NOT_PUBLIC = [
    *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1"),
    *("169.254.169.254", "169.254.170.2", "100.64.0.1", "192.0.0.8", "198.18.0.1", "224.0.0.1"),
    *("240.0.0.1", "255.255.255.255", "192.0.2.1", "203.0.113.9"),
    *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1"),
    # Others in disguise: mapped, compatible, translated, tunnelled.
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "::a9fe:a9fe"),
    *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a9fe:a9fe::1"),
    *("2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1"),
    *("64:ff9b:1::a00:1", "3fff::1", "5f00::1", "fec0::1"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_the_public_internet_may_be_sent_to(address: str) -> None:
    assert why_refused(address, ()) is None


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_nothing_else_may(address: str) -> None:
    assert why_refused(address, ()) is not None


def test_a_network_that_is_named_may_and_no_other() -> None:
    allowed = networks(["10.1.0.0/16", "127.0.0.1", "::1"])
    for address in ("10.1.2.3", "127.0.0.1", "::1", "::ffff:10.1.2.3", "64:ff9b::a01:203"):
        assert why_refused(address, allowed) is None
    for address in ("10.2.2.3", "127.0.0.2", "169.254.169.254", "::ffff:10.2.0.1"):
        assert why_refused(address, allowed) is not None


def test_networks_are_read_strictly() -> None:
    with pytest.raises(ValueError, match="write networks like"):
        networks(["10.1.2.3/8"])


@pytest.mark.parametrize(
    "url",
    [
        *("", "example.com", "ftp://example.com", "https://", "https://:443/", "//example.com"),
        *("https://user@example.com", "https://user:word@example.com", "https://example.com/#x"),
        *("https://example.com:0/", "https://example.com:99999/", "https://[::1/"),
        *("https://exämple.com/", "https://example.com/a b", "https://example.com/\n"),
        *("http://example.com/", "https://example.com/" + "x" * 2000),
    ],
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        split(url, http=False)


def test_http_is_for_who_allows_it() -> None:
    assert split("http://example.com:8080/x?y=z", http=True).port == 8080
    assert split("https://example.com/x", http=False).hostname == "example.com"


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"url": "https://127.0.0.1/"}, "url"),
        ({"url": "https://[::1]/"}, "url"),
        ({"url": "http://example.com/"}, "url"),
        ({"name": "a b"}, "name"),
        ({"types": ["job.finnished"]}, "types"),
        ({"labels": {"a b": "c"}}, "labels"),
        ({"secret": "whsec_mine"}, "secret"),
    ],
)
def test_a_bad_field_is_refused_with_its_name(fields: dict[str, Any], wrong: str) -> None:
    good = {"name": "ci", "url": "https://example.com/hook"}
    assert parse_webhook(good, http=False, allowed=()).types == ()
    with pytest.raises(Invalid) as caught:
        parse_webhook({**good, **fields}, http=False, allowed=())
    assert any(wrong in name for name in caught.value.fields)


AT = datetime(2026, 11, 29, 7, 0, 1, 500_000, tzinfo=UTC)


def test_the_example_of_the_specification() -> None:
    """Its secret, message, time and signature, so that we and the library can not be wrong together."""
    headers = signature.headers(
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        datetime.fromtimestamp(1614265330, UTC),
        '{"test": 2432232314}',
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_while_a_secret_changes_both_can_tell_who_sent_it() -> None:
    old, new, other = (signature.written(bytes([n]) * 32) for n in (1, 2, 3))
    assert base64.b64decode(old.removeprefix("whsec_")) == b"\x01" * 32
    now = datetime.now(UTC)
    headers = signature.headers([new, old], "event.7", now, "{}")
    assert headers["webhook-signature"].count("v1,") == 2
    for secret in (old, new):
        Webhook(secret).verify("{}", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(other).verify("{}", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new).verify("{ }", headers)


def test_a_time_is_signed_as_whole_seconds() -> None:
    headers = signature.headers([signature.written(b"k" * 32)], "event.7", AT, "{}")
    assert headers["webhook-timestamp"] == str(int(AT.timestamp()))


def test_a_delivery_is_tried_for_about_a_day_and_then_given_up() -> None:
    pauses = [retry.pause_s(n, 0.5) for n in range(1, 20)]
    tried = [pause for pause in pauses if pause is not None]
    assert tried == sorted(tried)
    assert 20 * 3600 < sum(tried) < 30 * 3600
    assert len(tried) == 12
    assert pauses[12:] == [None] * 7
    assert retry.pause_s(1, 0.0) == 4.0
    assert retry.pause_s(1, 1.0) == 6.0


def test_a_receiver_that_fails_is_asked_ever_less_often() -> None:
    rests = [retry.rest_s(n, 0.5) for n in range(1, 30)]
    assert rests[:4] == [0.0] * 4
    assert rests[4:] == sorted(rests[4:])
    assert rests[4] == 5.0
    assert rests[-1] == 900.0
    assert retry.rest_s(1, 0.5, asked_s=60) == 60
    assert retry.rest_s(1, 0.5, asked_s=10**9) == 3600
    assert retry.rest_s(30, 0.5, asked_s=60) == 900
