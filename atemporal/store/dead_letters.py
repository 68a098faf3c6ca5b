"""Dead letters: kept once, listed, sent again once, or dropped.

Promise: a letter that the broker delivers twice is one row. A decision is a fact when it returns, and
stays: a letter is sent again or dropped, never both, and asking for the same again changes nothing. One
that is to be sent again is among `to_replay` until a sender has marked it, which it does after the
broker's word and in the same transaction: a crash between the two sends it once more.
Mechanism: one transaction at a time keeps letters, by an advisory lock, so that who gets a letter again
sees what the one before has committed. A letter that surely comes for the first time is always kept: two
messages without an id that are alike are two letters.
Failure: of two such messages that died in the same second, one can pass for the other, if its reader
died with it in hand or the answer to its commit was lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Select, func, insert, or_, select, text, update

from atemporal.errors import Conflict, NotFound
from atemporal.model.dead_letter import DeadLetter, DeadReason, LetterState, RecordedLetter
from atemporal.store import short_ids
from atemporal.store.job_ids import JobIds
from atemporal.store.rows import dead_letter, readable
from atemporal.tables import dead_letters

COUNTED = 10_000
"""So many that wait for a decision are counted."""

_ids = JobIds()

_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtext('dead_letters'))")
_KEPT = text(
    "SELECT count(*) FROM (SELECT 1 FROM dead_letters WHERE state = 'kept' LIMIT :limit) AS kept"
)
# A letter's row can have hundreds of kilobytes.
_LARGE = ("body", "deaths", "properties", "digest")
_READ_AT = func.statement_timestamp().label("read_at")


@dataclass(frozen=True)
class Page:
    """Letters, the newest first, and the id to go on after; None at the end."""

    letters: Sequence[RecordedLetter]
    next: UUID | None


def keep(
    tx: Connection, letters: Sequence[DeadLetter], *, tried: bool = False
) -> list[DeadLetter]:
    """Write letters down, but for those that come again and are there; return what is new.

    `tried`: the same letters were to be kept before, and whether that was committed is not known.
    """
    tx.execute(_ONE_AT_A_TIME)
    again = [one.digest for one in letters if tried or one.redelivered]
    found = select(dead_letters.c.digest).where(dead_letters.c.digest == func.any(again))
    known = set(tx.scalars(found)) if again else set()
    new = [one for one in letters if not ((tried or one.redelivered) and one.digest in known)]
    if new:
        tx.execute(insert(dead_letters), [_values(one) for one in new])
    return new


def get(tx: Connection, letter_id: UUID) -> RecordedLetter:
    """Return a letter with all of it.

    Raises:
        NotFound: there is none of that id.
        Unreadable: this release can not read it.
    """
    query = select(*_columns(whole=True)).where(dead_letters.c.id == letter_id)
    return _one(tx, query, letter_id)


def resolve(tx: Connection, text_id: str) -> UUID:
    """Find the one letter whose id is, begins with, or (if none does) ends with the given text.

    Raises:
        NotFound: none or more than one does; the message says which.
    """
    return short_ids.resolve(tx, dead_letters.c.id, text_id, "dead letter")


def listing(
    tx: Connection,
    *,
    states: Sequence[LetterState] = (),
    reasons: Sequence[DeadReason] = (),
    queues: Sequence[str] = (),
    kinds: Sequence[str] = (),
    older_than_s: float | None = None,
    newer_than_s: float | None = None,
    limit: int,
    after: UUID | None = None,
) -> Page:
    """Return up to `limit` letters, the newest first; `kinds` are routing keys, ages are in seconds.

    Of each filter that is given one value has to fit.
    """
    table = dead_letters.c
    query = select(*_columns(whole=False))
    for column, wanted in (
        (table.state, states),
        (table.reason, reasons),
        (table.queue, queues),
        (table.routing_key, kinds),
    ):
        if wanted:
            query = query.where(column.in_([str(one) for one in wanted]))
    if older_than_s is not None:
        query = query.where(table.received_at <= _ago(older_than_s))
    if newer_than_s is not None:
        query = query.where(table.received_at >= _ago(newer_than_s))
    if after is not None:
        query = query.where(table.id < after)
    rows = tx.execute(query.order_by(table.id.desc()).limit(limit + 1)).all()
    page = rows[:limit]
    following = page[-1].id if page and len(rows) > limit else None
    return Page(readable(tx, page, dead_letter), following)


def of_job(tx: Connection, job_id: UUID, *, limit: int) -> list[RecordedLetter]:
    """Return up to `limit` letters whose message names a job in its ids, without bodies.

    They are looked for among the last `COUNTED` of all.
    """
    latest = select(*_columns(whole=False)).order_by(dead_letters.c.id.desc()).limit(COUNTED)
    found = latest.subquery()
    ids = (found.c.message_id, found.c.correlation_id)
    query = select(found).where(or_(*(one.startswith(str(job_id)) for one in ids)))
    rows = tx.execute(query.order_by(found.c.id.desc()).limit(limit)).all()
    return readable(tx, rows, dead_letter)


def replay(tx: Connection, letter_id: UUID, *, actor: str) -> RecordedLetter:
    """Have a letter sent again, to the queue it came from; once, however often it is asked for.

    Raises:
        NotFound: there is none of that id.
        Conflict: it was dropped, or can not be sent again; the message says why.
    """
    letter = _locked(tx, letter_id)
    if letter.state is LetterState.DROPPED:
        raise Conflict(f"dead letter {letter_id} was dropped: its body is gone")
    if letter.state is not LetterState.KEPT:
        return letter
    if why := letter.why_not_replayable:
        raise Conflict(f"dead letter {letter_id} can not be sent again: {why}")
    return _decide(tx, letter_id, {"state": LetterState.REPLAYING, "decided_by": actor})


def drop(tx: Connection, letter_id: UUID, *, actor: str) -> RecordedLetter:
    """Give a letter up: its body and properties go; that it was there stays. Again: no change.

    Raises:
        NotFound: there is none of that id.
        Conflict: it was sent again, or is to be.
    """
    letter = _locked(tx, letter_id)
    if letter.state is LetterState.DROPPED:
        return letter
    if letter.state is not LetterState.KEPT:
        raise Conflict(f"dead letter {letter_id} is {letter.state}: there is nothing to drop")
    return _decide(
        tx,
        letter_id,
        {"state": LetterState.DROPPED, "decided_by": actor, "body": None, "properties": {}},
    )


def queues_to_replay_to(tx: Connection) -> list[str]:
    """The queues to which letters are to be sent again."""
    waiting = dead_letters.c.state == LetterState.REPLAYING
    return list(tx.scalars(select(dead_letters.c.queue).where(waiting).distinct()))


def to_replay(tx: Connection, queue: str, limit: int) -> list[RecordedLetter]:
    """Lock and return letters that are to be sent to this queue; who else asks passes over them."""
    query = select(*_columns(whole=True)).where(
        dead_letters.c.state == LetterState.REPLAYING, dead_letters.c.queue == queue
    )
    locked = query.order_by(dead_letters.c.id).limit(limit).with_for_update(skip_locked=True)
    return readable(tx, tx.execute(locked), dead_letter)


def mark_replayed(tx: Connection, ids: Sequence[UUID]) -> None:
    """Note that the broker has confirmed the replays of these letters."""
    tx.execute(
        update(dead_letters)
        .where(dead_letters.c.id == func.any(list(ids)))
        .values(state=LetterState.REPLAYED, replayed_at=func.now())
    )


def undecided(tx: Connection) -> int:
    """How many letters nobody has decided about; `COUNTED` stands for that many or more."""
    return int(tx.scalar(_KEPT, {"limit": COUNTED}) or 0)


def _columns(*, whole: bool) -> list[Any]:
    left_out = ("digest",) if whole else _LARGE
    return [*(one for one in dead_letters.c if one.name not in left_out), _READ_AT]


def _one(tx: Connection, query: Select[Any], letter_id: UUID) -> RecordedLetter:
    row = tx.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"there is no dead letter {letter_id}")
    return dead_letter(row)


def _locked(tx: Connection, letter_id: UUID) -> RecordedLetter:
    query = select(*_columns(whole=False)).where(dead_letters.c.id == letter_id)
    return _one(tx, query.with_for_update(), letter_id)


def _decide(tx: Connection, letter_id: UUID, values: Mapping[str, Any]) -> RecordedLetter:
    tx.execute(
        update(dead_letters)
        .where(dead_letters.c.id == letter_id)
        .values(**values, decided_at=func.now())
    )
    return get(tx, letter_id)


def _ago(seconds: float) -> Any:
    return func.now() - func.make_interval(0, 0, 0, 0, 0, 0, seconds)


def _values(letter: DeadLetter) -> dict[str, Any]:
    fields = letter.model_dump(exclude={"redelivered", "deaths"})
    deaths = [one.model_dump(mode="json") for one in letter.deaths]
    return {**fields, "id": _ids.new(), "deaths": deaths}
