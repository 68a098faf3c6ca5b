"""TerminateInstances against the twin: as few calls as can be, without the operating system where
nothing runs, and whatever EC2 makes of it."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError, ParamValidationError
from sqlalchemy import text

from atemporal import tokens
from atemporal.cloud import Cloud, Throttled
from atemporal.cloud.caller import OURS
from atemporal.errors import Unavailable
from atemporal.limits import Limit, Unlimited
from atemporal.model import Attempt, AttemptRef
from atemporal.states import AttemptState
from atemporal.store import attempts
from services.reaper.reaper import FRESH_S, Reaper
from tests.integration.reaping import DEPLOYMENT, ENDED, NOBODY, World

KEYS = {"k1": b"0123456789abcdef0123456789abcdef"}


class Recorder:
    """EC2's client for TerminateInstances and DescribeInstances: what was sent, and how it went."""

    def __init__(self, world: World, patch: pytest.MonkeyPatch) -> None:
        self.ends: list[dict[str, Any]] = []
        self.describes = 0
        self.refuses: dict[str, str] = {}
        self.failure: Exception | None = None
        client = world.cloud._ec2
        self._end, self._describe = client.terminate_instances, client.describe_instances
        patch.setattr(client, "terminate_instances", self.end)
        patch.setattr(client, "describe_instances", self.describe)

    def end(self, **request: Any) -> Any:
        self.ends.append(request)
        for name, code in self.refuses.items():
            if name in request:
                if code == "ParamValidationError":
                    raise ParamValidationError(report=f"Unknown parameter in input: {name}")
                raise refusal(code)
        answer = self._end(**request)
        if self.failure:
            raise self.failure
        return answer

    def describe(self, **request: Any) -> Any:
        self.describes += 1
        return self._describe(**request)


def refusal(code: str, status: int = 400) -> ClientError:
    answer: Any = {
        "Error": {"Code": code, "Message": "no"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(answer, "TerminateInstances")


@pytest.fixture
def sent(world: World, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    world.cloud._terminations._not_taken = frozenset()
    return Recorder(world, monkeypatch)


@pytest.fixture
def proving(world: World) -> None:
    def proven(attempt: Attempt) -> bool:
        return tokens.instance_is_proven(
            KEYS,
            attempt.instance_proof or "",
            DEPLOYMENT,
            attempt.ref.id,
            attempt.instance_id or "",
        )

    world.reaper = Reaper(world.database, world.cloud, proven=proven)


def launched(world: World, *, deployment: str = DEPLOYMENT) -> tuple[AttemptRef, str]:
    """An attempt with its instance, as the launcher writes it down."""
    ref = world.begin()
    instance = world.cloud.run(ref, world.attempt(ref).launch, b"#!/bin/true\n")
    proof = tokens.prove_instance(KEYS, "k1", deployment, ref.id, instance.id)
    with world.database.begin() as tx:
        attempts.launched(tx, ref, instance.id, actor="test", proof=proof)
    return ref, instance.id


def ran(world: World, instance_id: str, ref: AttemptRef) -> None:
    world.claim(ref, instance_id)
    world.complete(ref)


@pytest.mark.usefixtures("proving")
class TestMessages:
    def test_ends_of_one_moment_are_one_call_and_no_question(
        self, world: World, sent: Recorder
    ) -> None:
        pairs = [launched(world) for _ in range(5)]
        for ref, instance_id in pairs:
            ran(world, instance_id, ref)
        sent.describes = 0
        world.reaper.end_instances_of([ref for ref, _ in pairs])
        (call,) = sent.ends
        assert set(call["InstanceIds"]) == {one for _, one in pairs}
        assert call["SkipOsShutdown"] is True
        assert "Force" not in call
        assert sent.describes == 0

    def test_a_program_that_is_cancelled_while_it_runs_is_told_to_stop(
        self, world: World, sent: Recorder
    ) -> None:
        (ref, running), (waiting_ref, waiting) = launched(world), launched(world)
        world.claim(ref, running)
        for one in (ref, waiting_ref):
            world.cancel(one)
        world.reaper.end_instances_of([ref, waiting_ref])
        asked = {call["InstanceIds"][0]: call.get("SkipOsShutdown", False) for call in sent.ends}
        assert asked == {running: False, waiting: True}

    @pytest.mark.parametrize("wrong", ["of another deployment", "of another instance", "old"])
    def test_without_a_proof_that_counts_ec2_is_asked_whose_it_is(
        self, world: World, sent: Recorder, wrong: str
    ) -> None:
        ref, mine = launched(
            world, deployment="staging" if wrong == "of another deployment" else DEPLOYMENT
        )
        other = world.foreign({})
        ran(world, mine, ref)
        with world.database.begin() as tx:
            if wrong == "of another instance":
                tx.execute(text("UPDATE attempts SET instance_id = :id"), {"id": other})
            if wrong == "old":
                age = {"s": FRESH_S + 1}
                tx.execute(
                    text("UPDATE attempts SET exited_at = now() - make_interval(secs => :s)"), age
                )
        world.reaper.end_instances_of([ref])
        assert sent.describes == 1
        assert world.states()[other] == "pending"
        assert (world.states()[mine] in ENDED) is (wrong != "of another instance")

    def test_an_attempt_that_goes_on_is_left_alone(self, world: World, sent: Recorder) -> None:
        ref, _ = launched(world)
        world.reaper.end_instances_of([ref])
        assert sent.ends == []


class TestOptions:
    """Endpoints that do not know the newer parameters get the plain call."""

    @pytest.mark.parametrize(
        "code",
        ["UnknownParameter", "InvalidParameterCombination", "Unsupported", "ParamValidationError"],
    )
    def test_what_is_not_taken_is_left_out_and_that_is_remembered(
        self, world: World, sent: Recorder, code: str
    ) -> None:
        sent.refuses = {"SkipOsShutdown": code}
        ids = [world.launch()[1] for _ in range(3)]
        assert world.cloud.terminate(ids[:2], skip_os_shutdown=True) == {}
        assert world.cloud.terminate(ids[2:], skip_os_shutdown=True) == {}
        assert [set(call) - {"InstanceIds"} for call in sent.ends] == [
            {"SkipOsShutdown"},
            set(),
            set(),
        ]
        assert {world.states()[one] in ENDED for one in ids} == {True}

    def test_force_may_be_taken_where_the_other_is_not(self, world: World, sent: Recorder) -> None:
        sent.refuses = {"SkipOsShutdown": "UnknownParameter"}
        _, one = world.launch()
        world.cloud.terminate([one], skip_os_shutdown=True)
        world.cloud.terminate([one], force=True)
        assert sent.ends[-1] == {"InstanceIds": [one], "Force": True}

    def test_a_bad_id_is_not_taken_for_a_parameter_that_is_not_known(
        self, world: World, sent: Recorder
    ) -> None:
        _, one = world.launch()
        failures = world.cloud.terminate([one, NOBODY], skip_os_shutdown=True)
        assert list(failures) == [NOBODY]
        assert all(call["SkipOsShutdown"] for call in sent.ends)


class TestOutcome:
    """The answer is never taken for the outcome."""

    def test_some_of_a_call_that_failed_have_ended_and_the_rest_is_asked_again(
        self, world: World
    ) -> None:
        answer = world.ec2.run_instances(
            ImageId="ami-12345678",
            InstanceType="t3.small",
            MinCount=1,
            MaxCount=1,
            DisableApiTermination=True,
        )
        protected = answer["Instances"][0]["InstanceId"]
        ids = [world.launch()[1] for _ in range(4)]
        failures = world.cloud.terminate([*ids[:2], protected, *ids[2:]])
        assert list(failures) == [protected]
        states = world.states()
        assert [states[one] in ENDED for one in ids] == [True] * 4
        assert states[protected] == "pending"

    @pytest.mark.parametrize("failure", [refusal("InternalError", 500), refusal("Odd", 400)])
    def test_an_error_after_the_deed_closes_nothing_and_the_listing_does(
        self, world: World, sent: Recorder, failure: Exception
    ) -> None:
        ref, one = world.launch()
        world.cancel(ref)
        sent.failure = failure
        world.reaper.end_instances_of([ref])
        assert world.attempt(ref).state is AttemptState.EXITED
        world.wait_gone(one)
        world.sweep().tick()
        assert world.attempt(ref).state is AttemptState.CLOSED

    def test_an_answer_without_error_closes_nothing_either(
        self, world: World, sent: Recorder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ref, one = world.launch()
        world.cancel(ref)
        monkeypatch.setattr(world.cloud._ec2, "terminate_instances", lambda **_: {})
        world.reaper.end_instances_of([ref])
        world.sweep().tick()
        assert world.states()[one] == "pending"
        assert world.attempt(ref).state is AttemptState.EXITED

    def test_one_that_stays_shutting_down_is_forced(self, world: World, sent: Recorder) -> None:
        ref, one = world.launch()
        world.cancel(ref)
        world.change(one, state="shutting-down")
        sweep = world.sweep()
        sweep.tick()
        assert sent.ends == [], "its end has begun"
        with world.database.begin() as tx:
            tx.execute(text("UPDATE attempts SET exited_at = now() - interval '1 hour'"))
        sweep.tick()
        sweep.tick()
        assert sent.ends == [{"InstanceIds": [one], "SkipOsShutdown": True, "Force": True}]
        world.wait_gone(one)


class Scarce(Unlimited):
    """So many instances may be ended, and no call more."""

    def __init__(self, *grants: int) -> None:
        self.grants = list(grants)

    def take(self, limit: Limit, n: int = 1, *, at_least: int = 1, leave: float = 0.0) -> int:
        if limit is not Limit.TERMINATE_INSTANCES:
            return n
        return min(n, self.grants.pop(0)) if self.grants else 0

    def ready_in(self, limit: Limit, n: int = 1, *, leave: float = 0.0) -> float:
        return 0.1


class Away(Unlimited):
    """Nobody can say whether there is a token."""

    def take(self, *_: Any, **__: Any) -> int:
        raise Unavailable("Postgres does not answer")


class TestTokens:
    def test_as_many_as_there_are_tokens_for_are_ended_and_the_rest_fails(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ids = [world.launch()[1] for _ in range(5)]
        with Cloud(world.settings, Scarce(2, 1)) as cloud:
            slept: list[float] = []
            monkeypatch.setattr(cloud._caller, "_sleep", slept.append)
            failures = cloud.terminate(ids)
        states = world.states()
        assert [states[one] in ENDED for one in ids] == [True] * 3 + [False] * 2
        assert list(failures) == ids[3:]
        assert {error.code for error in failures.values() if isinstance(error, Throttled)} == {
            OURS
        }
        assert 4 < sum(slept) <= 5

    def test_without_the_database_no_call_is_made(self, world: World) -> None:
        _, one = world.launch()
        with Cloud(world.settings, Away()) as cloud:
            for call in (lambda: cloud.terminate([one]), cloud.all, lambda: cloud.console(one)):
                with pytest.raises(Unavailable, match="Postgres"):
                    call()
        assert world.states()[one] == "pending"
