"""Ids of jobs grow in the order of their making."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import RFC_4122

from atemporal.store.job_ids import JobIds


def test_ids_are_of_version_7_and_hold_the_time() -> None:
    made = JobIds(clock_ns=lambda: 1_700_000_000_123_456_789).new()
    assert (made.version, made.variant) == (7, RFC_4122)
    assert made.int >> 80 == 1_700_000_000_123


def test_ids_grow_within_a_millisecond() -> None:
    ids = JobIds(clock_ns=lambda: 5_000_000)
    made = [ids.new() for _ in range(5000)]
    assert made == sorted(set(made))
    assert {one.version for one in made} == {7}


def test_ids_grow_though_the_clock_steps_back() -> None:
    times = iter([9_000_000, 3_000_000, 1_000_000, 10_000_000])
    ids = JobIds(clock_ns=lambda: next(times))
    made = [ids.new() for _ in range(4)]
    assert made == sorted(made)
    assert made[3].int >> 80 == 10


def test_an_overflow_of_the_random_bits_is_carried_into_the_time() -> None:
    ids = JobIds(clock_ns=lambda: 7_000_000, random=lambda size: b"\xff" * size)
    first, second = ids.new(), ids.new()
    assert first < second
    assert (first.int >> 80, second.int >> 80, second.version) == (7, 8, 7)


def test_ids_of_many_threads_are_all_different() -> None:
    ids = JobIds()
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: ids.new(), range(4000)))
    assert len(set(made)) == 4000
