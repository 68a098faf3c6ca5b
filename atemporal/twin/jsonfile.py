"""JSON files that are replaced whole.

Promise: a reader sees the old content or the new one, nothing between. A file is replaced by
rename, which survives the death of the process, not that of the host.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any


def read(path: Path) -> dict[str, Any] | None:
    """Return the file's content; None if there is no such file."""
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return content


def replace(path: Path, content: dict[str, Any]) -> None:
    """Write the file, in place of the one that may be there."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    draft.write_text(json.dumps(content))
    draft.replace(path)
