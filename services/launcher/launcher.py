"""What the launcher does: from a due job to an instance, and the sweep that finds what was left.

Promise: a job that is queued gets one attempt, an attempt gets one instance, whatever crashes.
Mechanism: the attempt with everything its RunInstances call is made of is committed before the call,
and the call's token follows from the attempt: whoever finds the row after a crash repeats the
identical call and gets the same instance. Messages only make it quick; the sweep does the same work
from the tables alone.
Failure: a final refusal ends the attempt with EC2's own words; anything else leaves it launching, to
be repeated identically until the reaper's launch deadline.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from atemporal import tokens
from atemporal.broker import LAUNCH, Link
from atemporal.cloud import Cloud, Instance, TokenMismatch, TokenSpent
from atemporal.errors import AtemporalError, Invalid, Refused
from atemporal.messages import JobDue, decode_wake
from atemporal.model import Attempt, AttemptRef, JobSpec, Launch
from atemporal.settings import Settings
from atemporal.states import Reason
from atemporal.store import attempts, jobs
from atemporal.store.database import Database
from atemporal.telemetry import (
    DEAD_LETTERS,
    ENDED,
    LAUNCH_SECONDS,
    LAUNCHES,
    STALE,
    about,
    logger,
)
from atemporal.userdata import render

ACTOR = "launcher"
BATCH = 32
CALLS_AT_ONCE = 8

Begun = tuple[Attempt, JobSpec]


class Launcher:
    """The steps, shared by message loop and sweep."""

    def __init__(self, settings: Settings, database: Database, cloud: Cloud) -> None:
        """Take what it needs; nothing is called yet.

        Raises:
            Invalid: the settings have no callback key.
        """
        self._settings = settings
        self._database = database
        self._cloud = cloud
        self._log = logger(ACTOR)
        self._key_id = settings.signing_key_id

    def begin(self, refs: Sequence[AttemptRef]) -> list[Begun]:
        """Commit the intent for those of the given jobs that are still queued for that attempt."""
        if not refs:
            return []
        image_id = self._cloud.resolve_image()
        with self._database.begin() as tx:
            queued = jobs.lock_queued(tx, refs)
            for ref, spec in queued.items():
                attempts.begin(tx, ref, self._plan(spec, image_id), actor=ACTOR)
            begun = attempts.with_specs(tx, list(queued))
        STALE.labels("job.due").inc(len(refs) - len(begun))
        return begun

    def call(self, attempt: Attempt, spec: JobSpec) -> None:
        """Ask EC2 for the attempt's instance and write down what came of it."""
        ref, launch = attempt.ref, attempt.launch
        log = self._log.bind(**about(ref))
        try:
            token = tokens.mint(
                self._settings.keys, launch.key_id, self._settings.deployment, ref.id
            )
            user_data = render(ref, spec, launch, token)
        except (KeyError, Invalid) as error:
            self._refuse(ref, f"the user-data can not be made: {error}")
            return
        try:
            with LAUNCH_SECONDS.time():
                instance = self._cloud.run(ref, launch, user_data)
        except (TokenSpent, TokenMismatch) as error:
            LAUNCHES.labels(type(error).__name__).inc()
            log.warning("token known to EC2", error=str(error))
            self._adopt(ref, error)
            return
        except Refused as error:
            LAUNCHES.labels("refused").inc()
            self._refuse(ref, str(error))
            return
        except AtemporalError as error:
            LAUNCHES.labels(type(error).__name__).inc()
            log.warning("launch to be repeated", error=str(error))
            return
        LAUNCHES.labels("launched").inc()
        self._write_down(ref, instance)

    def unfinished(self) -> list[Begun]:
        """Find what messages left: queued jobs nobody took, intents whose call nobody finished."""
        stale_s = self._settings.stale_after_s
        with self._database.begin() as tx:
            overlooked = jobs.overlooked(tx, stale_s=stale_s, limit=BATCH)
            leased = attempts.lease_unlaunched(tx, stale_s=stale_s, limit=BATCH)
            unlaunched = attempts.with_specs(tx, leased)
        if overlooked or unlaunched:
            self._log.info("sweep found work", queued=len(overlooked), begun=len(unlaunched))
        return [*unlaunched, *self.begin(overlooked)]

    def _plan(self, spec: JobSpec, image_id: str) -> Launch:
        settings, machine = self._settings, spec.machine
        subnets = machine.subnets or settings.subnets
        types = machine.instance_types or (settings.instance_type,)
        return Launch(
            image_id=image_id,
            instance_type=types[0],
            market="spot" if machine.market.startswith("spot") else "on-demand",
            subnet_id=subnets[0] if subnets else None,
            security_group_ids=settings.security_groups,
            key_name=settings.key_name,
            instance_profile=settings.instance_profile,
            disk_gb=machine.disk_gb,
            callback_base=settings.callback_url,
            key_id=self._key_id,
            deadline_s=(
                settings.boot_deadline_s
                + settings.pull_deadline_s
                + spec.timeout_s
                + settings.machine_slack_s
            ),
        )

    def _write_down(self, ref: AttemptRef, instance: Instance) -> None:
        with self._database.begin() as tx:
            in_time = attempts.launched(tx, ref, instance.id, actor=ACTOR)
        if not in_time:
            STALE.labels("launched").inc()
        self._log.info("launched", in_time=in_time, **about(ref, instance.id))

    def _adopt(self, ref: AttemptRef, error: AtemporalError) -> None:
        """The token has been used: find what it launched. The reaper judges what became of it."""
        found = self._cloud.find(ref)
        if found:
            self._write_down(ref, found[0])
        elif isinstance(error, TokenSpent):
            with self._database.begin() as tx:
                attempts.end(tx, ref, Reason.INSTANCE_LOST, actor=ACTOR, detail=str(error))
            ENDED.labels(Reason.INSTANCE_LOST).inc()

    def _refuse(self, ref: AttemptRef, why: str) -> None:
        with self._database.begin() as tx:
            attempts.end(tx, ref, Reason.LAUNCH_REFUSED, actor=ACTOR, detail=why)
        ENDED.labels(Reason.LAUNCH_REFUSED).inc()
        self._log.error("launch refused", why=why, **about(ref))


class _Calls:
    """RunInstances calls side by side; the waiting thread keeps its broker connection alive."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._pool = ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="run-instances")

    def make(self, begun: Iterable[Begun], link: Link | None = None) -> None:
        pending: set[Future[None]] = {
            self._pool.submit(self._launcher.call, attempt, spec) for attempt, spec in begun
        }
        failures = []
        while pending:
            done, pending = wait(pending, timeout=5)
            failures += [error for error in (one.exception() for one in done) if error]
            if link is not None:
                link.heartbeat()
        if failures:
            raise failures[0]


class LaunchLoop:
    """Launches what messages name."""

    name = "launch"

    def __init__(self, launcher: Launcher, link: Link) -> None:
        """Take the steps and the connection; it is not open yet."""
        self._launcher = launcher
        self._link = link
        self._calls = _Calls(launcher)

    def turn(self) -> float:
        """Take one batch of due jobs."""
        batch = self._link.receive(LAUNCH, limit=BATCH)
        refs = []
        for delivery in batch:
            try:
                message = decode_wake(delivery.body)
                if not isinstance(message, JobDue):
                    raise Invalid({"type": f"{message.type} does not belong into {LAUNCH}"})
                refs.append(message.ref)
            except Invalid as error:
                self._link.bury(delivery, str(error))
                DEAD_LETTERS.labels(LAUNCH).inc()
        begun = self._launcher.begin(refs)
        # The intents are committed: from here the sweep would finish them without the messages.
        self._link.ack(batch)
        self._calls.make(begun, self._link)
        return 0.0

    def reset(self) -> None:
        """Drop the connection: what is not begun comes again."""
        self._link.close()


class SweepLoop:
    """Launches what the tables show to be left over."""

    name = "launch-sweep"

    def __init__(self, launcher: Launcher, *, interval_s: float) -> None:
        """Take the steps."""
        self._launcher = launcher
        self._interval_s = interval_s
        self._calls = _Calls(launcher)

    def turn(self) -> float:
        """Look once; look again at once when there was much."""
        begun = self._launcher.unfinished()
        self._calls.make(begun)
        return 0.0 if len(begun) >= BATCH else self._interval_s

    def reset(self) -> None:
        """Nothing of its own is open between turns."""
