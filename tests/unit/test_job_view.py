"""The one shape of a job: all of its fields, the original's keys, and nothing that nobody asked for."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from atemporal.cli import records
from atemporal.job_view import AttemptView, JobView
from atemporal.messages import JobEvent
from atemporal.model import Attempt, Event, Job, JobFields, read_spec
from atemporal.states import AttemptState, JobState
from services.api.schemas import JobDetail, JobSummary
from tests.api import LAUNCH

AT = datetime(2015, 4, 25, 5, 27, 27, 69_000, tzinfo=UTC)
SECRET = "bond, james bond!"
ATTEMPT = Attempt(
    job_id=UUID(int=1),
    number=1,
    state=AttemptState.RUNNING,
    launch=LAUNCH,
    instance_id="i-1",
    public_dns="ec2.example",
    claim="the-claim",
    log_tail=b"\xff ok",
    created_at=AT,
)
# What an earlier release accepted: today's rules for input would refuse port and retries.
STORED = {
    "image": "docker.io/library/nginx:1.9",
    "env": {"NAME": SECRET},
    "ports": ["80"],
    "max_attempts": 1000,
}
JOB = Job(
    id=UUID(int=1),
    spec=read_spec(STORED, "order-17"),
    state=JobState.RUNNING,
    attempt=1,
    run_at=AT,
    due_at=AT,
    created_at=AT,
    updated_at=AT,
    attempts=(ATTEMPT,),
)


def shown(view: JobView) -> dict[str, Any]:
    return dict(json.loads(view.model_dump_json()))


def test_every_field_of_a_specification_is_shown_over_http_and_by_the_cli() -> None:
    fields = JobFields.model_fields.keys() - {"run_at", "delay_s"}
    for view in (shown(JobSummary.show(JOB)), records.of_job(JOB)):
        assert view.keys() >= fields
        assert (view["ports"], view["max_attempts"], view["key"]) == (["80"], 1000, "order-17")


def test_http_and_the_cli_show_the_same_but_for_what_each_adds() -> None:
    http, cli = shown(JobDetail.show(JOB)), records.of_job(JOB, reveal=True)
    assert http.keys() - cli.keys() == {"payload", "log_tail"}
    assert cli.keys() - http.keys() == {"attempts"}
    same = http.keys() & cli.keys()
    assert {name: http[name] for name in same} == {name: cli[name] for name in same}


def test_the_originals_keys_come_first_and_read_as_they_did() -> None:
    view = shown(JobDetail.show(JOB))
    assert list(view)[:5] == ["id", "image", "time", "state", "instances"]
    assert (view["image"], view["time"]) == ("nginx:1.9", "2015-04-25T05:27:27.069Z")
    (instance,) = view["instances"]
    first = dict(list(instance.items())[:4])
    assert first == {"id": 1, "aws_id": "i-1", "dns": "ec2.example", "ip": None}


def test_every_field_of_an_attempt_is_shown_but_its_claim_and_where_asked_its_launch_and_log() -> (
    None
):
    fields = Attempt.model_fields.keys() - {"job_id", "claim"}
    assert AttemptView.of(ATTEMPT).model_dump().keys() >= fields - {"launch", "log_tail"}
    (record,) = records.of_job(JOB)["attempts"]
    assert record.keys() >= fields
    assert record["log_tail"] == "\N{REPLACEMENT CHARACTER} ok"
    assert record["launch"]["image_id"] == LAUNCH.image_id


def test_claim_log_and_launch_are_in_no_view_that_did_not_ask() -> None:
    text = json.dumps(shown(JobSummary.show(JOB)))
    for hidden in (ATTEMPT.claim, "\N{REPLACEMENT CHARACTER}", "log_tail", "callback_base"):
        assert str(hidden) not in text
    assert "the-claim" not in json.dumps(records.of_job(JOB, reveal=True))


def test_the_environment_is_masked_by_the_cli_unless_revealed() -> None:
    assert SECRET not in json.dumps(records.of_job(JOB))
    assert records.of_job(JOB)["env"] == {"NAME": records.MASK}
    assert records.of_job(JOB, reveal=True)["env"] == {"NAME": SECRET}


def test_an_event_is_the_same_as_a_message_and_in_the_cli() -> None:
    detail = {"reason": "completed"}
    event = Event(
        id=7, job_id=JOB.id, attempt=1, at=AT, type="attempt.exited", actor="a", detail=detail
    )
    record = records.of_event(event)
    message = json.loads(JobEvent.of(event).model_dump_json())
    assert (record.pop("id"), message.pop("v")) == (7, 1)
    assert record.items() <= message.items()
    assert message.keys() - record.keys() == {"key", "labels", "outcome", "exit_code"}
