"""Dead letters: messages that nobody could use, why, and what is to become of them.

Promise: no message's body or header is on the page: a job's environment may be in it.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from atemporal.errors import Invalid
from atemporal.model.dead_letter import LetterState
from atemporal.store import dead_letters
from services.api.dead_letter_schemas import LetterDetail, LetterPage
from services.api.dead_letters import ANY, part_of_id, path_id
from services.api.ui.page import Nav, redirect
from services.api.ui.site import Site
from services.api.ui.visitor import Visitor

NAV: Final = Nav("dead-letters", "Dead letters")
PAGE: Final = 50
STATES: Final = (*LetterState, ANY)


def routes(site: Site) -> APIRouter:
    """Build the calls."""
    made = site.pages.routes()
    reader = site.visitors.reader()

    @made.get("/dead-letters")
    def all_letters(request: Request, visitor: Visitor = Depends(reader)) -> Response:
        state = request.query_params.get("state") or LetterState.KEPT.value
        if state not in STATES:
            raise Invalid({"state": f"{state!r} is none; use {', '.join(STATES)}"})
        with site.database.begin() as tx:
            page = dead_letters.listing(
                tx,
                states=() if state == ANY else (LetterState(state),),
                limit=PAGE,
                after=_id(request.query_params.get("after", "")),
            )
        return site.pages.render(
            request,
            visitor,
            "dead_letters.html",
            here=NAV.path,
            title=NAV.title,
            page=LetterPage.show(page),
            state=state,
            states=STATES,
        )

    @made.get("/dead-letters/{letter_id}")
    def show(
        request: Request, letter_id: str = Depends(part_of_id), visitor: Visitor = Depends(reader)
    ) -> Response:
        with site.database.begin() as tx:
            letter = dead_letters.get(tx, dead_letters.resolve(tx, letter_id))
        return site.pages.render(
            request,
            visitor,
            "dead_letter.html",
            here=NAV.path,
            title=f"Dead letter {str(letter.id)[-12:]}",
            now=letter.read_at,
            letter=LetterDetail.show_all(letter),
        )

    @made.post("/dead-letters/{letter_id}/replay")
    def replay(
        request: Request,
        letter_id: UUID = Depends(path_id),
        actor: str = Depends(site.visitors.changer("replay")),
    ) -> Response:
        site.changes.replay(letter_id, actor)
        return redirect(request, f"dead-letters/{letter_id}", {"done": "replayed"})

    @made.post("/dead-letters/{letter_id}/drop")
    def drop(
        request: Request,
        letter_id: UUID = Depends(path_id),
        actor: str = Depends(site.visitors.changer("drop")),
    ) -> Response:
        site.changes.drop(letter_id, actor)
        return redirect(request, f"dead-letters/{letter_id}", {"done": "dropped"})

    return made


def _id(given: str) -> UUID | None:
    try:
        return UUID(given) if given else None
    except ValueError:
        raise Invalid({"after": "is no id: begin with the first page again"}) from None
