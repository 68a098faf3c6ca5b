"""What can go wrong, sorted by what the caller may do about it.

Promise: every failure that crosses a module border is one of the classes below, so a daemon decides
by class (drop, repeat, repeat *identically*) and never by reading another library's message.
Adapters (store, broker, cloud) translate at their border; services never see foreign exceptions.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

NAMED_LINES = 100
"""So many bad lines are named; of the others only how many there are."""


class AtemporalError(Exception):
    """Root of all errors this project raises on purpose; the message is meant for its reader."""


class Refused(AtemporalError):
    """Surely not done, and asking again the same way will be refused again."""


class Invalid(Refused):
    """The input breaks a rule; `fields` says for each field what is wrong and what is allowed."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.fields = dict(fields)
        super().__init__("; ".join(f"{name}: {why}" for name, why in self.fields.items()))


class InvalidLines(Invalid):
    """Some of many jobs break a rule, and none of all is made.

    `lines` says for each bad one, by its number from 1 on, what is wrong with which field; they are the
    first of `count`.
    """

    def __init__(
        self, lines: Mapping[int, Mapping[str, str]], *, count: int | None = None
    ) -> None:
        self.lines = {number: dict(lines[number]) for number in list(lines)[:NAMED_LINES]}
        self.count = len(lines) if count is None else count
        texts = {
            f"line {number}": "; ".join(f"{name}: {why}" for name, why in wrong.items())
            for number, wrong in self.lines.items()
        }
        if self.count > len(texts):
            texts["and"] = f"{self.count - len(texts)} more lines"
        super().__init__(texts)


class NotFound(Refused):
    """Nothing has that name or id."""


class Conflict(Refused):
    """The thing exists and contradicts the request, for example a transition its state forbids."""


class Denied(Refused):
    """The caller has not shown that it may do this."""


class Unreadable(Refused):
    """A row of the database that this release can not read; nothing of its content is repeated."""

    def __init__(
        self, job: str, attempt: int | None, why: str, *, kind: str = "launch group"
    ) -> None:
        """Take whose row it is; without an attempt's number `job` names one of that `kind`."""
        self.job, self.attempt, self.why = job, attempt, why
        whose = f"{kind} {job}" if attempt is None else f"job {job}, attempt {attempt},"
        super().__init__(f"what is stored of {whose} can not be read by this release: {why}")


class Retry(AtemporalError):
    """Surely not done, for a passing cause: the same or another attempt may follow later."""


class TooEarly(Retry):
    """It is not its time yet; the same request is granted later."""


class Service(StrEnum):
    """What this project needs and does not run itself."""

    POSTGRES = "postgres"
    RABBITMQ = "rabbitmq"
    EC2 = "ec2"
    SQS = "sqs"


class Unavailable(Retry):
    """Something that this process needs does not work now.

    `service` is the one that does not answer; None when it is another, or answers and is not fit.
    """

    service: Service | None = None

    def __init__(self, why: str = "", service: Service | None = None) -> None:
        super().__init__(why)
        self.service = service or self.service


class Kept(Unavailable):
    """A tick failed for a passing cause that is not the broker: its messages are still in hand."""


class InDoubt(Unavailable):
    """The answer to a commit was lost: what was written may be there.

    Daemons repeat it, because each of their writes is guarded. A client has to be told: a new job
    without a key would be made twice.
    """


class Unknown(AtemporalError):
    """May have been done: only the identical request may be repeated until the answer is sure."""
