"""The programs in a machine's `usr/bin`, which stand in front of the host's.

Promise: a machine's commands find the machine's `docker` and `curl`; a program that would act on
the host is refused. Units power off by their SuccessAction and FailureAction, so there is no
`systemctl` to do it.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from atemporal.twin.containers import engine
from atemporal.twin.machine import curl

# Programs that would act on the host.
_REFUSED = (
    *("systemctl", "systemd-run", "poweroff", "shutdown", "reboot", "halt"),
    *("init", "telinit", "loginctl", "busctl"),
)
_OWN = ("docker", *_REFUSED)
_BY_PATH = re.compile(rf"(?<![\w./-])/(?:usr/)?s?bin/(?=(?:{'|'.join(_OWN)})\b)")
_REFUSAL = '#!/bin/sh\necho "${0##*/} is not modelled on this machine" >&2\nexit 1\n'


def install(root: Path, boot: dict[str, Any]) -> None:
    """Write the programs of the machine that boots with these facts."""
    scripts = dict.fromkeys(_REFUSED, _REFUSAL)
    scripts["docker"] = engine.script(boot["engine"], boot["instance_id"], root)
    if real := shutil.which("curl"):
        scripts["curl"] = curl.script(root.parent, real)
    for name, script in scripts.items():
        program = root / "usr/bin" / name
        program.write_text(script)
        program.chmod(0o755)


def redirect(word: str, root: Path) -> str:
    """Replace a path of the host's program by that of the machine's own."""
    return _BY_PATH.sub(f"{root}/usr/bin/", word)


def calls_host(script: str) -> bool:
    """Whether a script calls one of the host's programs by its path."""
    return _BY_PATH.search(script) is not None
