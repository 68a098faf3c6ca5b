"""What follows one call for its attempt: every outcome, with what is known beside it."""

from __future__ import annotations

from typing import Any

import pytest

from atemporal.cloud import (
    CloudError,
    Forbidden,
    Instance,
    NoAnswer,
    NoCapacity,
    OverQuota,
    Rejected,
    ServerFault,
    TagRefused,
    Throttled,
    TokenMismatch,
    TokenSpent,
    TooMany,
    Unauthorized,
    Unreachable,
)
from atemporal.model import Launch
from atemporal.states import BlockedReason, Reason
from services.launcher.availability import Unavailable
from services.launcher.decision import (
    REPEAT_S,
    WITHOUT_LABELS,
    Blocked,
    Exchange,
    Facts,
    Launched,
    Leave,
    Refuse,
    Split,
    TryNext,
    choose,
    decide,
    exchange,
    is_unsure,
    other_tags,
)
from services.launcher.offerings import Offering

A, B = (Offering("a.b", subnet, "on-demand") for subnet in ("subnet-a", "subnet-b"))
ALIVE = Instance(id="i-1", state="running")
GONE = Instance(id="i-2", state="terminated")
NO_ROOM = Unavailable(180, BlockedReason.CAPACITY, "no room")


def error(kind: type[CloudError], code: str = "Code") -> CloudError:
    return kind("launching", code, "EC2's words")


def facts(**known: Any) -> Facts:
    return Facts(**{"offerings": (A, B), "unavailable": {A: NO_ROOM}, **known})


REFUSED = (NoCapacity, OverQuota, Rejected)
UNSURE = (NoAnswer, ServerFault)


class TestDecide:
    def test_an_instance_is_written_down(self) -> None:
        assert decide(ALIVE, facts()) == Launched(ALIVE)

    @pytest.mark.parametrize("kind", [NoCapacity, OverQuota])
    def test_a_refusal_for_want_of_room_tries_the_next_offering(
        self, kind: type[CloudError]
    ) -> None:
        assert decide(error(kind), facts()) == TryNext(B)

    @pytest.mark.parametrize("kind", UNSURE)
    def test_an_unsure_answer_repeats_the_identical_call_whatever_else_is_known(
        self, kind: type[CloudError]
    ) -> None:
        answer = error(kind)
        expected = Blocked(BlockedReason.ANSWER, answer.detail, REPEAT_S)
        for found in ((), [ALIVE], [GONE], error(Unreachable)):
            assert decide(answer, facts(found=found, may_ask_elsewhere=True)) == expected

    def test_a_throttled_call_is_repeated_as_the_rate_limiter_allows(self) -> None:
        answer = error(Throttled)
        expected = Blocked(BlockedReason.THROTTLE, answer.detail, 1.5)
        assert decide(answer, facts(rate_limiter_s=1.5)) == expected

    def test_a_throttled_call_for_many_is_made_smaller_when_its_repeat_is_throttled(self) -> None:
        answer = error(Throttled)
        assert isinstance(decide(answer, facts(size=200)), Blocked)
        assert decide(answer, facts(size=200, repeated=True)) == Split()
        assert isinstance(decide(answer, facts(size=1, repeated=True)), Blocked)

    def test_a_throttled_repeat_is_not_made_smaller_while_an_earlier_call_may_have_launched(
        self,
    ) -> None:
        many = facts(size=200, repeated=True, unproven_s=280.0)
        decision = decide(error(Throttled), many)
        assert isinstance(decision, Blocked)
        assert decision.reason is BlockedReason.ANSWER

    @pytest.mark.parametrize("kind", [Unauthorized, Forbidden, TagRefused])
    def test_without_rights_anywhere_it_is_blocked_by_the_circuit_breaker(
        self, kind: type[CloudError]
    ) -> None:
        refused = facts(circuit_detail="AuthFailure", circuit_s=5.0)
        expected = Blocked(BlockedReason.AUTHORIZATION, "AuthFailure", 5.0)
        assert decide(error(kind), refused) == expected

    def test_a_forbidden_offering_is_exchanged_while_another_may_be_allowed(self) -> None:
        assert decide(error(Forbidden), facts(may_ask_elsewhere=True)) == TryNext(B)

    def test_missing_credentials_exchange_no_offering(self) -> None:
        decision = decide(error(Unauthorized), facts(may_ask_elsewhere=False))
        assert isinstance(decision, Blocked)
        assert decision.start_over is None

    def test_a_final_refusal_ends_the_attempt_with_the_whole_sentence(self) -> None:
        answer = error(Rejected)
        assert decide(answer, facts()) == Refuse(Reason.LAUNCH_REFUSED, str(answer))

    @pytest.mark.parametrize("kind", [Rejected, OverQuota, TooMany])
    @pytest.mark.parametrize("size", [2, 200])
    def test_a_refused_call_for_many_proves_nothing_of_one(
        self, kind: type[CloudError], size: int
    ) -> None:
        assert decide(error(kind), facts(size=size)) == Split()
        unproven = decide(error(kind), facts(size=size, unproven_s=280.0))
        assert isinstance(unproven, Blocked)

    @pytest.mark.parametrize("kind", [*REFUSED, Forbidden])
    def test_a_refused_repeat_is_not_believed_while_an_earlier_calls_instance_lives(
        self, kind: type[CloudError]
    ) -> None:
        known = facts(found=[ALIVE, GONE], may_ask_elsewhere=True)
        assert decide(error(kind), known) == Launched(ALIVE)

    @pytest.mark.parametrize("kind", REFUSED)
    @pytest.mark.parametrize("unproven_s", [0.0, 280.0])
    def test_what_an_earlier_call_launched_is_written_down_also_when_it_is_gone(
        self, kind: type[CloudError], unproven_s: float
    ) -> None:
        assert decide(error(kind), facts(found=[GONE], unproven_s=unproven_s)) == Launched(GONE)

    @pytest.mark.parametrize("kind", REFUSED)
    def test_a_refused_repeat_is_not_believed_before_ec2_would_show_what_was_launched(
        self, kind: type[CloudError]
    ) -> None:
        decision = decide(error(kind), facts(unproven_s=280.0))
        assert isinstance(decision, Blocked)
        assert (decision.reason, decision.for_s) == (BlockedReason.ANSWER, 280.0)
        assert decision.start_over is None, "the identical call, and no other"
        assert decide(error(kind), facts(unproven_s=280.0, found=[ALIVE])) == Launched(ALIVE)
        believed = decide(error(kind), facts(unproven_s=0.0))
        assert isinstance(believed, TryNext | Refuse)

    @pytest.mark.parametrize("kind", [*REFUSED, TokenSpent])
    def test_of_a_call_for_many_what_ec2_may_not_show_yet_is_waited_for(
        self, kind: type[CloudError]
    ) -> None:
        for found in ([GONE], [ALIVE, GONE]):
            decision = decide(error(kind), facts(size=3, found=found, unproven_s=280.0))
            assert isinstance(decision, Blocked)
            assert (decision.for_s, decision.start_over) == (280.0, None)
            late = decide(error(kind), facts(size=3, found=found))
            assert late == Launched(found[0]), "there are no more"

    def test_only_a_call_without_a_sure_answer_may_have_launched(self) -> None:
        assert all(is_unsure(error(kind)) for kind in UNSURE)
        sure = (*REFUSED, Throttled, Unauthorized, Forbidden, TagRefused)
        assert not any(is_unsure(error(kind)) for kind in sure)
        # The image is looked up before the call: where that fails no call was sent.
        assert not is_unsure(error(Unreachable))
        assert not is_unsure(ALIVE)

    @pytest.mark.parametrize("kind", [*REFUSED, TokenSpent, TokenMismatch])
    def test_when_ec2_can_not_be_asked_what_was_launched_the_identical_call_is_repeated(
        self, kind: type[CloudError]
    ) -> None:
        away = error(Unreachable, "EndpointConnectionError")
        expected = Blocked(BlockedReason.ANSWER, away.detail, REPEAT_S)
        assert decide(error(kind), facts(found=away)) == expected

    @pytest.mark.parametrize("kind", [TokenSpent, TokenMismatch])
    def test_what_a_used_token_launched_is_written_down_also_when_it_is_gone(
        self, kind: type[CloudError]
    ) -> None:
        assert decide(error(kind), facts(found=[ALIVE, GONE])) == Launched(ALIVE)
        assert decide(error(kind), facts(found=[GONE])) == Launched(GONE)

    def test_a_spent_token_without_an_instance_ends_the_attempt_as_lost(self) -> None:
        answer = error(TokenSpent)
        assert decide(answer, facts()) == Refuse(Reason.INSTANCE_LOST, str(answer))

    def test_a_mismatched_token_without_an_instance_is_left_to_a_sweep(self) -> None:
        assert decide(error(TokenMismatch), facts()) == Leave()


class TestChoose:
    def test_the_first_available_offering_is_chosen(self) -> None:
        assert choose((A, B), {}) == TryNext(A)
        assert choose((A, B), {A: NO_ROOM}) == TryNext(B)

    def test_with_none_available_it_is_blocked_until_the_first_is_and_starts_over(self) -> None:
        soon = Unavailable(60, BlockedReason.QUOTA, "the limit is 5")
        decision = choose((A, B), {B: soon, A: NO_ROOM})
        assert isinstance(decision, Blocked)
        assert (decision.reason, decision.for_s) == (BlockedReason.QUOTA, 60)
        assert decision.start_over == A
        assert "the limit is 5" in decision.detail


class TestTagsThatAreRefused:
    LAUNCH = Launch(
        image_id="ami-1",
        instance_type="a.b",
        callback_base="http://here",
        key_id="k1",
        deadline_s=60,
        tags={"team": "a"},
        label_tags=("*",),
    )

    def asked_next(self, labels: list[str], **settings: Any) -> Any:
        now = {"tags": {"team": "a"}, "label_tags": ("*",), **settings}
        return other_tags(self.LAUNCH, labels, **now)

    def test_labels_are_left_out_first(self) -> None:
        assert self.asked_next(["odd"]) == WITHOUT_LABELS

    def test_a_refusal_without_labels_concerns_all(self) -> None:
        assert self.asked_next([]) == {}

    @pytest.mark.parametrize("labels", [[], ["odd"]])
    def test_tags_of_older_settings_are_exchanged_before_that(self, labels: list[str]) -> None:
        by_now = {"tags": {"team": "b"}, "label_tags": ("x",)}
        assert self.asked_next(labels, **by_now) == by_now

    def test_what_is_exchanged_is_exchanged_once(self) -> None:
        by_now: dict[str, Any] = {"tags": {"team": "b"}, "label_tags": ("*",)}
        launch = self.LAUNCH.model_copy(update=by_now)
        assert other_tags(launch, ["odd"], **by_now) == WITHOUT_LABELS
        launch = launch.model_copy(update=WITHOUT_LABELS)
        assert other_tags(launch, launch.tags_of({"odd": "1"}).tags, **by_now) == {}

    def test_an_intent_without_tags_is_one_with_none(self) -> None:
        launch = self.LAUNCH.model_copy(update={"tags": None, "label_tags": ()})
        assert other_tags(launch, [], tags={}, label_tags=("*",)) == {}

    def test_what_an_earlier_call_launched_comes_before_another_call(self) -> None:
        anew = Exchange(WITHOUT_LABELS, "why")
        assert exchange(WITHOUT_LABELS, "why", facts()) == anew
        assert exchange(WITHOUT_LABELS, "why", facts(found=[ALIVE])) == Launched(ALIVE)
        unproven = exchange(WITHOUT_LABELS, "why", facts(unproven_s=280.0))
        assert isinstance(unproven, Blocked)
        assert (unproven.reason, unproven.for_s) == (BlockedReason.ANSWER, 280.0)
