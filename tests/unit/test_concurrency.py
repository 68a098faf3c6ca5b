"""The grammar of concurrency limits, and who may start by them: pure."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from atemporal.concurrency import (
    JOBS,
    MOST,
    Demand,
    Place,
    Room,
    Rules,
    check_most,
    check_name,
    limit_of,
)
from atemporal.errors import Invalid
from atemporal.model import LimitWait


@pytest.mark.parametrize(
    "name",
    ["jobs", "instances", "vcpus", "team=mi6", "team=*", "a.b/c-d_e=", "team=a=b", "team= x y "],
)
def test_a_limit_has_one_of_these_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "job", "JOBS", "*", "team", "=mi6", "*=*", "te am=x", "-a=x", "a=\0", "a=" + "x" * 256],
)
def test_what_is_no_limit_is_refused_with_what_one_is(name: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_name(name)
    assert "NAME=VALUE" in refused.value.fields["name"]


@pytest.mark.parametrize("most", [-1, MOST + 1, 1.0, "5", True, None])
def test_a_limit_is_a_whole_number(most: object) -> None:
    with pytest.raises(Invalid):
        check_most(most)
    assert check_most(0) == 0
    assert check_most(MOST) == MOST


def test_a_labels_own_limit_takes_the_place_of_the_one_for_each() -> None:
    rules = Rules({"team=*": 10, "team=mi6": 5, "jobs": 7})
    assert rules.most("team=mi6") == 5
    assert rules.most("team=cia") == 10
    assert rules.most("env=prod") is None
    assert rules.counted({"team": "cia", "env": "prod"}) == ("jobs", "team=cia")


def test_a_label_that_is_called_like_a_limit_is_another_one() -> None:
    rules = Rules({"jobs=*": 1})
    assert rules.most(JOBS) is None
    assert rules.counted({"jobs": "x"}) == ("jobs=x",)


@pytest.mark.parametrize(
    ("lane", "limit"),
    [
        ("team=mi6", "team=mi6"),
        ("team=vcpus 8", "team=vcpus 8"),
        ("vcpus 8", "vcpus"),
        ("vcpus of t3.small", "vcpus"),
        ("jobs", "jobs"),
    ],
)
def test_the_limit_of_a_lane(lane: str, limit: str) -> None:
    assert limit_of(lane) == limit


SIZES = {"t3.small": 2, "c5.2xlarge": 8}


def room(rules: Mapping[str, int], used: Mapping[str, int] | None = None, vcpus: int = 0) -> Room:
    return Room(Rules(rules), used or {}, [(("t3.small",), vcpus // 2)], SIZES)


def demand(*names: str, types: tuple[str, ...] = ("t3.small",), at: float = 0.0) -> Demand:
    return Demand(Place(0, at, ""), names, types)


def test_it_waits_for_the_first_that_has_no_room() -> None:
    left = room({"team=a": 1, "env=b": 1}, {"env=b": 1})
    assert left.lane_for(demand("team=a")) is None
    assert left.lane_for(demand("team=a", "env=b")) == "env=b"
    left.take(demand("team=a"))
    assert left.lane_for(demand("team=a")) == "team=a"


def test_lowered_below_its_use_it_has_no_room_and_no_debt() -> None:
    left = room({"jobs": 2, "team=a": 1}, {"jobs": 5, "team=a": 3})
    assert left.starts() == 0
    assert left.of_lane("team=a") == 0


def test_vcpus_are_those_of_the_largest_type() -> None:
    left = room({"vcpus": 12}, vcpus=2)
    large = demand("vcpus", types=("t3.small", "c5.2xlarge"))
    assert left.lane_for(large) is None
    left.take(large)
    assert left.used("vcpus") == 10
    assert left.lane_for(large) == "vcpus 8"
    assert left.lane_for(demand("vcpus")) is None
    assert (left.of_lane("vcpus 8"), left.of_lane("vcpus 2")) == (0, 1)


def test_a_type_that_nobody_knows_starts_nothing() -> None:
    left = room({"vcpus": 12})
    assert left.lane_for(demand("vcpus", types=("m9.huge",))) == "vcpus of m9.huge"
    assert left.of_lane("vcpus of m9.huge") == 0
    assert left.of_lane("vcpus of t3.small") > 0
    held = Room(Rules({"vcpus": 12}), {}, [(("m9.huge",), 1)], SIZES)
    assert held.lane_for(demand("vcpus")) == "vcpus of m9.huge"


def test_nobody_passes_those_of_a_lane_that_were_not_read() -> None:
    left = room({"team=a": 5})
    left.read_up_to("team=a", Place(0, 10.0, ""))
    assert left.lane_for(demand("team=a", at=9.0)) is None
    assert left.lane_for(demand("team=a", at=11.0)) == "team=a"


@pytest.mark.parametrize(
    ("wait", "sentence"),
    [
        (
            LimitWait(limit="team=mi6", used=5, most=5, before=12),
            "limit team=mi6 (5 of 5 in use), 12 before it",
        ),
        (
            LimitWait(limit="vcpus", used=60, most=64, needs=8, before=1000, before_more=True),
            "limit vcpus (60 of 64 in use, it needs 8), more than 1000 before it",
        ),
        (
            LimitWait(limit="vcpus", used=0, most=4, needs=8),
            "limit vcpus (it needs 8, more than the 4 that there are), 0 before it",
        ),
        (
            LimitWait(limit="vcpus", used=0, most=4, vcpus_of="m9.huge"),
            "limit vcpus (the vCPUs of m9.huge are not known yet), 0 before it",
        ),
    ],
)
def test_a_reader_is_told_for_what_it_waits_and_behind_how_many(
    wait: LimitWait, sentence: str
) -> None:
    assert str(wait) == sentence
