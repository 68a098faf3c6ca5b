"""Sessions: a browser that has shown an API token once, and shows a secret of its own from then on.

Promise: a session is worth what its token is worth now: it ends when the token is revoked, when it is
closed, or when its time is over, whichever comes first, for all replicas at once. Only a hash of its
secret is stored, and the token itself is in no cookie.
"""

from __future__ import annotations

import secrets
from typing import Final

from sqlalchemy import Connection, delete, func, insert, select, text

from atemporal.store.api_tokens import ApiToken
from atemporal.tables import api_tokens, sessions
from atemporal.tokens import hash_secret

LIFETIME_S: Final = 12 * 3600
"""How long a session lasts, whatever is done with it."""
_FEW = 100

_FORGET = text(
    """
    DELETE FROM sessions WHERE hash IN (
        SELECT hash FROM sessions WHERE expires_at < now()
        ORDER BY expires_at LIMIT :limit
        FOR UPDATE SKIP LOCKED)
    """
)


def begin(tx: Connection, token: ApiToken) -> str:
    """Begin a session with this token and return its secret; some that are over are deleted."""
    tx.execute(_FORGET, {"limit": _FEW})
    secret = secrets.token_urlsafe(32)
    until = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, LIFETIME_S)
    row = {"hash": hash_secret(secret), "token_name": token.name}
    tx.execute(insert(sessions).values(**row, expires_at=until))
    return secret


def find(tx: Connection, secret: str) -> ApiToken | None:
    """Return the token of the session with this secret; None if there is none, or it is over."""
    query = (
        select(api_tokens)
        .join(sessions, sessions.c.token_name == api_tokens.c.name)
        .where(sessions.c.hash == hash_secret(secret), sessions.c.expires_at > func.now())
    )
    row = tx.execute(query).one_or_none()
    return ApiToken(row.name, tuple(row.scopes), row.created_at) if row else None


def end(tx: Connection, secret: str) -> None:
    """End a session; one that is over already stays so."""
    tx.execute(delete(sessions).where(sessions.c.hash == hash_secret(secret)))
