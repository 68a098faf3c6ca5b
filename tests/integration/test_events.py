"""Following what happens: nothing missed, nothing twice, in order, whoever writes or is away."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any
from uuid import UUID

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from sqlalchemy import text

from atemporal.broker import Link
from atemporal.errors import AtemporalError
from atemporal.messages import EVENTS, JobEvent, encode
from atemporal.model import AttemptRef
from atemporal.model.exit_record import ExitRecord
from atemporal.states import Reason
from atemporal.store import attempts, events, launches
from atemporal.store.database import Database
from atemporal.store.events import Wanted
from atemporal.store.horizon import Horizon
from atemporal.store.transitions import record
from services.api import events as api_events
from services.scheduler.relay import RelayLoop
from tests.api import Api, serving, until
from tests.claims import claim_due
from tests.integration.command_line import Cli
from tests.integration.history import KIND, happen, made, no_events, numbers, once
from tests.launches import LAUNCH
from tests.servers.rabbitmq import RabbitMQ

pytestmark = pytest.mark.usefixtures("own_output")


@pytest.fixture(autouse=True)
def nothing_left(database: Database) -> Iterator[None]:
    yield
    no_events(database)


@pytest.fixture(scope="module")
def api(database_url: str) -> Iterator[Api]:
    with pytest.MonkeyPatch.context() as patched:
        # What was read a moment ago is good enough for people; a test has just written.
        patched.setattr(api_events, "_FRESH_S", 0.0)
        with serving(database_url) as served:
            yield served


class Clock:
    """Seconds, as the test wants them."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def read(database: Database, horizon: Horizon, after: int = 0) -> list[int]:
    """The numbers of the events behind `after` that are shown now."""
    with database.begin() as tx:
        settled = horizon.settled(tx)
    with database.begin() as tx:
        page = events.page(tx, Wanted(), after=after, upto=settled, limit=1000)
    return [event.id for event in page.events]


def happens(tx: Any, job_id: UUID) -> None:
    """Something changes, and is recorded, as the product does it."""
    tx.execute(text("UPDATE jobs SET updated_at = now() WHERE id = :id"), {"id": job_id})
    record(tx, AttemptRef(job_id, 1), KIND, actor="test")


class TestHorizon:
    def test_an_event_is_not_shown_while_an_earlier_number_may_still_come(
        self, database: Database
    ) -> None:
        first, second = made(database, 2)
        horizon = Horizon()
        known = read(database, horizon)
        assert len(known) == 2
        with database.begin() as slow:
            happens(slow, first)
            with database.begin() as tx:
                happens(tx, second)
            for _ in range(3):
                assert read(database, horizon) == known
        later = read(database, horizon, known[-1])
        assert len(later) == 2
        assert later == sorted(later)

    def test_a_transaction_that_began_later_holds_nothing_up(self, database: Database) -> None:
        first, second = made(database, 2)
        horizon = Horizon()
        known = read(database, horizon)
        with ExitStack() as stack:
            happens(stack.enter_context(database.begin()), first)
            with database.begin() as tx:
                happens(tx, second)
            assert read(database, horizon) == known
            stack.close()
            # One is always open, but never the same.
            happens(stack.enter_context(database.begin()), first)
            assert len(read(database, horizon)) == 4

    def test_one_that_is_open_for_more_than_a_minute_is_not_waited_for(
        self, database: Database
    ) -> None:
        first, second = made(database, 2)
        clock = Clock()
        horizon = Horizon(clock=clock)
        known = read(database, horizon)
        with database.begin() as slow:
            happens(slow, first)
            with database.begin() as tx:
                happens(tx, second)
            assert read(database, horizon) == known
            clock.now = 59
            assert read(database, horizon) == known
            clock.now = 61
            assert len(read(database, horizon)) == 3

    def test_a_process_that_starts_meanwhile_shows_what_is_old(self, database: Database) -> None:
        first, second = made(database, 2)
        with database.begin() as tx:
            tx.execute(text("UPDATE events SET at = now() - interval '1 hour'"))
        with database.begin() as slow:
            happens(slow, first)
            with database.begin() as tx:
                happens(tx, second)
            horizon = Horizon()
            # Near the end nothing is looked for by halves: all that is left is young, for all it knows.
            happen(database, [second] * 1, *range(300))
            assert read(database, horizon) == []
            with database.begin() as tx:
                tx.execute(text("UPDATE events SET at = now() - interval '1 hour' WHERE id < 200"))
            assert 0 < len(read(database, Horizon())) <= 200

    def test_an_answer_is_good_for_a_while(self, database: Database) -> None:
        clock = Clock()
        horizon = Horizon(fresh_s=0.2, clock=clock)
        made(database)
        assert len(read(database, horizon)) == 1
        made(database)
        assert len(read(database, horizon)) == 1
        clock.now = 0.3
        assert len(read(database, horizon)) == 2


def test_who_follows_misses_nothing_and_gets_nothing_twice_while_others_write(
    database: Database, api: Api
) -> None:
    ids = made(database, 20)
    over = threading.Event()

    def write(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(80):
            with database.begin() as tx:
                for one in sorted(chance.sample(ids, 3)):
                    happens(tx, one)
                    time.sleep(chance.random() / 200)

    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(6)]
    seen: list[dict[str, Any]] = []

    def follow() -> None:
        after, last = 0, False
        while True:
            page = api.http.get(f"/events?after={after}&limit=50").json()
            seen.extend(page["events"])
            after = page["next"]
            if last and not page["more"]:
                return
            last = over.is_set() and not page["events"]

    reader = threading.Thread(target=follow)
    for thread in (*writers, reader):
        thread.start()
    for thread in writers:
        thread.join()
    time.sleep(0.5)
    over.set()
    reader.join()
    with database.begin() as tx:
        all_of_them = list(tx.scalars(text("SELECT id FROM events ORDER BY id")))
    assert [event["event_id"] for event in seen] == all_of_them
    assert len(seen) == 20 + 6 * 80 * 3


def ended(database: Database, **fields: Any) -> UUID:
    (job_id,) = made(database, delay_s=0, **fields)
    with database.begin() as tx:
        (ref,) = claim_due(tx, 1, actor="test")
        assert launches.begin(tx, ref, LAUNCH, actor="test")
        assert attempts.launched(tx, ref, f"i-{job_id}", actor="test")
        record = ExitRecord(exit_code=7)
        assert attempts.end(tx, ref, Reason.EXIT_NONZERO, actor="test", exit_record=record)
    return job_id


class TestHttp:
    def test_an_event_has_the_body_that_listeners_get(self, database: Database, api: Api) -> None:
        job_id = ended(database, key="order-7", labels={"team": "blue"}, max_attempts=1)
        page = api.http.get("/events").json()
        with database.begin() as tx:
            published = [encode(JobEvent.of(event)) for event in events.unrelayed(tx, 100)]
        assert page["events"] == [json.loads(body) for body in published]
        finished = page["events"][-1]
        assert finished["type"] == "job.finished.failed"
        assert (finished["job_id"], finished["key"]) == (str(job_id), "order-7")
        assert (finished["reason"], finished["exit_code"]) == ("exit_nonzero", 7)
        assert (finished["instance_id"], finished["attempt"]) == (f"i-{job_id}", 1)
        assert {"created_at", "launched_at", "exited_at"} <= finished["times"].keys()
        assert "env" not in json.dumps(page)

    def test_what_is_wanted_is_shown(self, database: Database, api: Api) -> None:
        blue = ended(database, labels={"team": "blue"})
        red = ended(database, labels={"team": "red"})

        def shown(query: str) -> set[tuple[str, str]]:
            page = api.http.get(f"/events?{query}").json()
            return {(one["job_id"], one["type"]) for one in page["events"]}

        of_blue = {kind for job, kind in shown("label=team=blue") if job == str(blue)}
        assert len(of_blue) > 5
        assert shown("label=team=blue") == shown(f"job={blue}") != shown(f"job={red}")
        assert shown("type=job.finished") == shown("type=job.finished.failed") != set()
        assert shown("type=attempt.launching&type=job.queued&label=team=red") == {
            (str(red), "attempt.launching"),
            (str(red), "job.queued"),
        }
        with database.begin() as tx:
            tx.execute(
                text("UPDATE events SET at = now() - interval '1 day' WHERE job_id = :id"),
                {"id": blue},
            )
        assert {job for job, _ in shown("since=2000-01-01T00:00:00Z")} == {str(blue), str(red)}
        with database.begin() as tx:
            since = tx.scalar(
                text("SELECT to_char(now() - interval '1 hour', 'YYYY-MM-DD HH24:MI')")
            )
        assert {job for job, _ in shown(f"since={since}")} == {str(red)}

    def test_a_page_looks_through_so_many_and_goes_on(
        self, database: Database, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(events, "SCAN", 10)
        (rare,) = made(database, labels={"team": "rare"})
        happen(database, made(database), *range(45))
        happen(database, [rare], 1)
        found, pages, after, more = [], 0, 0, True
        while more:
            page = api.http.get(f"/events?label=team=rare&after={after}").json()
            found += page["events"]
            pages, after, more = pages + 1, page["next"], page["more"]
        assert [one["type"] for one in found] == ["job.scheduled", KIND]
        assert pages == 5

    def test_the_last_ones_and_where_to_go_on(self, database: Database, api: Api) -> None:
        ids = made(database)
        happen(database, ids, 1, 2, 3)
        page = api.http.get("/events?last=2").json()
        assert [one["detail"]["n"] for one in page["events"]] == [2, 3]
        happen(database, ids, 4)
        page = api.http.get(f"/events?after={page['next']}").json()
        assert [one["detail"]["n"] for one in page["events"]] == [4]
        assert api.http.get("/events?last=0").json()["events"] == []

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("after=999999999", "after"),
            ("after=-1", "after"),
            ("after=1&last=1", "last"),
            ("type=job.finnished", "type"),
            ("type=jo", "type"),
            ("label=team", "label"),
            ("since=yesterday", "since"),
            ("job=7", "job"),
            ("limit=0", "limit"),
            ("whatever=1", "whatever"),
        ],
    )
    def test_what_is_no_filter_is_refused(self, api: Api, query: str, field: str) -> None:
        answer = api.http.get(f"/events?{query}")
        assert answer.status_code == 422
        assert field in answer.json()["fields"]


class TestCommand:
    def test_it_shows_the_last_ones(self, database: Database, cli: Cli) -> None:
        (one,) = made(database, labels={"team": "blue"})
        happen(database, [one], *range(30))
        lines = cli("events").stdout.splitlines()
        assert len(lines) == 20
        assert "n=29 team=blue" in lines[-1]
        assert f"{one}.1" in lines[-1]
        assert len(cli("events", "--after", "0").stdout.splitlines()) == 31
        assert len(cli("events", "--since", "1h", "--type", "job").stdout.splitlines()) == 1
        only = cli("events", "-n", "1", "--job", str(one)[-12:], "-o", "json").stdout
        assert json.loads(only)["detail"] == {"n": 29}

    def test_what_is_wrong_is_said(self, database: Database, cli: Cli) -> None:
        assert "no event fits" in cli("events").output
        cli("events", "--job", "ffffffffffff", code=4)
        cli("events", "--type", "nothing", code=2)
        cli("events", "--since", "whenever", code=2)
        cli("events", "--label", "team", code=2)
        cli("events", "-n", "1", "--after", "1", code=2)
        cli("events", code=3, ATEMPORAL_API_URL="http://127.0.0.1:1")

    def test_who_follows_outlives_a_restart_of_the_api_and_a_death_of_his_own(
        self, database_url: str, database: Database
    ) -> None:
        ids = made(database, 50)
        heard: list[dict[str, Any]] = []

        def hear(follower: Any, many: int) -> None:
            heard.extend(json.loads(follower.stdout.readline()) for _ in range(many))

        api = ExitStack()
        port = api.enter_context(serving(database_url)).http.base_url.port
        cli = Cli(database_url, f"http://127.0.0.1:{port}")
        words = ("events", "-f", "-o", "json", "--type", KIND, "--after")
        with cli.background(*words, "0") as follower:
            assert follower.stderr is not None
            happen(database, ids, 1)
            hear(follower, 50)
            api.close()
            assert "waiting for it to come back" in follower.stderr.readline()
            happen(database, ids, 2)
            with serving(database_url, api_port=port):
                hear(follower, 50)
        happen(database, ids, 3)
        with (
            serving(database_url, api_port=port),
            cli.background(*words, str(heard[-1]["event_id"])) as follower,
        ):
            hear(follower, 50)
        assert numbers(heard) == {str(one): [1, 2, 3] for one in ids}

    def test_a_reader_that_has_enough_ends_it(self, database: Database, cli: Cli) -> None:
        made(database)
        with cli.background("events", "-f") as follower:
            assert follower.stdout is not None
            follower.stdout.readline()
            follower.stdout.close()
            assert follower.wait(30) == 0


class TestListener:
    """The same promise to who listens by AMQP: at least once, in order once repetitions are dropped."""

    def test_ten_thousand_events_the_broker_away_in_the_middle_and_a_listener_that_dies(
        self, database: Database, rabbitmq_server: RabbitMQ, broker_url: str
    ) -> None:
        ids = made(database, 1000)
        happen(database, ids, *range(9))
        relay = RelayLoop(database, Link(broker_url, name="relay"), interval_s=0.05)
        arguments = {"x-queue-type": "quorum"}
        connection, channel = opened(broker_url)
        with closing(Link(broker_url, name="declares")) as link:
            link.connect()
        channel.queue_declare("all", durable=True, arguments=arguments)
        channel.queue_bind("all", EVENTS, "#")
        heard: list[dict[str, Any]] = []
        for _ in range(6):
            relay.tick()
        heard += taken(channel, acknowledged=500, died=True)
        connection.close()
        rabbitmq_server.stop()
        try:
            for _ in range(2):
                with pytest.raises(AtemporalError):
                    relay.tick()
                relay.reset()
        finally:
            rabbitmq_server.start()
        happen(database, ids, 9)
        until(lambda: ticked(relay) and not left(database), within_s=90)
        relay.reset()
        connection, channel = opened(broker_url)
        heard += taken(channel, acknowledged=100_000)
        connection.close()
        assert numbers(once(heard)) == {str(one): list(range(10)) for one in ids}
        assert len(once(heard)) == 11_000
        assert len(heard) > 11_000


def opened(broker_url: str) -> tuple[pika.BlockingConnection, BlockingChannel]:
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    return connection, connection.channel()


def taken(
    channel: BlockingChannel, *, acknowledged: int, died: bool = False
) -> list[dict[str, Any]]:
    """What a listener took: so many, and one that it did not acknowledge any more.

    One at a time: what a broker gives back of many at once it gives out again in any order.
    """
    found: list[dict[str, Any]] = []
    channel.basic_qos(prefetch_count=1)
    for method, _, body in channel.consume("all", inactivity_timeout=2):
        if method is None:
            break
        found.append(json.loads(body))
        if len(found) <= acknowledged:
            channel.basic_ack(method.delivery_tag)
        elif died:
            break
    return found


def ticked(relay: RelayLoop) -> bool:
    try:
        relay.tick()
    except AtemporalError:
        relay.reset()
    return True


def left(database: Database) -> int:
    with database.begin() as tx:
        return int(tx.scalar(text("SELECT count(*) FROM events WHERE NOT relayed")) or 0)
