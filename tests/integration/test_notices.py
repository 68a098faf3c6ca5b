"""EC2's events, from a real SQS client to the records: an accelerator that can do no harm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from boto3.session import Session
from moto.server import ThreadedMotoServer

from atemporal.cloud import Notices
from atemporal.errors import Invalid, Refused
from atemporal.settings import Settings
from atemporal.states import AttemptState, Reason
from services.reaper.__main__ import loops
from services.reaper.notices import NoticeLoop
from tests.integration.reaping import ENDED, NOBODY, World, limits, tags_of
from tests.unit.test_notices import SPOT, STATE, event


class Queue:
    """What EventBridge does to the queue."""

    def __init__(self, url: str) -> None:
        """Make one on a server of moto's."""
        self._client: Any = Session().client("sqs", region_name="us-east-1", endpoint_url=url)
        self.url: str = self._client.create_queue(QueueName=f"q-{uuid4().hex}")["QueueUrl"]

    def put(self, *bodies: str) -> None:
        """Deliver messages."""
        for body in bodies:
            self._client.send_message(QueueUrl=self.url, MessageBody=body)

    def left(self) -> int:
        """How many messages are there, hidden ones too."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self._client.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)
        return sum(int(count) for count in found["Attributes"].values())

    def show_again(self) -> None:
        """Let the time pass after which a message that was taken is given to others."""
        from moto.sqs.models import sqs_backends

        backend = sqs_backends["123456789012"]["us-east-1"]
        for message in backend.queues[self.url.rsplit("/", 1)[1]]._messages:
            message.visible_at = 0

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        # As deployments do it: the endpoint is boto3's own setting.
        patch.setenv("AWS_ENDPOINT_URL_SQS", f"http://{host}:{port}")
        yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def queue(moto_url: str) -> Iterator[Queue]:
    made = Queue(moto_url)
    yield made
    made.close()


@pytest.fixture
def loop(world: World, queue: Queue) -> Iterator[NoticeLoop]:
    notices = Notices(Settings(events_queue_url=queue.url))
    yield NoticeLoop(world.reaper, world.database, notices, limits=limits())
    notices.close()


def notice(instance_id: str, state: str) -> str:
    return json.dumps(event(STATE, **{"instance-id": instance_id, "state": state}))


def test_an_instance_that_ended_ends_its_attempt_without_a_sweep(
    world: World, queue: Queue, loop: NoticeLoop
) -> None:
    ref, mine = world.launch()
    bystander, _ = world.launch()
    world.ec2.terminate_instances(InstanceIds=[mine])
    world.wait_gone(mine)
    queue.put(notice(mine, "terminated"))
    loop.tick()
    attempt = world.attempt(ref)
    assert (attempt.state, attempt.reason) == (AttemptState.EXITED, Reason.INSTANCE_LOST)
    assert world.attempt(bystander).state is AttemptState.WARMING
    queue.put(notice(mine, "terminated"))
    loop.tick()
    assert world.attempt(ref).state is AttemptState.CLOSED
    assert queue.left() == 0


def test_an_event_is_never_believed(world: World, queue: Queue, loop: NoticeLoop) -> None:
    ref, mine = world.launch()
    warning = json.dumps(event(SPOT, **{"instance-id": mine, "instance-action": "terminate"}))
    queue.put(*(notice(mine, state) for state in ("terminated", "stopping", "shutting-down")))
    queue.put(warning, warning)
    loop.tick()
    assert world.attempt(ref).state is AttemptState.WARMING
    assert world.states()[mine] == "pending"
    assert queue.left() == 0


def test_duplicates_and_disorder_change_nothing(
    world: World, queue: Queue, loop: NoticeLoop
) -> None:
    ref, mine = world.launch()
    world.cancel(ref)
    queue.put(notice(mine, "terminated"))
    loop.tick()
    assert world.states()[mine] in ENDED, "checking it was reason enough to end it"
    world.wait_gone(mine)
    queue.put(
        notice(mine, "terminated"),
        notice(mine, "terminated"),
        notice(mine, "shutting-down"),
    )
    loop.tick()
    queue.put(notice(mine, "stopping"))
    loop.tick()
    assert world.attempt(ref).state is AttemptState.CLOSED
    assert queue.left() == 0


def test_events_of_others_and_garbage_are_thrown_away(
    world: World, queue: Queue, loop: NoticeLoop
) -> None:
    ref, mine = world.launch()
    world.cancel(ref)
    theirs = world.foreign(tags_of(ref, "theirs"))
    queue.put(notice(theirs, "terminated"), notice(NOBODY, "terminated"))
    queue.put("terminated", "{", "[]", '{"detail": {"instance-id": 7}, "source": "aws.ec2"}')
    queue.put(json.dumps(event("EC2 Instance Rebalance Recommendation", **{"instance-id": mine})))
    loop.tick()
    assert world.states() == {mine: "pending", theirs: "pending"}
    assert queue.left() == 0


def test_what_could_not_be_followed_comes_again(
    world: World, queue: Queue, loop: NoticeLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref, mine = world.launch()
    world.cancel(ref)
    queue.put(notice(mine, "stopping"))
    with monkeypatch.context() as patch:

        def fail(*_: object) -> None:
            raise Refused("EC2 is away")

        patch.setattr(world.reaper, "check", fail)
        with pytest.raises(Refused):
            loop.tick()
    assert queue.left() == 1
    queue.show_again()
    loop.tick()
    assert world.states()[mine] in ENDED
    assert queue.left() == 0


def test_an_absent_queue_is_an_error_of_this_loop_alone(
    world: World, moto_url: str, queue: Queue
) -> None:
    notices = Notices(Settings(events_queue_url=f"{queue.url}-gone"))
    loop = NoticeLoop(world.reaper, world.database, notices, limits=limits())
    with pytest.raises(Refused):
        loop.tick()
    notices.close()


def test_it_is_off_unless_a_queue_is_named(world: World, queue: Queue) -> None:
    with pytest.raises(Invalid):
        Notices(Settings())
    off = [one.name for one in loops(world.settings, world.database)]
    named = world.settings.model_copy(update={"events_queue_url": queue.url})
    on = [one.name for one in loops(named, world.database)]
    assert on == [*off, "reap-notices"]
