"""How long before its time a launch begins: by what machines of its kind took, and never too long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atemporal import image
from atemporal.lead import (
    AGAIN_S,
    DAYS,
    DEFAULT_S,
    LEAST,
    LIMIT_S,
    MARGIN,
    MARGIN_S,
    MOST,
    Estimates,
    Kind,
    Recent,
    Sample,
    plan,
)

NGINX = Kind("docker.io/library/nginx", "t3.small", "on-demand")


def samples(kind: Kind, *seconds: float) -> list[Sample]:
    return [Sample(kind, one, at=0) for one in seconds]


def test_a_burst_of_one_kind_does_not_push_another_one_out() -> None:
    recent, other = Recent(), NGINX._replace(repository="docker.io/library/large")
    recent.add([Sample(other, 200, at) for at in range(LEAST)])
    recent.add([Sample(NGINX, 60, 100 + at) for at in range(5_000)])
    estimates = Estimates(recent.all())
    assert estimates.lead_s(other) == lead_of(200)
    assert estimates.lead_s(NGINX) == lead_of(60)


def test_of_each_kind_the_latest_hundred_count() -> None:
    recent = Recent()
    recent.add([Sample(NGINX, 500, 1), *(Sample(NGINX, 60, 2) for _ in range(MOST - 1))])
    assert len(list(recent.all())) == MOST
    recent.add([Sample(NGINX, 70, 3)])
    assert {one.seconds for one in recent.all()} == {60, 70}
    assert recent.until == 3


def test_what_is_older_than_two_weeks_says_nothing_any_more() -> None:
    recent, other = Recent(), NGINX._replace(repository="docker.io/library/large")
    recent.add([Sample(other, 200, 0), Sample(NGINX, 60, DAYS * 86_400 - 1)])
    assert len(list(recent.all())) == 2
    recent.add([Sample(NGINX, 60, DAYS * 86_400 + 1)])
    assert {one.kind for one in recent.all()} == {NGINX}


def lead_of(seconds: float) -> float:
    return round(min(LIMIT_S, seconds * MARGIN + MARGIN_S), 3)


def test_nothing_known_is_the_default() -> None:
    assert Estimates().lead_s(NGINX) == DEFAULT_S
    assert Estimates(samples(NGINX, *[10.0] * (LEAST - 1))).lead_s(NGINX) == DEFAULT_S
    assert Estimates(samples(NGINX, *[10.0] * LEAST)).lead_s(NGINX) == lead_of(10)


@pytest.mark.parametrize(("slow", "expected"), [(0, 40), (5, 40), (6, 300), (100, 300)])
def test_of_a_hundred_the_slowest_five_do_not_count(slow: int, expected: float) -> None:
    took = [40.0] * (100 - slow) + [300.0] * slow
    assert Estimates(samples(NGINX, *took)).lead_s(NGINX) == lead_of(expected)


@pytest.mark.parametrize("took", [LIMIT_S, 3600.0, 1e9])
def test_a_drought_of_capacity_does_not_make_it_longer_than_the_limit(took: float) -> None:
    assert Estimates(samples(NGINX, *[took] * LEAST)).lead_s(NGINX) == LIMIT_S


@pytest.mark.parametrize(
    ("other", "counts"),
    [
        (NGINX._replace(instance_type="p5.48xlarge"), True),
        (NGINX._replace(capacity_type="spot"), True),
        (NGINX._replace(repository="docker.io/library/redis"), True),
        (Kind("ghcr.io/acme/report", "c7g.large", "spot"), True),
    ],
)
def test_where_too_few_of_a_kind_are_known_a_wider_one_counts(other: Kind, counts: bool) -> None:
    few, many = samples(NGINX, *[5.0] * (LEAST - 1)), samples(other, *[200.0] * 10 * LEAST)
    assert (Estimates([*few, *many]).lead_s(NGINX) == lead_of(200)) is counts


def test_the_narrowest_known_kind_counts() -> None:
    same_image = NGINX._replace(instance_type="c7g.large")
    same_machine = NGINX._replace(repository="docker.io/library/redis")
    known = samples(same_machine, *[90.0] * LEAST)
    assert Estimates(known).lead_s(NGINX) == lead_of(90)
    known += samples(same_image, *[60.0] * LEAST)
    assert Estimates(known).lead_s(NGINX) == lead_of(60)
    known += samples(NGINX, *[30.0] * LEAST)
    assert Estimates(known).lead_s(NGINX) == lead_of(30)


@given(st.floats(0, 1e6), st.floats(0, LIMIT_S))
def test_a_plan_is_made_again_shortly_before_the_launch_until_that_is_near(
    due_in_s: float, lead_s: float
) -> None:
    made = plan(due_in_s=due_in_s, lead_s=lead_s)
    assert made.ahead_s == lead_s
    if made.again_in_s is None:
        assert due_in_s - lead_s <= 2 * AGAIN_S
    else:
        # Each plan but the last comes later, and the next one comes before the launch.
        assert AGAIN_S <= made.again_in_s < due_in_s - lead_s


@pytest.mark.parametrize(
    ("text", "repository"),
    [
        ("nginx", "docker.io/library/nginx"),
        ("nginx:1.9", "docker.io/library/nginx"),
        ("localhost:5000/a/b:tag", "localhost:5000/a/b"),
        (f"ghcr.io/acme/report@sha256:{'0' * 64}", "ghcr.io/acme/report"),
        (f"r.example.com:443/x:1@sha256:{'0' * 64}", "r.example.com:443/x"),
    ],
)
def test_a_repository_has_neither_tag_nor_digest(text: str, repository: str) -> None:
    assert image.repository(image.normalise(text)) == repository
