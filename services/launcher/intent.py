"""What a walk asks EC2 for: the instance of one attempt, or those of a launch group.

Promise: a walk is the same for both. What differs is here: which row is fenced, what the call is made
of, and who gets what it launched.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol
from uuid import UUID

from atemporal import tokens
from atemporal.cloud import Cloud, Instance
from atemporal.cloud.instance import client_token, group_token
from atemporal.errors import Unreadable
from atemporal.model import Attempt, AttemptRef, JobSpec, Launch, LaunchGroup
from atemporal.settings import Settings
from atemporal.states import BlockedReason, Reason
from atemporal.store import attempts, groups, launches
from atemporal.store.rows import Transaction
from atemporal.telemetry import log_context, logger
from atemporal.userdata import purpose_of, render, render_group
from services.launcher.admission import Admission
from services.launcher.offerings import offering_of

ACTOR = "launcher"


class Intent(Protocol):
    """The subject of a walk. `launch` is its row's at first; each change is guarded by a view of it."""

    launch: Launch
    size: int
    """How many instances its call asks for."""

    @property
    def log_context(self) -> dict[str, Any]:
        """The fields of each line about it."""
        ...

    def render(self, launch: Launch) -> bytes:
        """The user-data.

        Raises:
            KeyError: its callback key is not among this process's.
            Invalid: it can not be made.
        """
        ...

    def labels(self, launch: Launch) -> Collection[str]:
        """The labels that are tags in its call, by name."""
        ...

    def take(self, admission: Admission, launch: Launch) -> bool:
        """Take what its call needs of the rate limiter; False when there is not enough."""
        ...

    def ask(self, tx: Transaction, launch: Launch) -> Launch | None:
        """Take the right to send one call; None when nothing may be sent."""
        ...

    def run(self, cloud: Cloud, launch: Launch, user_data: bytes) -> Instance:
        """Send the call; returns what it launched, or the first of it.

        Raises:
            CloudError: see `Cloud.run`.
        """
        ...

    def find(self, cloud: Cloud, launch: Launch) -> list[Instance]:
        """What EC2 shows of it: what lives, and what is gone and was launched with this placement."""
        ...

    def launched(self, tx: Transaction, launch: Launch, instance: Instance) -> bool:
        """Write down what the last `run` or `find` showed; False when it had moved on meanwhile."""
        ...

    def replace(self, tx: Transaction, launch: Launch, by: Launch) -> bool:
        """Exchange what is to be asked for; False when stale."""
        ...

    def split(self, tx: Transaction, launch: Launch, by: Launch) -> bool:
        """The same, for one instance."""
        ...

    def release(self, tx: Transaction, launch: Launch, *, stale_s: float) -> bool:
        """Leave it to a sweep."""
        ...

    def postpone(
        self,
        tx: Transaction,
        launch: Launch,
        *,
        blocked_on: BlockedReason,
        detail: str,
        delay_s: float,
        stale_s: float,
    ) -> bool:
        """Leave it to a sweep in `delay_s` seconds, and write what blocks it; False when stale."""
        ...

    def end(self, tx: Transaction, reason: Reason, detail: str) -> int:
        """Write that no instance will ever come of it; returns how many attempts ended."""
        ...


class AttemptIntent:
    """The instance of one attempt."""

    size = 1

    def __init__(self, attempt: Attempt, spec: JobSpec, settings: Settings) -> None:
        """Take the attempt as it was read."""
        self.launch = attempt.launch
        if (spec.secrets or spec.secret_refs) and self.launch.calls == 0:
            # A launcher of the release before may have begun it, and knew of none.
            self.launch = self.launch.model_copy(update={"delivery": "claim"})
        self._ref = attempt.ref
        self._spec = spec
        self._settings = settings

    @property
    def log_context(self) -> dict[str, Any]:
        """Job and attempt."""
        return log_context(self._ref)

    def render(self, launch: Launch) -> bytes:
        """The user-data with the attempt's manifest, or with where it is to be asked for."""
        keys, deployment = self._settings.keys, self._settings.deployment
        token = tokens.mint(keys, launch.key_id, deployment, self._ref.id, purpose_of(launch))
        return render(self._ref, self._spec, launch, token)

    def labels(self, launch: Launch) -> Collection[str]:
        """Those of the job, as far as the intent makes tags of them."""
        return launch.tags_of(self._spec.labels).tags

    def take(self, admission: Admission, launch: Launch) -> bool:
        """One call for one instance."""
        return admission.take() > 0

    def ask(self, tx: Transaction, launch: Launch) -> Launch | None:
        """Fence the attempt's row."""
        return launches.ask(tx, self._ref, launch)

    def run(self, cloud: Cloud, launch: Launch, user_data: bytes) -> Instance:
        """Launch the instance, with the tags of the job's labels."""
        return cloud.run(self._ref, launch.labelled(self._spec.labels), user_data)

    def find(self, cloud: Cloud, launch: Launch) -> list[Instance]:
        """By the attempt's tags."""
        return _launched_by(client_token(self._ref, launch.placement), cloud.find(self._ref))

    def launched(self, tx: Transaction, launch: Launch, instance: Instance) -> bool:
        """It is the attempt's, and EC2 has said so."""
        proof = _proof(self._settings, launch, self._ref, instance.id)
        return attempts.launched(tx, self._ref, instance.id, actor=ACTOR, proof=proof)

    def replace(self, tx: Transaction, launch: Launch, by: Launch) -> bool:
        """In the attempt's row."""
        return launches.replace(tx, self._ref, launch, by)

    split = replace

    def release(self, tx: Transaction, launch: Launch, *, stale_s: float) -> bool:
        """In the attempt's row."""
        return launches.release(tx, self._ref, launch, delay_s=0, stale_s=stale_s)

    def postpone(self, tx: Transaction, launch: Launch, **why: Any) -> bool:
        """In the attempt's row."""
        return launches.postpone(tx, self._ref, launch, actor=ACTOR, **why)

    def end(self, tx: Transaction, reason: Reason, detail: str) -> int:
        """The attempt ends."""
        return int(attempts.end(tx, self._ref, reason, actor=ACTOR, detail=detail))


class GroupIntent:
    """The instances of a launch group."""

    def __init__(self, group: LaunchGroup, settings: Settings) -> None:
        """Take the group as it was read."""
        self.launch = group.launch
        self.size = group.size
        self._id: UUID = group.id
        self._settings = settings
        self._instances: Sequence[Instance] = ()

    @property
    def log_context(self) -> dict[str, Any]:
        """The group."""
        return {"group": str(self._id)}

    def render(self, launch: Launch) -> bytes:
        """One user-data for all of its machines."""
        keys, deployment = self._settings.keys, self._settings.deployment
        token = tokens.mint(keys, launch.key_id, deployment, str(self._id), "group")
        return render_group(self._id, launch, token)

    def labels(self, _launch: Launch) -> Collection[str]:
        """None: they come later, see `tagging`."""
        return ()

    def take(self, admission: Admission, launch: Launch) -> bool:
        """One call for as many instances as there are tokens for; a repeated one has paid for them."""
        if launch.calls:
            return admission.take() > 0
        wanted = min(self.size, admission.largest([offering_of(launch)]))
        granted = admission.take(wanted)
        if 0 < granted < self.size:
            # Those that leave are not left to wait for a sweep's time.
            admission.backlog.set()
            self.size = granted
        return granted > 0

    def ask(self, tx: Transaction, launch: Launch) -> Launch | None:
        """Fence the group's row."""
        asked = groups.ask(tx, self._id, launch, at_most=self.size)
        if asked is None:
            return None
        launch, self.size = asked
        return launch

    def run(self, cloud: Cloud, launch: Launch, user_data: bytes) -> Instance:
        """Launch the instances, or as many of them as there is room for."""
        self._instances = cloud.run_group(self._id, launch, self.size, user_data)
        return self._instances[0]

    def find(self, cloud: Cloud, launch: Launch) -> list[Instance]:
        """By the group's tags."""
        token = group_token(self._id, launch.placement)
        self._instances = _launched_by(token, cloud.find_group(self._id))
        return list(self._instances)

    def launched(self, tx: Transaction, launch: Launch, instance: Instance) -> bool:
        """Each is some attempt's; who waits and gets none is launched anew."""
        ids = [one.id for one in self._instances]
        given = groups.launched(tx, self._id, launch, ids, actor=ACTOR)
        proofs = {
            ref: _proof(self._settings, launch, ref, instance_id)
            for ref, instance_id in given.items()
        }
        attempts.prove(tx, proofs)
        return bool(given)

    def replace(self, tx: Transaction, launch: Launch, by: Launch) -> bool:
        """In the group's row."""
        return groups.replace(tx, self._id, launch, by)

    def split(self, tx: Transaction, launch: Launch, by: Launch) -> bool:
        """All of its attempts but one leave."""
        if not groups.replace(tx, self._id, launch, by, keep=1):
            return False
        self.size = 1
        return True

    def release(self, tx: Transaction, launch: Launch, *, stale_s: float) -> bool:
        """In the group's row."""
        return groups.release(tx, self._id, launch, delay_s=0, stale_s=stale_s)

    def postpone(self, tx: Transaction, launch: Launch, **why: Any) -> bool:
        """In the group's row, and in those of its attempts."""
        return groups.postpone(tx, self._id, launch, actor=ACTOR, **why)

    def end(self, tx: Transaction, reason: Reason, detail: str) -> int:
        """Those that wait end; a call for many that was refused was split before.

        One that this release can not read stays, to its launch deadline.
        """
        ended = 0
        for ref in groups.waiting(tx, self._id):
            try:
                with tx.begin_nested():
                    ended += attempts.end(tx, ref, reason, actor=ACTOR, detail=detail)
            except Unreadable as error:
                logger(ACTOR).error("not ended", error=str(error), **log_context(ref))
        groups.settle(tx, self._id)
        return ended


def _launched_by(token: str, found: Sequence[Instance]) -> list[Instance]:
    """Those that live, and of those that are gone what the calls with this token launched."""
    return [one for one in found if not one.gone or one.client_token in (None, token)]


def _proof(settings: Settings, launch: Launch, ref: AttemptRef, instance_id: str) -> str:
    """That EC2 has said whose instance it is; by the newest key where the launch's is gone."""
    kid = launch.key_id if launch.key_id in settings.keys else settings.signing_key_id
    return tokens.prove_instance(settings.keys, kid, settings.deployment, ref.id, instance_id)
