"""What every view is made of."""

from __future__ import annotations

from typing import NamedTuple

from atemporal.settings import Settings
from atemporal.store.database import Database
from services.api.changes import Changes
from services.api.ui.page import Pages
from services.api.ui.visitor import Visitors


class Site(NamedTuple):
    """The page's parts, for a view to build its routes with."""

    settings: Settings
    database: Database
    changes: Changes
    pages: Pages
    visitors: Visitors
