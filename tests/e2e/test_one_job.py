"""One job from submit to closed, through real processes, on the twin."""

from __future__ import annotations

import base64

import httpx

from atemporal.states import AttemptState, Outcome
from atemporal.userdata import LARGEST, LIMIT
from tests.e2e.system import System, TwinProcess, ec2, instances


def test_on_the_twin(system: System, twin: TwinProcess) -> None:
    before = len(instances(twin.url))
    value = "one\ntwo 'three' \"$four\" %five\\ é"
    job_id = system.submit("sh", "-c", 'printf "<%s>" "$VALUE"; exit 7', env={"VALUE": value})
    job = system.wait_closed(job_id)
    assert (job.outcome, job.exit_code) == (Outcome.FAILED, 7)
    (attempt,) = job.attempts
    assert attempt.log_tail is not None
    assert f"<{value}>" in attempt.log_tail.decode()
    mine = instances(twin.url)[before:]
    assert [one["InstanceId"] for one in mine] == [attempt.instance_id]
    assert mine[0]["State"]["Name"] == "terminated"
    assert attempt.public_ip


def test_the_largest_environment_gets_there_by_claim(system: System, twin: TwinProcess) -> None:
    """256 KiB in all, by HTTP, Postgres, the answer to the machine, docker's arguments, the program."""
    before = len(instances(twin.url))
    names = ("A", "B", "C")
    env = {name: name * 80_000 for name in names}
    rest = LARGEST - sum(len(f"env={name}={value}") + 1 for name, value in env.items())
    script = 'printf %s "$A$B$C$D" | cksum | cut -d" " -f2'
    rest -= sum(len(f"arg={word}") + 1 for word in ("sh", "-c", script)) + len("env=D=") + 1
    job_id = system.submit("sh", "-c", script, env=env, secrets={"D": "D" * rest})
    job = system.wait_closed(job_id)
    assert (job.outcome, job.attempts[0].log_tail) == (
        Outcome.SUCCEEDED,
        f"{3 * 80_000 + rest}\n".encode(),
    )
    (mine,) = instances(twin.url)[before:]
    attribute = ec2(twin.url).describe_instance_attribute(
        InstanceId=mine["InstanceId"], Attribute="userData"
    )
    assert len(base64.b64decode(attribute["UserData"]["Value"])) < LIMIT
    more = {"image": "busybox", "env": env, "secrets": {"D": "D" * (rest + 90_000)}}
    assert httpx.post(f"{system.api_url}/jobs", json=more).status_code == 422


def test_without_a_lead_nothing_happens_ahead_of_time(system: System, twin: TwinProcess) -> None:
    before = len(instances(twin.url))
    job_id = system.submit("true", delay_s=4, lead=0)
    finished = system.wait_closed(job_id)
    (attempt,) = finished.attempts
    assert attempt.created_at >= finished.due_at
    assert attempt.start_skew is None
    assert len(instances(twin.url)) == before + 1


def test_with_one_the_machine_waits_for_the_time_and_no_container_for_its_machine(
    system: System, twin: TwinProcess
) -> None:
    before = len(instances(twin.url))
    finished = system.wait_closed(system.submit("date", "+%s%N", delay_s=12))
    (attempt,) = finished.attempts
    assert attempt.start_at == finished.run_at
    assert attempt.ready_at is not None
    assert attempt.ready_at < finished.run_at, "the machine was too slow to show anything"
    assert attempt.started_at is not None
    assert attempt.started_at >= finished.run_at
    # By the program's own word too.
    assert attempt.log_tail is not None
    assert int(attempt.log_tail) >= finished.run_at.timestamp() * 10**9
    assert len(instances(twin.url)) == before + 1


def test_a_machine_that_holds_heeds_a_cancel_and_another_time(
    system: System, twin: TwinProcess
) -> None:
    cancelled, sooner = (system.submit("true", delay_s=110) for _ in range(2))

    def all_hold() -> bool:
        tries = [system.job(one).attempts for one in (cancelled, sooner)]
        return all(one and one[-1].state is AttemptState.READY for one in tries)

    system.wait("machines that hold", all_hold)
    httpx.delete(f"{system.api_url}/jobs/{cancelled}").raise_for_status()
    answer = httpx.patch(f"{system.api_url}/jobs/{sooner}", json={"delay_s": 1})
    answer.raise_for_status()
    assert system.wait_closed(sooner).outcome is Outcome.SUCCEEDED
    gone = system.wait_closed(cancelled)
    assert gone.outcome is Outcome.CANCELLED
    assert gone.attempts[-1].running_at is None
