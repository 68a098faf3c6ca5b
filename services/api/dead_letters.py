"""Dead letters, for operators: list, show, send again, drop.

Promise: what is answered is committed: a letter that is to be sent again is sent by a scheduler,
whatever dies meanwhile. To send one again or to drop it for a second time changes nothing.
"""

from __future__ import annotations

from enum import StrEnum
from http import HTTPStatus
from typing import Annotated, TypeVar
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import Field

from atemporal.errors import Invalid, NotFound
from atemporal.model.dead_letter import QUEUES, DeadReason, LetterState
from atemporal.store import dead_letters
from atemporal.store.database import Database
from services.api.auth import Authorizer
from services.api.changes import SCOPES, Changes
from services.api.dead_letter_schemas import LetterDetail, LetterPage
from services.api.error_responses import DENIALS, possible
from services.api.query import only_query, or_absent

PAGE = 1000
# As for a job.
_PART_OF_ID = 4
ANY = "any"
"""In place of a state: whatever has been decided."""

_BAD = HTTPStatus.UNPROCESSABLE_ENTITY
_ONE = possible(*DENIALS, HTTPStatus.NOT_FOUND, _BAD)
_CHANGE = possible(*DENIALS, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, _BAD)
_Age = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]

_Kind = TypeVar("_Kind", bound=StrEnum)


async def path_id(letter_id: str) -> UUID:
    """The letter's id in the path of a change.

    Raises:
        NotFound: it is no id, so no letter has it.
    """
    try:
        number = UUID(letter_id)
    except ValueError:
        number = None
    if number is None or str(number) != letter_id.lower():
        raise NotFound(f"there is no dead letter {letter_id!r}: a change needs its whole id")
    return number


async def part_of_id(letter_id: str) -> str:
    """The letter's id in the path of a call that reads, or a part of it.

    Raises:
        NotFound: it is too short to mean one letter.
    """
    if len(letter_id) < _PART_OF_ID:
        raise NotFound(f"{letter_id!r} is too short: give {_PART_OF_ID} letters of an id or more")
    return letter_id


def router(database: Database, authorizer: Authorizer, changes: Changes) -> APIRouter:
    """Build the calls for dead letters."""
    routes = APIRouter(tags=["dead letters"])
    no_query = Depends(only_query())
    reader = authorizer.needs("read")
    replayer, dropper = authorizer.needs(*SCOPES["replay"]), authorizer.needs(*SCOPES["drop"])

    @routes.get(
        "/dead-letters",
        summary="List dead letters",
        responses=possible(*DENIALS, _BAD),
        dependencies=[
            Depends(reader),
            Depends(
                only_query(
                    *("limit", "after", "older_than_s", "newer_than_s"),
                    repeated=("state", "reason", "queue", "kind"),
                )
            ),
        ],
    )
    def list_letters(
        state: Annotated[
            list[str], Query(description=f"repeated: any of these; absent: kept; {ANY}: all")
        ] = [],  # noqa: B006
        reason: Annotated[list[str], Query(description="repeated: any of these")] = [],  # noqa: B006
        queue: Annotated[
            list[str], Query(description="where its message came from; repeated: any of these")
        ] = [],  # noqa: B006
        kind: Annotated[
            list[str], Query(description="its message's routing key; repeated: any of these")
        ] = [],  # noqa: B006
        older_than_s: Annotated[
            _Age | None, Query(description="kept so many seconds ago or longer"), or_absent
        ] = None,
        newer_than_s: Annotated[
            _Age | None, Query(description="kept no more seconds ago than that"), or_absent
        ] = None,
        limit: Annotated[
            Annotated[int, Field(ge=1, le=PAGE)] | None,
            Query(description="of one page"),
            or_absent,
        ] = None,
        after: Annotated[UUID | None, Query(description="`next` of a page"), or_absent] = None,
    ) -> LetterPage:
        """Letters, the newest first; `next` is the id to go on after, or null."""
        states = [] if ANY in state else _named("state", state, LetterState) or [LetterState.KEPT]
        with database.begin() as tx:
            page = dead_letters.listing(
                tx,
                states=states,
                reasons=_named("reason", reason, DeadReason),
                queues=[_queue(one) for one in queue if one],
                kinds=[one for one in kind if one],
                older_than_s=older_than_s,
                newer_than_s=newer_than_s,
                limit=limit or PAGE,
                after=after,
            )
        return LetterPage.show(page)

    @routes.get(
        "/dead-letters/{letter_id}",
        summary="Show a dead letter",
        responses=_ONE,
        dependencies=[Depends(reader), no_query],
    )
    def show(letter_id: str = Depends(part_of_id)) -> LetterDetail:
        """The letter with its message: the body may hold a job's environment.

        The beginning or the end of its id will do, of four letters or more.
        """
        with database.begin() as tx:
            return LetterDetail.show_all(dead_letters.get(tx, dead_letters.resolve(tx, letter_id)))

    @routes.post(
        "/dead-letters/{letter_id}/replay",
        status_code=HTTPStatus.ACCEPTED,
        summary="Send a dead letter's message again",
        responses=_CHANGE,
        dependencies=[no_query],
    )
    def replay(actor: str = Depends(replayer), letter_id: UUID = Depends(path_id)) -> LetterDetail:
        """Have a scheduler send it to the queue it came from, once. Again: no change.

        If it can still not be used it comes back as a new letter, with this one as its `replay_of`.
        """
        return LetterDetail.show_all(changes.replay(letter_id, actor))

    @routes.delete(
        "/dead-letters/{letter_id}",
        summary="Drop a dead letter",
        responses=_CHANGE,
        dependencies=[no_query],
    )
    def drop(actor: str = Depends(dropper), letter_id: UUID = Depends(path_id)) -> LetterDetail:
        """Give its message up: body and properties go, what it was and who dropped it stays.

        Again: no change.
        """
        return LetterDetail.show_all(changes.drop(letter_id, actor))

    return routes


def _named(field: str, given: list[str], kind: type[_Kind]) -> list[_Kind]:
    known = [str(one) for one in kind]
    unknown = [name for name in given if name and name not in known]
    if unknown:
        raise Invalid({field: f"{unknown[0]!r} is none; use {', '.join(known)}"})
    return [one for one in kind if str(one) in given]


def _queue(given: str) -> str:
    """A queue's name; one of ours also without `atemporal.` before it."""
    return next((name for name in QUEUES if name == f"atemporal.{given}"), given)
