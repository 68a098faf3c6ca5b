"""RabbitMQ users of `deploy/rabbitmq/definitions.json`: a daemon does its work, and may do no more."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import httpx
import pika
import pytest

from atemporal.broker import DEAD, EXCHANGES, QUEUES, declare
from atemporal.broker.inspection import Inspection
from atemporal.errors import Refused
from atemporal.messages import COMMANDS, EVENTS, INTERNAL, LAUNCH, MESSAGES, REAP, SCHEDULE, SUBMIT
from atemporal.model.dead_letter import LetterState
from atemporal.states import JobState, Outcome
from atemporal.store import dead_letters
from deploy.compose import passwords
from tests.e2e.system import SERVICES, System, TwinProcess
from tests.servers.rabbitmq import RabbitMQ

PASSWORDS = {
    f"{name}_PASSWORD": f"password-of-{name}"
    for name in ("SETUP", "SCHEDULER", "LAUNCHER", "REAPER", "API")
}
READS: Mapping[str, set[str]] = {
    "setup": {SUBMIT, SCHEDULE, LAUNCH, REAP, DEAD},
    "scheduler": {SUBMIT, SCHEDULE, DEAD},
    "launcher": {LAUNCH},
    "reaper": {REAP},
    "api": set(),
}


@pytest.fixture(scope="module")
def url_of(
    broker_url: str, rabbitmq_server: RabbitMQ, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, str]:
    """A URL for each user, once RabbitMQ has imported the definitions for this module's virtual host."""
    parts = urlsplit(broker_url)
    vhost = parts.path[1:]
    text = json.dumps(passwords.definitions_with(PASSWORDS))
    file = tmp_path_factory.mktemp("definitions") / "definitions.json"
    file.write_text(
        text.replace('"vhost": "/"', f'"vhost": "{vhost}"').replace('"/"', f'"{vhost}"')
    )
    file.chmod(0o644)
    os.chmod(file.parent, 0o755)
    rabbitmq_server.ctl("import_definitions", str(file))
    urls = {
        user: urlunsplit(
            parts._replace(
                netloc=f"atemporal-{user}:{PASSWORDS[f'{user.upper()}_PASSWORD']}"
                f"@{parts.hostname}:{parts.port}"
            )
        )
        for user in READS
    }
    declare(urls["setup"])
    return urls


@pytest.mark.parametrize("user", READS)
def test_a_user_may_do_what_its_daemon_does_and_no_more(
    url_of: Mapping[str, str], user: str
) -> None:
    sent = {(kind.exchange, kind.type_name()) for kind in MESSAGES if kind.queue} | {
        ("", DEAD),
        (EVENTS, "job.finished"),
    }
    with Inspection(url_of[user]) as broker:
        queues = {str(one.name) for one in QUEUES}
        reads = {name for name in queues if broker.may_read(name)}
        writes = {(to, key) for to, key in sent if broker.may_write(to, key)}
        configures = {one.name for one in (*EXCHANGES, *QUEUES) if _may_configure(broker, one)}
    assert reads == {str(name) for name in READS[user]}
    notifications = {(to, key) for to, key in sent if to == INTERNAL}
    assert len(notifications) == 4
    match user:
        case "setup":
            assert writes == sent
            assert configures == queues | {one.name for one in EXCHANGES}
            return
        case "scheduler":
            own = {(INTERNAL, "job.due"), (INTERNAL, "job.cancel")}
            assert writes == own | {("", DEAD), (EVENTS, "job.finished")}
        case "api":
            assert writes == notifications - {(INTERNAL, "job.due")}
        case _:
            assert writes == {("", DEAD)}
    assert configures == set()


def _may_configure(broker: Inspection, one: Any) -> bool:
    try:
        return broker.difference(one) is None
    except Refused:
        return False


@pytest.fixture
def limited(
    tmp_path: Path, database_url: str, url_of: Mapping[str, str], twin: TwinProcess
) -> Iterator[System]:
    """All services, each with its own user, none of which may declare anything."""
    system = System(
        tmp_path,
        database_url=database_url,
        broker_url="amqp://nobody:nothing@127.0.0.1:1//",
        ec2_url=twin.url,
        certificates=twin.certificates,
        ATEMPORAL_BROKER_DECLARE="false",
    )
    system.env_of = {name: {"ATEMPORAL_BROKER_URL": url_of[name]} for name in SERVICES}
    system.start(*SERVICES)
    yield system
    system.close()


def test_the_daemons_do_all_of_their_work_with_these_users(
    limited: System, broker_url: str
) -> None:
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        channel = connection.channel()
        heard, replies = (channel.queue_declare("", exclusive=True).method.queue for _ in range(2))
        channel.queue_bind(heard, EVENTS, "job.finished.#")

        def answer(queue: str) -> Any:
            found: list[bytes] = []

            def came() -> bool:
                _, _, body = channel.basic_get(queue, auto_ack=True)
                found.extend([body] if body else [])
                return bool(found)

            limited.wait(f"a message in {queue}", came)
            return json.loads(found[0])

        job = {"image": "busybox:1.36", "command": ["true"], "ports": []}
        ask = pika.BasicProperties(reply_to=replies, message_id="one")
        channel.basic_publish(COMMANDS, "job.submit", json.dumps(job).encode(), ask)
        reply = answer(replies)
        assert reply["status"] == "accepted"
        assert limited.wait_closed(UUID(reply["id"])).outcome is Outcome.SUCCEEDED
        assert answer(heard)["job_id"] == reply["id"]
        # What nobody can use each reader puts into the dead letters.
        for queue in (SUBMIT, SCHEDULE, LAUNCH, REAP):
            channel.basic_publish("", str(queue), b"no message")
        limited.wait("each is kept", lambda: len(letters(limited)) == 4)
    # A cancel goes from the API to the reaper.
    running = limited.submit("sleep", "600")
    limited.wait_state(running, JobState.RUNNING)
    assert httpx.delete(f"{limited.api_url}/jobs/{running}").is_success
    limited.wait_closed(running)
    # What is sent again goes to its queue, from where it comes back.
    url = f"{limited.api_url}/dead-letters/{letters(limited)[0].id}/replay"
    assert httpx.post(url).is_success
    limited.wait("it is sent again", lambda: LetterState.REPLAYED in states(limited))
    logs = limited.logs()
    assert "refused" not in logs.lower(), logs


def letters(system: System) -> Sequence[Any]:
    """All dead letters that are kept."""
    with system.database.begin() as tx:
        return dead_letters.listing(tx, limit=100).letters


def states(system: System) -> set[LetterState]:
    """What has become of them."""
    return {one.state for one in letters(system)}
