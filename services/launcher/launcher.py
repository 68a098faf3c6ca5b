"""What the launcher does: from a due job to an attempt, and the sweep that finds what was left.

Promise: a job that is queued gets one attempt, whatever crashes. No more attempts are begun than EC2 may
be asked for now if they are alike; the others stay queued.
Mechanism: the attempt is committed with everything its RunInstances call is made of, then `walk` takes
it to its instance. Attempts that are alike and begun together become a launch group, which is walked as
one. Messages only make it quick; the sweep does the same work from the tables alone. Environments may be
large: about `LARGEST` bytes of specifications are taken up at once, and the others right after.
Failure: while EC2 refuses this process nothing is begun, and one probe finds out when it may call again.
While machines come up and can not reach the API, jobs are begun one at a time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID, uuid4

from atemporal import prices, registries
from atemporal.architecture import architecture
from atemporal.cloud import Cloud, Rejected, Unauthorized
from atemporal.errors import Unavailable
from atemporal.identity.trusted import group_size
from atemporal.intent import first_intent
from atemporal.messages import BODY_LIMIT
from atemporal.metrics import Aggregate, gauge
from atemporal.metrics.endings import ENDED
from atemporal.model import Attempt, AttemptRef, JobSpec, Launch, LaunchGroup
from atemporal.settings import PREFIX, Settings
from atemporal.states import BlockedReason, Reason
from atemporal.store import attempts, groups, installation, jobs, launches
from atemporal.store.database import Database
from atemporal.store.rows import LARGEST, Transaction
from atemporal.telemetry import log_context, logger
from services.launcher.admission import Admission
from services.launcher.intent import ACTOR, AttemptIntent, GroupIntent, Intent
from services.launcher.offerings import Offering, offerings, price_of, priced
from services.launcher.shapes import alike
from services.launcher.walk import STALE, Walk

_NOT_BLOCKED = "none"

LAUNCHES_BLOCKED = gauge(
    "atemporal_launches_blocked",
    "Launches that have no instance yet, by what they are blocked on.",
    aggregate=Aggregate.MAX,
    reason=[*BlockedReason, _NOT_BLOCKED],
)
MACHINES_NOT_BOOTING = gauge(
    "atemporal_machines_not_booting",
    "1 while the last machines that ended had never booted.",
    aggregate=Aggregate.MAX,
)

BATCH = 1000
"""So many instances EC2 launches at once; more would only wait in another place."""
NEVER_BOOTED = 5
"""So many machines in a row that never booted are no accident."""

Begun = tuple[Attempt | LaunchGroup, JobSpec]
"""What is to be walked, with what its machine, or one of its machines, has to run."""


class Launcher:
    """The steps, shared by message loop and sweep; safe to share between threads."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        cloud: Cloud,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: Callable[[], float] = random.random,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        """Take what it needs; nothing is called yet. `rng` gives numbers in [0, 1) for jitter.

        `pause` lets that many seconds pass.

        Raises:
            Invalid: the settings have no callback key, or a price table that can not be read.
        """
        self._prices = prices.load(settings)
        self._registries = registries.load(settings)
        self._settings = settings
        self._database = database
        self._cloud = cloud
        self._clock = clock
        self._rng = rng
        self._pause = pause
        self._log = logger(ACTOR)
        self._key_id = settings.signing_key_id
        self._group_size = group_size(settings)
        # What a call may be expected to be for: an attempt that is leased for nothing is written twice.
        self._expected_size = self._group_size
        self._odd = False
        self._architectures: set[str] = set()
        self.admission = Admission(settings, database, clock=clock, rng=rng)

    def ping(self) -> None:
        """Ask whether the database is there.

        Raises:
            Unavailable: it does not answer.
        """
        self._database.ping()

    def check(self) -> None:
        """Ask whether EC2 takes calls of this process, by what it last answered.

        Raises:
            Unavailable: it does not.
        """
        if self.admission.circuit_breaker.is_open:
            raise Unavailable(f"launches wait: {self.admission.circuit_breaker.detail}")

    def room(self) -> int:
        """How many attempts may be asked for now: no more work than this should be taken up."""
        return self.admission.room(BATCH)

    def ready_in(self) -> float:
        """Seconds until a call may be made at all."""
        return self.admission.ready_in()

    @property
    def behind(self) -> bool:
        """Whether there is more to ask for than there are tokens: it comes before new messages."""
        return self.admission.backlog.is_set()

    def parts(self, refs: Sequence[AttemptRef]) -> list[Sequence[AttemptRef]]:
        """Part jobs, in their order, so that each part's specifications fit into memory at once."""
        if len(refs) * BODY_LIMIT <= LARGEST:
            return [refs] if refs else []
        with self._database.begin() as tx:
            sizes = jobs.sizes(tx, [ref.job_id for ref in refs])
        found: list[list[AttemptRef]] = []
        size = LARGEST
        for ref in refs:
            if size >= LARGEST:
                found.append([])
                size = 0
            found[-1].append(ref)
            size += sizes.get(ref.job_id, 0)
        return [*found]

    def begin(self, refs: Sequence[AttemptRef]) -> list[Begun]:
        """Commit the intent for those of the given jobs that are still queued for that attempt.

        Those that are alike come as groups, and no more than may be called for now: the others are
        left to a sweep. While EC2 refuses this process there are none: the jobs stay queued. All their
        specifications are in memory at once: see `parts`.
        """
        if not refs or self.admission.circuit_breaker.ready_in() > 0:
            return []
        try:
            images = self._resolve_images()
            refs = refs[: self._may_begin(len(refs))]
            begun = self._commit(refs, images)
            if begun is None:
                begun = self._commit(refs, self._resolve_images()) or []
        except Unauthorized as error:
            self.admission.unauthorized(error)
            raise
        for attempt, spec in begun:
            if names := attempt.launch.tags_of(spec.labels).left_out:
                # Once: whoever repeats the launch, or tags its instance later, is silent.
                why = "labels that AWS would refuse as tags are left out"
                self._log.warning(why, labels=list(names), **log_context(attempt.ref))
        return self._grouped(begun)

    def _commit(
        self, refs: Sequence[AttemptRef], images: Mapping[str, str]
    ) -> list[tuple[Attempt, JobSpec]] | None:
        """Write the intents; nothing and None for the first job of an architecture without an image."""
        with self._database.begin() as tx:
            queued = jobs.lock_queued(tx, refs)
            wanted = set(map(self._architecture, queued.values()))
            if not wanted <= images.keys():
                # Not looked up here: that asks EC2, and rows are locked.
                self._architectures |= wanted
                return None
            ours = installation.identity(tx) if queued else None
            intents = {ref: self._intent(spec, images, ours) for ref, spec in queued.items()}
            begun = attempts.with_specs(tx, launches.begin_many(tx, intents, actor=ACTOR))
            STALE.labels("begin").inc(len(refs) - len(begun))
            return [one for one in begun if not self._refused(tx, *one)]

    def call(self, subject: Attempt | LaunchGroup, spec: JobSpec) -> None:
        """Ask EC2 for the attempt's instance, or the group's, and write down what came of it."""
        intent: Intent
        if isinstance(subject, LaunchGroup):
            intent = GroupIntent(subject, self._settings)
        else:
            intent = AttemptIntent(subject, spec, self._settings)
        Walk(
            intent,
            spec,
            settings=self._settings,
            database=self._database,
            cloud=self._cloud,
            admission=self.admission,
            clock=self._clock,
            rng=self._rng,
            pause=self._pause,
            prices=self._prices,
        ).run()

    def unfinished(self) -> list[Begun]:
        """Find what messages left, as much as may be called now: intents whose lease is over, and
        queued jobs nobody took."""
        room = self.room()
        if room == 0:
            return []
        stale_s = self._settings.stale_after_s
        if self.admission.circuit_breaker.is_open:
            # The one probe should not be the call that was refused before, if there is another.
            with self._database.begin() as tx:
                untried = jobs.overlooked(tx, stale_s=stale_s, limit=room)
            if begun := self.begin(untried):
                return begun
        calls = max(1, self.admission.calls(room))
        # Cleared first: who finds no token from here on is not overlooked.
        self.admission.backlog.clear()
        with self._database.begin() as tx:
            ids = groups.lease(tx, stale_s=stale_s, limit=calls)
            left_over = groups.with_specs(tx, ids)
            for group, specs in left_over:
                # With a specification that can not be read somebody waits: the lease's end comes.
                if not specs and not groups.waiting(tx, group.id):
                    groups.settle(tx, group.id)
            many = sum(group.size for group, specs in left_over if specs)
            # Groups come first, and may come without end: half of the room is not theirs.
            most = min(max(room // 2, room - many), calls * self._expected_size)
            # Neither what was begun nor what nobody took may keep the other out, of one place neither.
            self._odd = not self._odd
            half = (most + self._odd) // 2
            leased = attempts.lease_unlaunched(tx, stale_s=stale_s, limit=half, largest=LARGEST)
            room_left = most - len(leased)
            overlooked = jobs.overlooked(tx, stale_s=stale_s, limit=room_left, largest=LARGEST)
            if len(leased) == half and (spare := room_left - len(overlooked)):
                held = sum(jobs.sizes(tx, [ref.job_id for ref in leased]).values())
                leased += attempts.lease_unlaunched(
                    tx, stale_s=stale_s, limit=spare, largest=LARGEST - held
                )
            unlaunched = attempts.with_specs(tx, leased)
            too_large = bool(overlooked) and jobs.any_overlooked(tx, stale_s=stale_s)
        if len(leased) + len(overlooked) >= most or len(ids) >= calls or too_large:
            self.admission.backlog.set()
        if overlooked or unlaunched or left_over:
            self._log.info(
                "sweep found work",
                queued=len(overlooked),
                begun=len(unlaunched),
                groups=len(left_over),
            )
        again: list[Begun] = [(group, specs[0]) for group, specs in left_over if specs]
        return [*again, *self._grouped(unlaunched), *self.begin(overlooked)]

    def rest_s(self, longest_s: float) -> float:
        """Seconds, `longest_s` at most, until there may be a call to make; set the gauges."""
        with self._database.begin() as tx:
            blocked, next_in_s = launches.unlaunched(tx, stale_s=self._settings.stale_after_s)
        for reason in BlockedReason:
            LAUNCHES_BLOCKED.labels(reason).set(blocked.get(reason, 0))
        LAUNCHES_BLOCKED.labels(_NOT_BLOCKED).set(blocked.get(None, 0))
        self.admission.report()
        if next_in_s is not None and next_in_s <= 0:
            self.admission.backlog.set()
        if self.behind:
            next_in_s = 0.0
        return longest_s if next_in_s is None else min(longest_s, max(next_in_s, self.ready_in()))

    def _grouped(self, begun: Sequence[tuple[Attempt, JobSpec]]) -> list[Begun]:
        """Make groups of the attempts that are alike, each committed before anything is asked for."""
        found: list[Begun] = []
        size = self._group_size
        parts = alike(begun, offerings_of=self._offerings, at_most=self.admission.largest)
        if parts:
            self._expected_size = min(size, 2 * max(map(len, parts)))
        calls = max(1, self.admission.calls(len(parts)))
        if rest := [one.ref for part in parts[calls:] for one, _ in part]:
            with self._database.begin() as tx:
                launches.put_back(tx, rest)
            self.admission.backlog.set()
        for members in parts[:calls]:
            if len(members) == 1:
                found += members
                continue
            (attempt, spec), *_ = members
            launch = attempt.launch.model_copy(update={"placement": 0})
            group_id, refs = uuid4(), [one.ref for one, _ in members]
            with self._database.begin() as tx:
                many = groups.form(tx, group_id, launch, refs)
                # Alone, or taken up by another process meanwhile: then its row says so.
                found += [(groups.get(tx, group_id), spec)] if many else members
        return found

    def _offerings(self, spec: JobSpec) -> tuple[Offering, ...]:
        settings = self._settings
        found = offerings(
            spec.machine, instance_types=(settings.instance_type,), subnets=settings.subnets
        )
        # Where none has a price, see `begin`.
        return priced(found, spec, self._prices) or found

    def _refused(self, tx: Transaction, attempt: Attempt, spec: JobSpec) -> bool:
        """End an attempt that could not be what its job was accepted for, by other settings."""
        why = ""
        if spec.max_cost is not None and attempt.launch.hour_price is None:
            names = ", ".join(self._prices.unpriced(spec)) or attempt.launch.instance_type
            why = f"max_cost can not be held: no price is known for {names} ({prices.VARIABLE})"
        elif spec.secret_refs and not attempt.launch.instance_profile:
            why = f"secret_refs can not be had: instances have no role ({PREFIX}INSTANCE_PROFILE)"
        if not why:
            return False
        reason = Reason.LAUNCH_REFUSED
        ENDED.labels(reason).inc(attempts.end(tx, attempt.ref, reason, actor=ACTOR, detail=why))
        self._log.error("launch refused", detail=why, **log_context(attempt.ref))
        return True

    def _may_begin(self, wanted: int) -> int:
        """How many jobs may get a machine now: one at a time while none of the last has booted.

        Machines that come up and can not reach the API would be paid for until their boot deadline,
        one for each retry of each job; the one that is tried shows when they can again.
        """
        within_s = NEVER_BOOTED * self._settings.boot_deadline_s
        with self._database.begin() as tx:
            not_booting = launches.never_booted(tx, machines=NEVER_BOOTED, within_s=within_s)
            booting = launches.booting(tx) if not_booting else 0
        MACHINES_NOT_BOOTING.set(not_booting)
        if not not_booting:
            return wanted
        self._log.error(
            "the last machines never booted: one is tried at a time, the other jobs stay queued",
            machines=NEVER_BOOTED,
            callback_url=self._settings.callback_url,
        )
        return 0 if booting else min(wanted, 1)

    def _resolve_images(self) -> dict[str, str]:
        """The image of each architecture that jobs have asked for, and of the usual one."""
        usual = self._cloud.resolve_image()
        found = {architecture(self._settings.instance_type): usual}
        for other in self._architectures - found.keys():
            try:
                found[other] = self._cloud.resolve_image(other)
            except Rejected:
                # There is none: EC2 refuses the usual one for such a machine, and says why.
                found[other] = usual
        if self._prices.has_disks:
            # Before rows are locked, because it may ask EC2.
            for image_id in found.values():
                self._cloud.disks_gb(image_id, None)
        return found

    def _architecture(self, spec: JobSpec) -> str:
        """Of the first type that will do: all of a job's are of one."""
        return architecture((*spec.machine.instance_types, self._settings.instance_type)[0])

    def _intent(self, spec: JobSpec, images: Mapping[str, str], ours: UUID | None) -> Launch:
        """The intent at first: its walk looks at which offering is available before it asks."""
        offering, *_ = self._offerings(spec)
        image_id = images[self._architecture(spec)]
        price = price_of(offering, self._prices)
        # Also where the first offering has no price: the next one may.
        disks_gb = (
            self._cloud.disks_gb(image_id, spec.machine.disk_gb) if self._prices.has_disks else 0
        )
        intent = first_intent(
            self._settings,
            spec,
            image_id=image_id,
            key_id=self._key_id,
            installation=ours,
            **offering._asdict(),
        )
        # What opens the registry of its image has no place in a user-data.
        private = self._registries.opens(spec.image) is not None
        by_claim = {"delivery": "claim"} if private else {}
        return intent.model_copy(update={**price, **by_claim, "disks_gb": disks_gb})
