"""Whatever dies at whatever moment: the job ends as if nothing had happened, one instance launched."""

from __future__ import annotations

import json
import random
import signal
import threading
from pathlib import Path
from uuid import UUID

import pika
import pytest

from atemporal.messages import COMMANDS, LAUNCH, REAP, SUBMIT
from atemporal.model import Job
from atemporal.states import JobState, Outcome
from tests.e2e.system import SERVICES, System, TwinProcess, ec2, instances
from tests.servers.rabbitmq import RabbitMQ

# Long enough to be killed in the middle of, short enough to wait for.
RUN = ("sh", "-c", "sleep 2; echo done; exit 7")


def check(system: System, twin: TwinProcess, jobs: list[UUID], launched_before: int) -> None:
    """Every job ended with its own exit code on one instance, and none is left."""
    ended: list[Job] = [system.wait_closed(job_id) for job_id in jobs]
    for job in ended:
        assert (job.outcome, job.exit_code, job.attempt) == (Outcome.FAILED, 7, 1), job
        assert job.attempts[0].log_tail == b"done\n"
    launched = instances(twin.url)[launched_before:]
    assert len(launched) == len(jobs)
    assert {one["State"]["Name"] for one in launched} == {"terminated"}
    assert {one["InstanceId"] for one in launched} == {
        attempt.instance_id for job in ended for attempt in job.attempts
    }


@pytest.mark.parametrize("state", [JobState.SCHEDULED, JobState.WARMING, JobState.RUNNING])
@pytest.mark.parametrize("name", SERVICES)
def test_kill_9_in_a_state_and_restart(
    system: System, twin: TwinProcess, name: str, state: JobState
) -> None:
    before = len(instances(twin.url))
    # Without a lead it is scheduled until then.
    job_id = system.submit(*RUN, delay_s=2, lead=0)
    system.wait(f"{state}", lambda: system.job(job_id).state is state)
    system.kill(name)
    system.start(name)
    check(system, twin, [job_id], before)


def test_kill_9_at_random_moments(system: System, twin: TwinProcess) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    before = len(instances(twin.url))
    jobs = []
    for _ in range(12):
        jobs.append(system.submit(*RUN))
        name = rng.choice(SERVICES)
        pause = threading.Event()
        pause.wait(rng.uniform(0, 0.5))
        system.kill(name)
        system.start(name)
    check(system, twin, jobs, before)


def test_the_twin_itself_restarts(system: System, twin: TwinProcess) -> None:
    before = len(instances(twin.url))
    job_id = system.submit(*RUN)
    system.wait_state(job_id, JobState.RUNNING)
    twin.kill_and_restart()
    check(system, twin, [job_id], before)


def test_the_broker_restarts(system: System, twin: TwinProcess, rabbitmq_server: RabbitMQ) -> None:
    before = len(instances(twin.url))
    jobs = [system.submit(*RUN, delay_s=1), system.submit(*RUN), system.submit(*RUN, delay_s=4)]
    system.wait("a job is on its way", lambda: system.job(jobs[1]).state is not JobState.SCHEDULED)
    rabbitmq_server.restart()
    check(system, twin, jobs, before)


def test_an_exit_whose_callback_never_came_is_read_from_the_console(
    system: System, twin: TwinProcess, tmp_path: Path
) -> None:
    before = len(instances(twin.url))
    runs, go = tmp_path / "runs", tmp_path / "go"
    wait = f"touch {runs}; until [ -e {go} ]; do sleep 0.05; done"
    job_id = system.submit("sh", "-c", f"{wait}; echo done; exit 7")
    # A claim that is granted is not yet one that the machine knows of.
    system.wait("the container runs", runs.exists)
    system.kill("api")
    go.touch()
    (instance,) = instances(twin.url)[before:]
    cloud = ec2(twin.url)
    system.wait(
        "the machine says on its console how the job ended",
        lambda: (
            "atemporal-exit"
            in cloud.get_console_output(InstanceId=instance["InstanceId"]).get("Output", "")
        ),
    )
    cloud.terminate_instances(InstanceIds=[instance["InstanceId"]])
    check(system, twin, [job_id], before)
    assert system.job(job_id).attempts[0].detail == "recovered from the console"


def test_all_queues_are_purged_in_mid_flight(
    system: System, twin: TwinProcess, broker_url: str
) -> None:
    before = len(instances(twin.url))
    system.signal("launcher", signal.SIGSTOP)
    jobs = [system.submit(*RUN) for _ in range(3)]
    for job_id in jobs:
        system.wait_state(job_id, JobState.QUEUED)
    # What a stopped process has been sent already goes back to its queue when it dies.
    system.kill("launcher")
    assert _purge(broker_url) >= 1
    system.start("launcher")
    for job_id in jobs:
        system.wait_state(job_id, JobState.RUNNING)
    system.signal("reaper", signal.SIGSTOP)
    for job_id in jobs:
        system.wait_state(job_id, JobState.FINISHED)
    system.kill("reaper")
    assert _purge(broker_url) >= 1
    system.start("reaper")
    check(system, twin, jobs, before)


def _purge(broker_url: str) -> int:
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    try:
        channel = connection.channel()
        counts = [channel.queue_purge(queue).method for queue in (SUBMIT, LAUNCH, REAP)]
        return sum(int(one.message_count) for one in counts)
    finally:
        connection.close()


def test_a_message_from_another_system_runs_to_its_end(
    system: System, twin: TwinProcess, broker_url: str
) -> None:
    before = len(instances(twin.url))
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    channel = connection.channel()
    replies = channel.queue_declare("", exclusive=True).method.queue
    job = {"image": "busybox:1.36", "command": list(RUN), "ports": []}
    channel.basic_publish(
        COMMANDS,
        "job.submit",
        json.dumps({"type": "job.submit", "v": 1, "job": job}).encode(),
        pika.BasicProperties(message_id="order-1", reply_to=replies),
    )
    for _, _, body in channel.consume(replies, auto_ack=True, inactivity_timeout=20):
        answer = json.loads(body)
        break
    connection.close()
    assert answer["status"] == "accepted"
    check(system, twin, [UUID(answer["id"])], before)
