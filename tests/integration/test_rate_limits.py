"""The limits that all processes share, on a real Postgres.

Where a test wants no time to pass, the buckets refill by a token an hour and `later` shifts the rows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text

from atemporal.cloud.caller import Caller
from atemporal.errors import Unavailable
from atemporal.limits import Limit
from atemporal.rate_limits import RateLimits, sizes
from atemporal.settings import Settings, load
from atemporal.store.database import Database
from atemporal.store.rate_limits import LAG_S
from tests.servers.postgres import Postgres

SLOW = {
    name: 1 / 3600
    for name, field in Settings.model_fields.items()
    if name.endswith("_rate") and field.annotation is float
}
RUN, TERMINATE, DESCRIBE = Limit.RUN_INSTANCES, Limit.TERMINATE_INSTANCES, Limit.DESCRIBE
CONSOLE = Limit.GET_CONSOLE_OUTPUT


@pytest.fixture(autouse=True)
def full(database: Database) -> Iterator[None]:
    yield
    with database.begin() as tx:
        tx.execute(text("TRUNCATE rate_limits"))


def limits(database: Database, taker: str = "", **settings: Any) -> RateLimits:
    return RateLimits(load(**{**SLOW, **settings}), database, taker=taker)


def later(database: Database, seconds: float) -> None:
    with database.begin() as tx:
        tx.execute(
            text(
                "UPDATE rate_limits SET updated_at = updated_at - make_interval(secs => :s),"
                " shrunk_at = shrunk_at - make_interval(secs => :s)"
            ),
            {"s": seconds},
        )


def test_the_defaults_are_those_that_ec2_publishes() -> None:
    found = {
        limit: [(one.burst, one.rate) for one in (size.requests, size.instances) if one]
        for limit, size in sizes(Settings()).items()
    }
    assert found == {
        Limit.RUN_INSTANCES: [(5, 2), (1000, 2)],
        Limit.TERMINATE_INSTANCES: [(100, 5), (1000, 20)],
        Limit.DESCRIBE: [(100, 20)],
        Limit.GET_CONSOLE_OUTPUT: [(100, 20)],
        Limit.CREATE_TAGS: [(100, 10)],
        Limit.DELETE_VOLUME: [(50, 5)],
    }


class TestTake:
    def test_calls_at_once_then_as_they_refill(self, database: Database) -> None:
        one = limits(database)
        assert [one.take(RUN) for _ in range(7)] == [1] * 5 + [0] * 2
        later(database, LAG_S + 3600)
        assert [one.take(RUN) for _ in range(2)] == [1, 0]
        later(database, 100 * 3600)
        assert [one.take(RUN) for _ in range(7)] == [1] * 5 + [0] * 2

    @pytest.mark.parametrize(
        ("limit", "at_once"), [(DESCRIBE, 100), (CONSOLE, 100), (Limit.DELETE_VOLUME, 50)]
    )
    def test_each_limit_has_buckets_of_its_own(
        self, database: Database, limit: Limit, at_once: int
    ) -> None:
        one = limits(database)
        assert [one.take(RUN) for _ in range(6)][-1] == 0
        assert [one.take(limit) for _ in range(at_once + 1)] == [1] * at_once + [0]

    def test_of_many_as_many_as_there_are(self, database: Database) -> None:
        one = limits(database, instances_burst=10)
        assert one.take(RUN, 4) == 4
        assert one.take(RUN, 50) in (5, 6), "but for what is left to others"
        assert one.take(RUN, 50, at_least=20) == 0
        assert one.take(TERMINATE, 500) == 500
        assert one.take(DESCRIBE, 30) == 30

    @pytest.mark.parametrize("limit", [RUN, TERMINATE])
    def test_a_burst_leaves_something_to_who_wants_little(
        self, database: Database, limit: Limit
    ) -> None:
        rates = {"instances_rate": 3, "terminated_rate": 3}
        burst = limits(database, "burst", **rates)
        single = limits(database, "single", **rates)
        assert burst.take(limit, 10_000) == 997
        for _ in range(10):
            burst.take(limit, 10_000)
        assert single.take(limit) == 1

    def test_a_listing_leaves_half_to_others(self, database: Database) -> None:
        one, other = limits(database), limits(database)
        pages = 0
        while one.take(DESCRIBE, leave=0.5):
            pages += 1
        assert pages == 50
        assert [other.take(DESCRIBE) for _ in range(49)] == [1] * 49

    @pytest.mark.parametrize("burst", [1, 1.5, 2])
    @pytest.mark.parametrize(("n", "leave"), [(2, 0.0), (1, 0.5), (5, 0.9)])
    def test_however_small_the_bucket_one_is_always_obtainable(
        self, database: Database, burst: float, n: int, leave: float
    ) -> None:
        one = limits(
            database, "one", **{name.removesuffix("_rate") + "_burst": burst for name in SLOW}
        )
        for limit in Limit:
            assert one.take(limit, n, leave=leave) >= 1
        with database.begin() as tx:
            tx.execute(text("UPDATE rate_limits SET requests = 0, instances = 0, waiting = '{}'"))
        assert [one.take(limit, n, leave=leave) for limit in Limit] == [0] * len(Limit)
        later(database, 3 * 3600)
        for limit in Limit:
            assert one.take(limit, n, leave=leave) >= 1

    @pytest.mark.parametrize(
        ("limit", "n", "leave"),
        [(DESCRIBE, 1, 0.5), (Limit.CREATE_TAGS, 1, 0.5), (TERMINATE, 2, 0.0)],
    )
    def test_who_leaves_something_waits_for_just_that(
        self, database: Database, limit: Limit, n: int, leave: float
    ) -> None:
        """Not for the token that is there already: a few takes, and no spinning."""
        one = limits(database, terminated_burst=2)
        one.take(limit)
        with database.begin() as tx:
            tx.execute(text("UPDATE rate_limits SET requests = 49, instances = 1, waiting = '{}'"))
        steps = 7 if leave else 3
        slept: list[float] = []

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == steps:
                later(database, 3 * 3600)

        assert Caller(one, sleep=sleep).wait_for(limit, "asking", n, leave=leave) >= 1
        assert slept == [1.0] * steps

    def test_two_processes_with_many_threads_take_no_more_than_there_is(
        self, database: Database
    ) -> None:
        granted: list[int] = []

        def work(one: RateLimits) -> None:
            for _ in range(30):
                granted.append(one.take(TERMINATE, 7))

        processes = [limits(database, terminated_burst=300) for _ in range(2)]
        threads = [threading.Thread(target=work, args=(one,)) for one in processes * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(one > 0 for one in granted) <= 100, "a call each"
        assert 290 <= sum(granted) <= 300

    def test_what_was_full_refills_only_when_the_call_must_have_arrived(
        self, database: Database
    ) -> None:
        one = limits(database)
        for _ in range(5):
            one.take(RUN)
        with database.begin() as tx:
            ahead = tx.scalar(
                text("SELECT extract(epoch FROM updated_at - clock_timestamp()) FROM rate_limits")
            )
        assert 0 < float(ahead) <= LAG_S

    def test_a_clock_that_was_set_back_holds_nobody_up(self, database: Database) -> None:
        one = limits(database)
        for _ in range(5):
            one.take(RUN)
        later(database, -3600)
        assert one.take(RUN) == 0
        later(database, LAG_S + 3600)
        assert one.take(RUN) == 1

    def test_without_the_database_no_call_is_made(self, postgres_server: Postgres) -> None:
        nowhere = Database("postgresql://nobody@127.0.0.1:1/nothing")
        one = limits(nowhere)
        for ask in (one.take, one.ready_in, one.throttled):
            with pytest.raises(Unavailable):
                ask(RUN)
        with pytest.raises(Unavailable):
            one.room(RUN, 5)


class TestFairness:
    def test_who_waits_is_served_in_the_order_of_coming(self, database: Database) -> None:
        a, b, c = (limits(database, name) for name in "abc")
        while a.take(RUN):
            pass
        assert [one.take(RUN) for one in (b, c)] == [0, 0]
        later(database, 3600 + LAG_S)
        # One token: it is for the one that has waited longest, who last got none before the others.
        assert [one.take(RUN) for one in (c, b)] == [0, 0]
        assert a.take(RUN) == 1
        later(database, 3600)
        assert [one.take(RUN) for one in (a, c, b)] == [0, 0, 1]
        later(database, 3600)
        assert [one.take(RUN) for one in (a, b, c)] == [0, 0, 1]

    def test_who_does_not_come_again_loses_its_place(self, database: Database) -> None:
        a, b = (limits(database, name) for name in "ab")
        while a.take(RUN):
            pass
        with database.begin() as tx:
            tx.execute(text("UPDATE rate_limits SET waiting = '{\"a\": [1, 2]}'"))
        later(database, 3600 + LAG_S)
        assert b.take(RUN) == 1

    @pytest.mark.parametrize("limit", [RUN, TERMINATE])
    def test_while_others_wait_a_burst_gets_an_equal_share(
        self, database: Database, limit: Limit
    ) -> None:
        a, b = (limits(database, name, instances_burst=400, terminated_burst=400) for name in "ab")
        assert a.take(limit, 10_000) >= 398
        assert b.take(limit, 200, at_least=100) == 0
        with database.begin() as tx:
            tx.execute(text("UPDATE rate_limits SET instances = 200, requests = 4"))
        assert 90 <= b.take(limit, 200) <= 100
        assert 45 <= a.take(limit, 200) <= 55

    @pytest.mark.parametrize(
        ("limit", "n", "leave"),
        [(RUN, 100, 0.0), (TERMINATE, 100, 0.0), (DESCRIBE, 1, 0.5), (Limit.CREATE_TAGS, 2, 0.5)],
    )
    def test_who_leaves_something_has_its_turn_when_nothing_is_ever_left(
        self, database: Database, limit: Limit, n: int, leave: float
    ) -> None:
        rates = {"instances_rate": 3, "terminated_rate": 3}
        burst = limits(database, "burst", **rates)
        burst.take(limit)
        # What was touched in the future does not refill.
        scarce = text(
            "UPDATE rate_limits SET instances = 2, requests = 4,"
            " updated_at = clock_timestamp() + interval '1 hour', waiting = CASE WHEN :waited"
            " THEN jsonb_build_object('burst', jsonb_build_array("
            "extract(epoch FROM clock_timestamp()) - 2, 1e11)) ELSE '{}' END"
        )
        for waited in (False, True):
            with database.begin() as tx:
                tx.execute(scarce, {"waited": waited})
            assert burst.take(limit, n, leave=leave) == waited, (
                "one, and not all that is left to others"
            )

    @pytest.mark.parametrize("takers", [2, 4])
    def test_none_gets_less_than_a_third_of_its_share(
        self, database: Database, takers: int
    ) -> None:
        """All want more than there is; some ask again without a pause, some when they are told to."""
        fast = {"run_instances_burst": 1, "run_instances_rate": 60}
        total = 60 * takers
        got = dict.fromkeys(range(takers), 0)
        lock, done = threading.Lock(), threading.Event()

        def work(number: int) -> None:
            one = limits(database, str(number), **fast)
            while not done.is_set():
                granted = one.take(RUN)
                with lock:
                    got[number] += granted
                    if sum(got.values()) >= total:
                        done.set()
                if not granted and number % 2:
                    done.wait(one.ready_in(RUN))

        threads = [threading.Thread(target=work, args=(number,)) for number in got]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert min(got.values()) >= total / takers / 3, got


class TestThrottled:
    def test_one_sign_of_all_processes_halves_the_pace_once_and_takes_the_tokens(
        self, database: Database
    ) -> None:
        a, b = limits(database), limits(database)
        assert a.take(RUN) == 1
        before = refused(RUN)
        a.throttled(RUN)
        b.throttled(RUN)
        assert refused(RUN) - before == 2
        assert [a.take(RUN), b.take(RUN)] == [0, 0]
        assert b.pace(RUN) == pytest.approx(0.5, abs=0.1)
        later(database, 2)
        b.throttled(RUN)
        assert a.pace(RUN) == pytest.approx(0.25, abs=0.1)

    def test_other_limits_do_not_notice(self, database: Database) -> None:
        one = limits(database)
        for limit in (RUN, DESCRIBE):
            one.take(limit)
        one.throttled(RUN)
        assert (one.take(RUN), one.take(DESCRIBE)) == (0, 1)
        assert one.pace(DESCRIBE) == 1

    def test_a_burst_asks_for_half_as_many(self, database: Database) -> None:
        one = limits(database, instances_burst=400)
        assert one.take(RUN, 100) == 100
        one.throttled(RUN)
        with database.begin() as tx:
            tx.execute(text("UPDATE rate_limits SET requests = 5"))
        assert 145 <= one.take(RUN, 1000) <= 150

    def test_the_pace_grows_back_with_time_and_never_beyond_what_is_set(
        self, database: Database
    ) -> None:
        one = limits(database)
        one.take(RUN)
        for _ in range(20):
            one.throttled(RUN)
            later(database, 2)
        slowest = one.pace(RUN)
        assert 0 < slowest <= 0.2
        later(database, 20)
        assert slowest < one.pace(RUN) < 1
        later(database, 3600)
        assert one.pace(RUN) == 1

    def test_nothing_was_taken_before(self, database: Database) -> None:
        one = limits(database)
        one.throttled(RUN)
        assert one.take(RUN) == 0


def refused(limit: Limit) -> float:
    return REGISTRY.get_sample_value("atemporal_ec2_calls_refused_total", {"kind": limit}) or 0.0


def test_the_metrics_show_the_tokens_and_how_fast_they_come(database: Database) -> None:
    one = limits(database)
    calls = REGISTRY.get_sample_value("atemporal_ec2_calls_total", {"kind": RUN}) or 0.0
    one.take(RUN, 100)
    labels = {"kind": RUN, "bucket": "instances"}
    assert REGISTRY.get_sample_value("atemporal_rate_limit_tokens", labels) == 900
    assert REGISTRY.get_sample_value("atemporal_ec2_calls_total", {"kind": RUN}) == calls + 1
    began = time.monotonic()
    one.throttled(RUN)
    pace = one.pace(RUN)
    rate = REGISTRY.get_sample_value("atemporal_rate_limit_tokens_per_second", labels)
    assert rate == pytest.approx(pace / 3600)
    assert pace <= 0.5 + (time.monotonic() - began) / 60
