"""The tags that a launch gives: the deployment's and the labels', the same in each repeat of a call."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from atemporal.cloud import CloudError, Forbidden, TagRefused, Unauthorized
from atemporal.model import AttemptRef
from atemporal.states import AttemptState, JobState
from atemporal.store.database import Database
from tests.frozen_clock import freeze
from tests.integration.grouping import Groups
from tests.integration.launching import (
    NO_CAPACITY,
    UNKNOWN,
    A,
    B,
    Done,
    World,
    error,
    gauge,
    tags_in,
)

TAGS: dict[str, Any] = {"tags": {"team": "platform"}, "label_tags": ("*",)}
LABELS = {"project": "x", "atemporal/schedule": "nightly", "Team": "mine", "Name": "mine"}


@pytest.fixture(scope="module", autouse=True)
def frozen(database: Database) -> None:
    freeze(database)


@pytest.fixture
def world(database: Database) -> Iterator[Groups]:
    world = Groups(database, **TAGS)
    yield world
    world.cloud.real.close()
    with database.begin() as tx:
        tx.execute(text("TRUNCATE jobs, attempts, launch_groups, events, rate_limits CASCADE"))


def labelled(world: World, labels: dict[str, str]) -> AttemptRef:
    """A due job with labels that were not checked: as an older release took them."""
    ref = world.queued()
    with world.database.begin() as tx:
        tx.execute(
            text(
                "UPDATE jobs SET spec = jsonb_set(spec, '{labels}', cast(:labels AS jsonb))"
                " WHERE id = :id"
            ),
            {"labels": json.dumps(labels), "id": ref.job_id},
        )
    return ref


def sent_by(request: str) -> dict[str, str]:
    """The tags in a request as it was sent."""
    return tags_in(eval(request))


def test_a_launch_of_one_has_the_tags_of_the_deployment_and_of_its_labels(world: Groups) -> None:
    ref = labelled(world, LABELS)
    world.call(ref)
    sent = sent_by(world.cloud.calls[0].request)
    assert sent["Name"] == f"Atemporal - Job {ref.job_id}"
    others = {key: one for key, one in sent.items() if not key.startswith(("Name", "atemporal:"))}
    assert others == {"team": "platform", "project": "x", "atemporal/schedule": "nightly"}


def test_a_launch_of_many_is_one_call_whatever_their_labels_are(world: Groups) -> None:
    refs = [labelled(world, {"n": str(number)}) for number in range(5)]
    world.work(refs)
    assert world.cloud.sizes == [5]
    (request,) = world.cloud.requests.values()
    sent = sent_by(request)
    assert sent["team"] == "platform"
    assert "n" not in sent


@pytest.mark.parametrize("error", UNKNOWN, ids=str)
@pytest.mark.parametrize("many", [1, 3])
def test_a_repeated_call_is_the_same_though_the_settings_have_changed(
    world: Groups, error: Any, many: int
) -> None:
    refs = [labelled(world, LABELS) for _ in range(many)]
    world.cloud.script = [error]
    world.cloud.outcomes = [error]
    world.work(refs)
    world.restart(tags={"team": "other", "more": "x"}, label_tags=("-",))
    world.later(60)
    world.sweeps(2)
    requests = [call.request for call in world.cloud.calls] or list(world.cloud.requests.values())
    assert len(set(requests)) == 1
    assert len(world.cloud.calls) + len(world.cloud.sizes) == 2
    assert sent_by(requests[0])["team"] == "platform"
    assert world.each_has_one(refs)


def test_a_label_that_aws_would_refuse_is_left_out_logged_once_and_stops_no_launch(
    world: Groups,
) -> None:
    ref = labelled(world, {"good": "1", "odd": "a,b"})
    world.cloud.script = [UNKNOWN[0]]
    with capture_logs() as logs:
        world.call(ref)
        world.later(60)
        world.sweeps(2)
    assert world.has_instance(ref)
    for call in world.cloud.calls:
        assert sent_by(call.request).items() >= {"good": "1"}.items()
        assert "odd" not in sent_by(call.request)
    logged = [one for one in logs if one.get("labels")]
    assert [one["labels"] for one in logged] == [["odd"]]
    assert "a,b" not in repr(logs)


def test_with_labels_switched_off_a_launch_has_the_deployments_tags_alone(world: Groups) -> None:
    world.restart(label_tags=("-",))
    ref = labelled(world, LABELS)
    world.call(ref)
    sent = sent_by(world.cloud.calls[0].request)
    assert sent["team"] == "platform"
    assert "project" not in sent


DENIED = [
    error(Forbidden, "UnauthorizedOperation", "with an explicit deny"),
    error(TagRefused, "TagPolicyViolation", "the value of 'odd'"),
]


def denies(world: Groups, refusal: CloudError, *keys: str) -> None:
    """EC2 takes no call with one of these tags."""
    world.cloud.policy = lambda tags: refusal if tags.keys() & set(keys) else None


@pytest.mark.parametrize("refusal", DENIED, ids=str)
class TestLabelIsRefused:
    def test_its_job_is_launched_without_and_no_other_waits(
        self, world: Groups, refusal: CloudError
    ) -> None:
        denies(world, refusal, "odd")
        ref = labelled(world, {"odd": "1", "good": "2"})
        with capture_logs() as logs:
            world.call(ref)
            assert world.has_instance(ref), "at once"
        breaker = world.launcher.admission.circuit_breaker
        assert not breaker.is_open
        assert breaker.detail == ""
        assert world.launcher.admission.availability.count() == 0
        assert world.cloud.tokens == ["0", "1"], "another call has another token"
        first, second = (sent_by(call.request) for call in world.cloud.calls)
        assert set(first) - set(second) == {"odd", "good"}
        assert second["team"] == "platform"
        (line,) = [one for one in logs if one.get("labels")]
        assert line["labels"] == ["good", "odd"]
        assert refusal.code in line["error"]
        other = labelled(world, {"good": "3"})
        world.call(other)
        assert sent_by(world.cloud.calls[-1].request)["good"] == "3"

    @pytest.mark.parametrize("second", [UNKNOWN[0], Done(UNKNOWN[0])], ids=["not done", "done"])
    def test_the_intent_without_it_is_written_before_the_call(
        self, world: Groups, refusal: CloudError, second: Any
    ) -> None:
        denies(world, refusal, "odd")
        world.cloud.script = [second]
        ref = labelled(world, {"odd": "1"})
        world.call(ref)
        launch = world.attempt(ref).launch
        assert (launch.placement, launch.calls, launch.label_tags) == (1, 1, ())
        world.restart()
        world.later(60)
        world.sweep.tick()
        assert world.has_instance(ref)
        assert world.cloud.tokens == ["0", "1", "1"]
        assert world.cloud.calls[1].request == world.cloud.calls[2].request
        assert len(world.cloud.all()) == 1

    def test_a_crash_between_the_two_calls_launches_one_instance(
        self, world: Groups, refusal: CloudError, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        denies(world, refusal, "odd")
        ref = labelled(world, {"odd": "1"})
        run = world.cloud.run

        def crash(*given: Any) -> Any:
            if given[1].placement:
                raise KeyboardInterrupt
            return run(*given)

        monkeypatch.setattr(world.cloud, "run", crash)
        with pytest.raises(KeyboardInterrupt):
            world.call(ref)
        monkeypatch.undo()
        world.restart()
        world.later(60)
        world.sweep.tick()
        assert world.has_instance(ref)
        assert world.cloud.tokens == ["0", "1"]

    def test_what_an_earlier_call_launched_is_the_attempts(
        self, world: Groups, refusal: CloudError
    ) -> None:
        world.cloud.script = [Done(UNKNOWN[0])]
        ref = labelled(world, {"odd": "1"})
        world.call(ref)
        denies(world, refusal, "odd")
        world.later(60)
        world.sweep.tick()
        assert world.has_instance(ref)
        assert world.attempt(ref).launch.placement == 0
        assert len(world.cloud.all()) == 1

    def test_what_ec2_may_not_show_yet_is_waited_for(
        self, world: Groups, refusal: CloudError
    ) -> None:
        world.cloud.script = [UNKNOWN[0]]
        ref = labelled(world, {"odd": "1"})
        world.call(ref)
        denies(world, refusal, "odd")
        world.later(60)
        world.sweep.tick()
        assert world.cloud.tokens == ["0", "0"]
        assert world.blocked_on(ref) == ["answer"]
        assert not world.launcher.admission.circuit_breaker.is_open
        world.later(world.settings.cloud_grace_s)
        world.sweep.tick()
        assert world.has_instance(ref)

    def test_without_rights_for_anything_it_waits_and_keeps_its_labels(
        self, world: Groups, refusal: CloudError
    ) -> None:
        denies(world, refusal, "Name")
        ref = labelled(world, {"good": "1"})
        world.call(ref)
        assert world.blocked_on(ref) == ["authorization"]
        assert refusal.code in (world.attempt(ref).detail or "")
        assert world.launcher.admission.circuit_breaker.is_open
        calls = len(world.cloud.calls)
        assert calls == 2 * len(set(world.cloud.offerings)), "with the labels and without"
        denies(world, refusal)
        world.later(60)
        world.sweep.tick()
        assert world.has_instance(ref)
        assert sent_by(world.cloud.calls[-1].request)["good"] == "1"
        assert len(set(world.cloud.tokens)) == calls + 1

    def test_while_others_have_no_rights_it_waits_and_keeps_its_labels(
        self, world: Groups, refusal: CloudError
    ) -> None:
        breaker = world.launcher.admission.circuit_breaker

        def meanwhile(_: object) -> CloudError:
            breaker.open("another call was refused")
            return refusal

        world.cloud.policy = meanwhile
        ref = labelled(world, {"good": "1"})
        world.call(ref)
        assert len(world.cloud.calls) == 1
        assert world.blocked_on(ref) == ["authorization"]
        denies(world, refusal)
        world.later(60)
        world.sweep.tick()
        assert world.has_instance(ref)
        assert sent_by(world.cloud.calls[-1].request)["good"] == "1"
        assert len(set(world.cloud.tokens)) == 2

    def test_with_the_next_offering_it_has_no_labels_where_they_were_why(
        self, world: Groups, refusal: CloudError
    ) -> None:
        denies(world, refusal, "odd")
        world.cloud.script = [NO_CAPACITY]
        ref = labelled(world, {"odd": "1"})
        world.call(ref)
        assert world.has_instance(ref)
        assert [one[1] for one in world.cloud.offerings] == [A, A, B]


def test_an_offering_that_is_forbidden_costs_no_labels(world: Groups) -> None:
    refusal = DENIED[0]
    world.cloud.script = [refusal, refusal]
    ref = labelled(world, {"good": "1"})
    world.call(ref)
    assert world.has_instance(ref)
    assert [one[1] for one in world.cloud.offerings] == [A, A, B]
    assert sent_by(world.cloud.calls[-1].request)["good"] == "1"
    assert not world.launcher.admission.circuit_breaker.is_open
    assert world.launcher.admission.availability.count() == 1


def test_missing_credentials_leave_no_label_out(world: Groups) -> None:
    world.cloud.script = [error(Unauthorized, "AuthFailure")]
    ref = labelled(world, {"good": "1"})
    world.call(ref)
    assert len(world.cloud.calls) == 1
    assert world.launcher.admission.circuit_breaker.is_open


@pytest.mark.parametrize("refusal", DENIED, ids=str)
@pytest.mark.parametrize("many", [1, 3])
def test_a_refused_tag_of_the_deployment_ends_no_job_and_its_correction_lets_all_go_on(
    world: Groups, refusal: CloudError, many: int
) -> None:
    world.cloud.policy = lambda tags: refusal if tags.get("team") != "right" else None
    refs = [labelled(world, {"good": "1"}) for _ in range(many)]
    world.work(refs)
    assert {world.attempt(ref).state for ref in refs} == {AttemptState.LAUNCHING}
    assert {tuple(world.blocked_on(ref)) for ref in refs} == {("authorization",)}
    assert all(refusal.code in (world.attempt(ref).detail or "") for ref in refs)
    assert gauge("atemporal_launch_circuit_breaker_open") == 1
    queued = labelled(world, {})
    world.sweeps(3)
    assert world.job(queued).state is JobState.QUEUED
    world.restart(tags={"team": "right"})
    world.later(60)
    world.sweeps(2)
    assert world.each_has_one([*refs, queued])
    assert not world.launcher.admission.circuit_breaker.is_open
    for ref in refs:
        launch = world.attempt(ref).launch
        assert (launch.tags, launch.label_tags) == ({"team": "right"}, ("*",)), (
            "what was asked for"
        )
