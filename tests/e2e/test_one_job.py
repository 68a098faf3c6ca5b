"""One job from submit to closed, through real processes, on the twin."""

from __future__ import annotations

from atemporal.states import Outcome
from tests.e2e.system import System, TwinProcess, instances


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


def test_ahead_of_time_nothing_happens(system: System, twin: TwinProcess) -> None:
    before = len(instances(twin.url))
    job_id = system.submit("true", delay_s=4)
    finished = system.wait_closed(job_id)
    (attempt,) = finished.attempts
    assert attempt.created_at >= finished.due_at
    assert len(instances(twin.url)) == before + 1
