"""One attempt's way from its intent to its instance, or a launch group's to its instances.

Promise: an attempt gets one instance, whatever crashes; `Walk._round` is the whole way, from top to
bottom.
Mechanism: before each call the row says that it may be sent, with everything it is made of, and the
call's token follows from the intent and its placement: whoever finds the row after a crash repeats the
identical call and gets the same instance. `decision` says what follows an outcome, `_apply` writes it,
each decision in one transaction.
Failure: a view of the row that is not true any more changes nothing, and no call is sent by it. What is
blocked stays `launching`, says by what, and has the reaper's launch deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, assert_never, get_args

from atemporal.architecture import architecture
from atemporal.cloud import (
    FAILURES,
    MAYBE_TAGS,
    Cloud,
    CloudError,
    Forbidden,
    Instance,
    NoCapacity,
    OverQuota,
    Throttled,
    TokenMismatch,
    TokenSpent,
    TooMany,
    WrongImage,
)
from atemporal.errors import Invalid, Refused
from atemporal.metrics import counter, histogram, series
from atemporal.metrics.endings import ENDED
from atemporal.model import JobSpec, Launch
from atemporal.prices import NO_PRICES, Prices
from atemporal.settings import Settings
from atemporal.states import BlockedReason, Reason
from atemporal.store.database import Database
from atemporal.telemetry import logger
from services.launcher.admission import Admission
from services.launcher.decision import (
    REPEAT_S,
    WITHOUT_LABELS,
    Blocked,
    Decision,
    Exchange,
    Facts,
    Launched,
    Leave,
    RefusalReason,
    Refuse,
    Release,
    Split,
    TryNext,
    choose,
    decide,
    exchange,
    is_unsure,
    other_tags,
)
from services.launcher.intent import ACTOR, Intent
from services.launcher.offerings import Offering, offering_of, offerings, placed, priced

LAUNCHES = counter(
    "atemporal_launches_total",
    "Launches that EC2 was asked for, by what it answered: launched, or the class of its error.",
    result=["launched", *(failure.__name__ for failure in FAILURES)],
)
LAUNCH_DURATION = histogram(
    "atemporal_launch_duration_seconds", "Duration of the calls that ask EC2 for a launch."
)
STALE = counter(
    "atemporal_stale_launches_total",
    "Launches that went on without this process, by the step at which it found out.",
    step=["begin", "walk", "launched"],
)
series(ENDED, reason=get_args(RefusalReason))

# After so long of one refusal after the other, the rest of the offerings is left to the next tick: a
# tick must end well before a stopping daemon's patience does.
TICK_S = 8.0
# A call for many leaves the last tokens to small ones, so of several at once one finds too few. What
# will be there within this is worth waiting for: the next tick begins when the other calls have ended.
SOON_S = 2.0


class Walk:
    """One intent on its way; used once, by one thread."""

    def __init__(
        self,
        intent: Intent,
        spec: JobSpec,
        *,
        settings: Settings,
        database: Database,
        cloud: Cloud,
        admission: Admission,
        clock: Callable[[], float],
        rng: Callable[[], float],
        pause: Callable[[float], object],
        prices: Prices = NO_PRICES,
    ) -> None:
        """Take what it needs; nothing is called yet. `rng` gives numbers in [0, 1) for jitter."""
        self._intent = intent
        # Our view of the row: every change is guarded by it.
        self._launch = intent.launch
        # When the last of the earlier calls was sent whose outcome nobody knows.
        self._earlier_at = intent.launch.unsure_at
        self._refused = False
        # What was left out of the intent to learn whether EC2 refuses it for that.
        self._left_out: Mapping[str, Any] = {}
        self._until = 0.0
        found = offerings(
            spec.machine, instance_types=(settings.instance_type,), subnets=settings.subnets
        )
        # A bound is held by the price in the intent, where this process knows no other.
        self._offerings = priced(found, spec, prices) or (offering_of(intent.launch),)
        self._prices = prices
        self._settings = settings
        self._database = database
        self._cloud = cloud
        self._admission = admission
        self._clock = clock
        self._rng = rng
        self._pause = pause
        self._log = logger(ACTOR).bind(**intent.log_context)

    def run(self) -> None:
        """Ask for one offering after the other, until there is an instance or a reason to wait."""
        self._until = self._clock() + TICK_S
        going_on = True
        while going_on:
            in_time = self._clock() < self._until
            going_on = self._apply(self._round() if in_time else Release())

    def _round(self) -> Decision:
        """Make one call at most, and decide what follows."""
        # Choose an offering, unless a call may have been sent for the present one.
        if self._launch.calls == 0:
            choice = choose(self._offerings, self._admission.unavailable(self._offerings))
            if choice != TryNext(offering_of(self._launch)):
                return choice
        # Render what the call is made of.
        try:
            user_data = self._intent.render(self._launch)
        except KeyError:
            # Keys are being replaced, and this process has not got the new one yet.
            detail = f"the callback key {self._launch.key_id!r} is not among this launcher's"
            return Blocked(BlockedReason.KEY, detail, REPEAT_S)
        except Invalid as error:
            detail = f"the user-data can not be made: {error}"
            return Refuse(Reason.LAUNCH_REFUSED, detail)
        # May this process call now?
        if self._admission.circuit_breaker.ready_in() > 0:
            return self._unauthorized()
        if not self._take():
            return Release()
        # Ask: of all that read the same row, one may call. From here on the call may have been sent.
        if not self._ask():
            return Leave()
        if not self._admission.circuit_breaker.allow():
            return self._unauthorized()
        outcome = self._run_instances(user_data)
        self._refused = not is_unsure(outcome)
        if isinstance(outcome, CloudError) and (changes := self._changes(outcome)):
            # This attempt alone may be affected, so no other waits for it.
            self._admission.circuit_breaker.inconclusive()
            return exchange(changes, outcome.detail, self._facts(outcome, changes=True))
        if not isinstance(outcome, MAYBE_TAGS):
            self._left_out = {}
        # Learn for all attempts, then decide for this one.
        offering = offering_of(self._launch)
        elsewhere = isinstance(outcome, Forbidden) and self._admission.may_ask_elsewhere(
            offering, self._offerings
        )
        size = self._intent.size
        self._admission.learn(offering, outcome, may_ask_elsewhere=elsewhere, size=size)
        return decide(outcome, self._facts(outcome, may_ask_elsewhere=elsewhere))

    def _take(self) -> bool:
        """Take the tokens of one call; False when there are none, and will be none soon."""
        if self._intent.take(self._admission, self._launch):
            return True
        # Those of one instance are made as there are tokens, so there are never many that wait.
        if self._intent.size == 1 or self._launch.calls:
            return False
        in_s = self._admission.rate_limit_s(self._intent.size)
        if in_s > min(SOON_S, self._until - self._clock()):
            return False
        self._pause(in_s)
        return self._intent.take(self._admission, self._launch)

    def _unauthorized(self) -> Blocked:
        breaker = self._admission.circuit_breaker
        return Blocked(BlockedReason.AUTHORIZATION, breaker.detail, breaker.ready_in())

    def _ask(self) -> bool:
        """Write down that a call may be sent; False when the attempt is not ours to call for."""
        since = self._clock()
        with self._database.begin() as tx:
            asked = self._intent.ask(tx, self._launch)
        # Frozen in between for so long, this process has lost the attempt to another.
        if asked is None or self._clock() - since > self._settings.stale_after_s:
            STALE.labels("walk").inc()
            return False
        self._earlier_at = self._launch.unsure_at
        if self._launch.calls and "unsure_at" not in self._launch.model_fields_set:
            # Releases before this fact repeated a call without saying whether the last one was sure.
            self._earlier_at = asked.unsure_at
        self._launch = asked
        return True

    def _run_instances(self, user_data: bytes) -> Instance | CloudError:
        try:
            with LAUNCH_DURATION.time():
                instance = self._intent.run(self._cloud, self._launch, user_data)
        except CloudError as error:
            LAUNCHES.labels(type(error).__name__).inc()
            self._log.warning(
                "not launched",
                offering=str(offering_of(self._launch)),
                placement=self._launch.placement,
                error=str(error),
            )
            return error
        LAUNCHES.labels("launched").inc()
        return instance

    def _changes(self, outcome: CloudError) -> Mapping[str, Any]:
        """What to change of the intent where what this attempt alone has may be why it was refused."""
        launch, settings = self._launch, self._settings
        if isinstance(outcome, MAYBE_TAGS):
            labels = self._intent.labels(launch)
            return other_tags(launch, labels, tags=settings.tags, label_tags=settings.label_tags)
        if isinstance(outcome, WrongImage):
            try:
                image = self._cloud.resolve_image(architecture(launch.instance_type))
            except CloudError:
                return {}
            return {"image_id": image} if image != launch.image_id else {}
        return {}

    def _facts(
        self,
        outcome: Instance | CloudError,
        *,
        may_ask_elsewhere: bool = False,
        changes: bool = False,
    ) -> Facts:
        """Look up what the decision about this outcome asks for, and no more."""
        another = may_ask_elsewhere or isinstance(outcome, (NoCapacity, OverQuota, TooMany))
        by_token = isinstance(outcome, (TokenSpent, TokenMismatch))
        again = self._launch.calls > 1
        smaller = self._intent.size > 1 and isinstance(outcome, Throttled)
        repeated = again and (another or smaller or changes or isinstance(outcome, Refused))
        return Facts(
            self._offerings,
            unavailable=self._admission.unavailable(self._offerings) if another else {},
            found=self._find() if by_token or repeated else (),
            unproven_s=self._unproven_s() if by_token or repeated else 0.0,
            may_ask_elsewhere=may_ask_elsewhere,
            size=self._intent.size,
            repeated=again,
            circuit_detail=self._admission.circuit_breaker.detail,
            circuit_s=self._admission.circuit_breaker.ready_in(),
            rate_limiter_s=self._admission.rate_limit_s(),
        )

    def _unproven_s(self) -> float:
        """How long to wait until EC2 surely shows what an earlier call launched; 0 when it does."""
        if self._earlier_at is None or self._launch.unsure_at is None:
            return 0.0
        passed = (self._launch.unsure_at - self._earlier_at).total_seconds()
        return max(self._settings.cloud_grace_s - passed, 0.0)

    def _find(self) -> list[Instance] | CloudError:
        """The intent's instances as EC2 shows them, those alive first; or why it does not."""
        try:
            found = self._intent.find(self._cloud, self._launch)
            return sorted(found, key=lambda instance: instance.gone)
        except CloudError as error:
            return error

    def _apply(self, decision: Decision) -> bool:
        """Write the decision down; True when the next round begins at once."""
        match decision:
            case Launched(instance):
                with self._database.begin() as tx:
                    in_time = self._intent.launched(tx, self._launch, instance)
                if not in_time:
                    STALE.labels("launched").inc()
                self._log.info("launched", in_time=in_time, instance=instance.id)
                return False
            case TryNext(offering):
                by = self._placed(offering)
                with self._database.begin() as tx:
                    going_on = self._intent.replace(tx, self._launch, by)
                return self._go_on(by) if going_on else self._stale()
            case Exchange():
                return self._exchange(decision)
            case Split():
                by = placed(self._launch, offering_of(self._launch))
                with self._database.begin() as tx:
                    going_on = self._intent.split(tx, self._launch, by)
                self._admission.call_sizes.refused(offering_of(self._launch))
                self._admission.backlog.set()
                return self._go_on(by) if going_on else self._stale()
            case Blocked():
                self._postpone(decision)
                return False
            case Refuse(reason, detail):
                with self._database.begin() as tx:
                    ended = self._intent.end(tx, reason, detail)
                ENDED.labels(reason).inc(ended)
                self._log.error("launch refused", reason=reason, detail=detail)
                return False
            case Release():
                with self._database.begin() as tx:
                    stale_s = self._settings.stale_after_s
                    self._intent.release(tx, self._launch, stale_s=stale_s)
                return False
            case Leave():
                return False
            case _:
                assert_never(decision)

    def _exchange(self, decision: Exchange) -> bool:
        """Write the changed intent down, with a placement of its own: the next call is another call."""
        changes, launch = decision.changes, self._launch
        by = placed(launch, offering_of(launch)).model_copy(update=dict(changes))
        with self._database.begin() as tx:
            if not self._intent.replace(tx, launch, by):
                return self._stale()
        self._go_on(by)
        if changes == WITHOUT_LABELS:
            self._left_out = {"label_tags": launch.label_tags}
            done = "asked for without the labels of its job; see ATEMPORAL_LABEL_TAGS"
            labels = sorted(self._intent.labels(launch))
            self._log.warning(done, labels=labels, error=decision.why)
        return True

    def _placed(self, offering: Offering) -> Launch:
        """The next placement: with its labels again, unless EC2 took a call without them."""
        return placed(self._launch, offering, self._prices).model_copy(update=dict(self._left_out))

    def _go_on(self, by: Launch) -> bool:
        self._launch, self._earlier_at, self._refused = by, None, False
        self._left_out = {}
        return True

    def _stale(self) -> bool:
        STALE.labels("walk").inc()
        return False

    def _postpone(self, blocked: Blocked) -> None:
        """Leave the attempt to a sweep, and write what blocks it."""
        launch = self._launch
        if self._refused:
            # This call has launched nothing; what is not known of an earlier one stays so.
            launch = launch.model_copy(update={"unsure_at": self._earlier_at})
        again = blocked.start_over
        if again is None and self._left_out and (self._refused or not launch.calls):
            again = offering_of(launch)
        if again and (launch.calls or self._left_out or again != offering_of(launch)):
            launch = self._placed(again)
        with self._database.begin() as tx:
            if launch is not self._launch and not self._intent.replace(tx, self._launch, launch):
                self._stale()
                return
            self._intent.postpone(
                tx,
                launch,
                blocked_on=blocked.reason,
                detail=blocked.detail,
                # With jitter: those blocked by the same thing should not all come back at once.
                delay_s=blocked.for_s * (1 + self._rng() / 4),
                stale_s=self._settings.stale_after_s,
            )
