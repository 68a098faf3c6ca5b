"""Who is signed in to the page: one row a session, gone with its API token."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, Table, Text

from atemporal.tables.columns import instant, metadata

sessions = Table(
    "sessions",
    metadata,
    Column("hash", Text, primary_key=True),
    Column(
        "token_name",
        Text,
        ForeignKey("api_tokens.name", name="fk_sessions_token_name", ondelete="CASCADE"),
        nullable=False,
    ),
    instant("created_at", nullable=False, now=True),
    instant("expires_at", nullable=False),
    Index("ix_sessions_expires_at", "expires_at"),
)
