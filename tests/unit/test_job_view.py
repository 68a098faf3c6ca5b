"""The one shape of a job: all of its fields, the original's keys, and nothing that nobody asked for."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, get_type_hints
from uuid import UUID

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from atemporal import client
from atemporal.cli import masks
from atemporal.job_view import AttemptView, EventView, JobView
from atemporal.messages import JobEvent
from atemporal.model import Attempt, Event, Job, JobFields, read_spec
from atemporal.states import AttemptState, JobState
from services.api.schemas import AttemptDetail, JobDetail, JobPage, JobSummary
from tests.launches import LAUNCH

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
# What an earlier release accepted: today's rules for input would refuse half of it.
STORED = {
    "image": "docker.io/library/nginx:1.9",
    "env": {"NAME": SECRET},
    "ports": ["80"],
    "max_attempts": 1000,
    "labels": {"team": "a,b"},
    "machine": {"instance_types": ["Any"], "disk_gb": 1},
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


def test_every_field_of_a_specification_is_shown() -> None:
    fields = JobFields.model_fields.keys() - {"delay_s"}
    for view in (shown(JobSummary.show(JOB, {})), shown(JobDetail.show(JOB, {}))):
        assert view.keys() >= fields
        assert (view["ports"], view["max_attempts"], view["key"]) == (["80"], 1000, "order-17")


@pytest.mark.parametrize(
    ("view", "shape"),
    [
        (JobSummary, client.Job),
        (JobDetail, client.JobDetail),
        (AttemptView, client.Instance),
        (AttemptDetail, client.InstanceDetail),
        (EventView, client.Event),
        (JobPage, client.JobPage),
    ],
)
def test_the_clients_types_are_what_the_api_sends(view: type[BaseModel], shape: type) -> None:
    sent = view.model_json_schema(mode="serialization")["properties"]
    assert get_type_hints(shape).keys() == sent.keys()


@pytest.mark.parametrize("view", [JobSummary, JobDetail])
def test_the_schema_of_what_is_shown_has_no_rules_for_input(
    view: type[JobSummary | JobDetail],
) -> None:
    schema = view.model_json_schema(mode="serialization")
    Draft202012Validator(schema).validate(shown(view.show(JOB, {})))
    for rule in ("pattern", "propertyNames", "maxLength", "maximum", "maxItems", "not"):
        assert f'"{rule}":' not in json.dumps(schema)


def test_an_image_that_is_refused_by_now_spoils_no_page() -> None:
    stored = read_spec(STORED | {"image": "docker.io/[0]/a:latest"}, None)
    view = shown(JobSummary.show(JOB.model_copy(update={"spec": stored}), {}))
    assert view["image"] == "docker.io/[0]/a:latest"


def test_the_originals_keys_come_first_and_read_as_they_did() -> None:
    view = shown(JobDetail.show(JOB, {}))
    assert list(view)[:5] == ["id", "image", "time", "state", "instances"]
    assert (view["image"], view["time"]) == ("nginx:1.9", "2015-04-25T05:27:27.069Z")
    (instance,) = view["instances"]
    first = dict(list(instance.items())[:4])
    assert first == {"id": 1, "aws_id": "i-1", "dns": "ec2.example", "ip": None}


def test_every_field_of_an_attempt_is_shown_but_its_claim_and_in_a_list_its_log() -> None:
    fields = Attempt.model_fields.keys() - {
        "job_id",
        "claim",
        "instance_proof",
        "launch",
        "booked",
    }
    assert AttemptView.of(ATTEMPT, {}).model_dump().keys() >= fields - {"log_tail"}
    (instance,) = shown(JobDetail.show(JOB, {}))["instances"]
    assert instance.keys() >= fields
    assert instance["log_tail"] == "\N{REPLACEMENT CHARACTER} ok"
    assert instance["image_id"] == LAUNCH.image_id


def test_an_attempt_shows_the_tags_of_deployment_and_labels() -> None:
    launch = LAUNCH.model_copy(update={"tags": {"cost-center": "42"}, "label_tags": ("team",)})
    spec = JOB.spec.model_copy(update={"labels": {"team": "a", "other": "b"}})
    attempt = ATTEMPT.model_copy(update={"launch": launch})
    job = JOB.model_copy(update={"spec": spec, "attempts": (attempt,)})
    for view in (shown(JobSummary.show(job, {})), shown(JobDetail.show(job, {}))):
        assert view["instances"][0]["tags"] == {"cost-center": "42", "team": "a"}
    assert shown(JobDetail.show(JOB, {}))["instances"][0]["tags"] == {}


def test_claim_log_and_launch_are_in_no_view_that_did_not_ask() -> None:
    text = json.dumps(shown(JobSummary.show(JOB, {})))
    for hidden in (ATTEMPT.claim, "\N{REPLACEMENT CHARACTER}", "log_tail", "callback_base"):
        assert str(hidden) not in text
    assert "the-claim" not in json.dumps(shown(JobDetail.show(JOB, {})))


def test_the_environment_is_masked_by_the_cli_unless_revealed() -> None:
    job = shown(JobDetail.show(JOB, {}))
    hidden = json.dumps(masks.masked_job(job))
    assert SECRET not in hidden
    assert job["payload"] not in hidden
    assert masks.masked_job(job)["env"] == {"NAME": masks.MASK}
    assert masks.masked_job(job, reveal=True) == job


def test_an_event_is_the_same_as_a_message_and_in_a_history() -> None:
    detail = {"reason": "completed"}
    event = Event(
        id=7, job_id=JOB.id, attempt=1, at=AT, type="attempt.exited", actor="a", detail=detail
    )
    record = EventView.of(event).model_dump(mode="json")
    message = json.loads(JobEvent.of(event).model_dump_json())
    assert (record["event_id"], message.pop("v")) == (7, 1)
    assert record.items() <= message.items()
    assert message.keys() - record.keys() == {
        *("key", "labels", "outcome", "exit_code"),
        *("reason", "instance_id", "times"),
    }
