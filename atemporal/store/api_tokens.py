"""API tokens: who may speak to the HTTP API from beyond loopback.

Promise: only a hash is stored, so a stolen database opens nothing; a token has a name, for the
audit, and scopes.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.postgresql import insert as pg_insert

from atemporal.errors import Conflict, Invalid, NotFound
from atemporal.tables import api_tokens
from atemporal.tokens import hash_secret

PREFIX = "atp_"
"""How every token begins."""

SCOPES = ("submit", "read", "cancel", "admin")


class ApiToken(NamedTuple):
    """What is known of a token once it was handed out."""

    name: str
    scopes: tuple[str, ...]
    created_at: datetime

    def allows(self, scope: str) -> bool:
        """Tell whether the token opens `scope`; `admin` opens all."""
        return scope in self.scopes or "admin" in self.scopes


def create(tx: Connection, name: str, scopes: Sequence[str]) -> str:
    """Make a token and return its secret, which can not be read again.

    Raises:
        Invalid: an unknown scope, or none.
        Conflict: the name is taken.
    """
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        raise Invalid({"scope": f"{', '.join(unknown) or 'none'}; use {', '.join(SCOPES)}"})
    secret = f"{PREFIX}{secrets.token_urlsafe(32)}"
    row = {"name": name, "hash": hash_secret(secret), "scopes": list(dict.fromkeys(scopes))}
    made = tx.execute(pg_insert(api_tokens).values(**row).on_conflict_do_nothing())
    if made.rowcount == 0:
        raise Conflict(f"there is an API token named {name!r}; revoke it or take another name")
    return secret


def find(tx: Connection, secret: str) -> ApiToken | None:
    """Return the token with this secret, if there is one."""
    query = select(api_tokens).where(api_tokens.c.hash == hash_secret(secret))
    row = tx.execute(query).one_or_none()
    return ApiToken(row.name, tuple(row.scopes), row.created_at) if row else None


def listing(tx: Connection) -> list[ApiToken]:
    """Return all tokens by name."""
    rows = tx.execute(select(api_tokens).order_by(api_tokens.c.name))
    return [ApiToken(row.name, tuple(row.scopes), row.created_at) for row in rows]


def revoke(tx: Connection, name: str) -> None:
    """Make a token worthless at once.

    Raises:
        NotFound: there is none of that name.
    """
    if tx.execute(delete(api_tokens).where(api_tokens.c.name == name)).rowcount == 0:
        raise NotFound(f"there is no API token named {name!r}")
