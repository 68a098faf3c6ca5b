"""Variables of our prefix that are no setting: mistyped ones, mostly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from atemporal.settings import PREFIX, Settings

# Read elsewhere: by tests, and by the local system for itself.
_NO_SETTINGS = (f"{PREFIX}TEST_", f"{PREFIX}LOCAL_DIR")


def unknown_variables(names: Iterable[str]) -> list[str]:
    """A sentence for each variable of our prefix that no process reads: a mistyped one, mostly."""
    known = [f"{PREFIX}{name.upper()}" for name in Settings.model_fields]
    return [
        f"{name} is no setting; {_meant(name, known)}"
        for name in sorted(names)
        if name.upper().startswith(PREFIX)
        and name.upper() not in known
        and not name.startswith(_NO_SETTINGS)
    ]


def _meant(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name.upper(), known, n=1, cutoff=0.75)
    return f"did you mean {close[0]}?" if close else "`atemporal config` lists all"
