"""TerminateInstances: many instances at once, and each gets its end whatever is wrong with another.

Promise: a bad id, or one that a policy denies, saves no other: EC2 ends none of a call, or none of a
zone, when one of its instances is bad, so a batch that failed is halved until that one is alone. A
failure says that it is not known to be asked for; no answer says that an instance has ended. Whoever
needs to know asks EC2 what it shows.
Mechanism: SkipOsShutdown and Force are sent where they are asked for, and left out from then on when the
endpoint refuses them: those that do not have them, or not for these instances, get the plain call.
Source: EC2 user guide, "Methods for terminating an instance"; API reference, TerminateInstances (up to
1000 ids; smaller batches are recommended).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from atemporal.cloud.caller import Caller
from atemporal.cloud.faults import (
    CloudError,
    Forbidden,
    NoAnswer,
    ServerFault,
    Throttled,
    Unauthorized,
)
from atemporal.errors import AtemporalError
from atemporal.limits import Limit

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

TERMINATE_BATCH = 500
Option = Literal["SkipOsShutdown", "Force"]

_SERVER_FAULTS = 24  # enough to find two bad ids among five hundred
_DENIALS = 24  # then no batch is halved any more, yet each is tried
# How endpoints refuse a parameter: those that do not know it, those that do not have it for the
# instance, and a botocore that is older than it.
_NOT_TAKEN = frozenset(
    (
        *("UnknownParameter", "UnsupportedParameter", "InvalidParameter", "InvalidParameterValue"),
        *("InvalidParameterCombination", "UnsupportedOperation", "Unsupported"),
        "ParamValidationError",
    )
)


class Terminations:
    """The calls that end instances; safe to share between threads."""

    def __init__(self, client: EC2Client, caller: Caller) -> None:
        """Take the client; nothing is called yet."""
        self._client = client
        self._caller = caller
        self._not_taken: frozenset[frozenset[Option]] = frozenset()

    def ask(self, ids: Iterable[str], options: frozenset[Option]) -> dict[str, AtemporalError]:
        """Ask for these ends; ending one again does no harm. Returns the failures.

        A `NoInstance` proves nothing about a young instance: it may run all the same. A failure
        that holds for every call alike (`Throttled`, `NoAnswer`, an `Unauthorized` that is no policy's
        denial, or EC2 failing again and again) is given to all the ids not yet asked for.

        Raises:
            Unavailable: nobody can say whether a call may be made; some may have been asked for.
        """
        failures: dict[str, AtemporalError] = {}
        pending = deque(batches(ids))
        faults_left = _SERVER_FAULTS
        denials_left = _DENIALS
        while pending:
            batch = pending.popleft()
            doing = f"terminating {naming(batch)}"
            try:
                granted = self._caller.wait_for(Limit.TERMINATE_INSTANCES, doing, len(batch))
                if granted < len(batch):
                    pending.appendleft(batch[granted:])
                    batch = batch[:granted]
                self._send(batch, options, doing)
            except CloudError as error:
                faults_left -= isinstance(error, ServerFault)
                # A policy may deny one id by its tags: the others are not to suffer for it.
                denied = isinstance(error, Forbidden)
                denials_left -= denied
                if denied and denials_left < 0:
                    failures.update(dict.fromkeys(batch, error))
                    continue
                general = isinstance(error, (Throttled, Unauthorized, NoAnswer)) and not denied
                if general or not faults_left:
                    for unended in (batch, *pending):
                        failures.update(dict.fromkeys(unended, error))
                    break
                if len(batch) == 1:
                    failures[batch[0]] = error
                else:
                    middle = len(batch) // 2
                    pending.extend((batch[:middle], batch[middle:]))
        return failures

    def _send(self, batch: list[str], options: frozenset[Option], doing: str) -> None:
        if options in self._not_taken:
            options = frozenset()
        try:
            self._call(batch, options, doing)
        except CloudError as error:
            if not options or error.code not in _NOT_TAKEN:
                raise
            self._caller.wait_for(Limit.TERMINATE_INSTANCES, doing, 1)
            self._call(batch, frozenset(), doing)
            # The plain call was taken, so it was the option that was not.
            self._not_taken |= {options}

    def _call(self, batch: list[str], options: frozenset[Option], doing: str) -> None:
        chosen: dict[Option, bool] = dict.fromkeys(sorted(options), True)
        self._caller.send(
            Limit.TERMINATE_INSTANCES,
            doing,
            lambda: self._client.terminate_instances(InstanceIds=batch, **chosen),
        )


def batches(ids: Iterable[str], size: int | None = None) -> list[list[str]]:
    """The ids, each once, `size` at most in a list."""
    unique, size = list(dict.fromkeys(ids)), size or TERMINATE_BATCH
    return [unique[start : start + size] for start in range(0, len(unique), size)]


def naming(ids: list[str]) -> str:
    """The instances of a call in a sentence."""
    return ids[0] if len(ids) == 1 else f"{ids[0]} and {len(ids) - 1} more instances"
