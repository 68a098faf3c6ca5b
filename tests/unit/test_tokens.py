"""Callback tokens."""

from __future__ import annotations

from atemporal import tokens

KEYS = {"k2": b"b" * 32, "k1": b"a" * 32}


def test_a_token_is_the_same_each_time_and_good_for_one_attempt() -> None:
    token = tokens.mint(KEYS, "k1", "prod", "job.1")
    assert token == tokens.mint(KEYS, "k1", "prod", "job.1")
    assert tokens.verify(KEYS, token, "prod", "job.1")
    assert not tokens.verify(KEYS, token, "prod", "job.2")
    assert not tokens.verify(KEYS, token, "test", "job.1")


def test_both_live_keys_are_accepted_and_a_dropped_one_is_not() -> None:
    old = tokens.mint(KEYS, "k1", "prod", "job.1")
    assert tokens.verify(KEYS, old, "prod", "job.1")
    assert not tokens.verify({"k2": KEYS["k2"]}, old, "prod", "job.1")


def test_forgeries_are_refused() -> None:
    token = tokens.mint(KEYS, "k1", "prod", "job.1")
    forged = [
        "",
        "k1",
        "k1.",
        "k9." + token[3:],
        "k2." + token[3:],
        token[:-1],
        token + "0",
        "é.é",
    ]
    assert not any(tokens.verify(KEYS, text, "prod", "job.1") for text in forged)
