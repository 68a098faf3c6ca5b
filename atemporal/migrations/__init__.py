"""Bringing a database to the shape in `tables`, step by step and for ever repeatable.

Promise: a released step is never edited; steps only expand what is there, so that the previous
release runs on the new shape. Two processes that upgrade at once take turns. An upgrade that was
interrupted goes on where it was when it is asked for again.
Mechanism: each step is a transaction of its own, so what it locks is free again before the next. A
step adds a constraint as NOT VALID, which looks at no row; what is not valid is validated after
the last step, under a lock that lets readers and writers work.
"""

from __future__ import annotations

from alembic import command
from alembic.config import Config


def upgrade(url: str, revision: str = "head") -> list[str]:
    """Apply all steps up to `revision`; what is applied already is passed over.

    Returns the steps that were applied, each as its number and what it is about.
    """
    settings = config(url)
    command.upgrade(settings, revision)
    return list(settings.attributes["applied"])


def config(url: str) -> Config:
    """Alembic's configuration, without a file."""
    settings = Config()
    settings.set_main_option("script_location", "atemporal:migrations")
    settings.attributes["url"] = url
    settings.attributes["applied"] = []
    return settings
