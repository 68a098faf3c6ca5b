"""Keep the code of a release: `python -m tests.upgrade.keep COMMIT` writes `before.tar.xz`.

Promise: the file holds what the commit has of the product, and those of its tests that need nothing
but Postgres; it names the commit. A checkout without a history has it all the same.
Failure: git refuses a commit that is not there, or that has not one of the tests; nothing is written.
"""

from __future__ import annotations

import lzma
import subprocess
import sys

from tests.upgrade.before import ARCHIVE, MESSAGES, ROOT

PRODUCT = ("atemporal", "services", "cloud_config", "pyproject.toml")
TESTS = tuple(
    f"tests/integration/test_{what}.py"
    for what in (
        *("boot_times", "group_outcomes", "invariants", "late_decisions", "launch_groups"),
        *("leads", "rate_limits", "retention", "schedule_changes", "schedule_unread", "schedules"),
        *("starts", "store", "submit_many", "transitions"),
    )
)
"""Those that ask the store, on a real Postgres."""
BESIDE = (
    *(f"tests/{name}.py" for name in ("__init__", "conftest", "frozen_clock", "invariants")),
    *("tests/launches.py", "tests/servers", MESSAGES),
    *(
        f"tests/integration/{name}.py"
        for name in ("__init__", "conftest", "grouping", "launching", "reaping", "recurring")
    ),
)
"""What those tests stand on, and messages as they were recorded."""


def keep(commit: str) -> int:
    """Write the archive of a commit anew; return its bytes.

    Raises:
        subprocess.CalledProcessError: git refuses; its words are on standard error.
    """
    argv = ["git", "archive", "--format=tar", commit, "--", *PRODUCT, *TESTS, *BESIDE]
    tar = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    return ARCHIVE.write_bytes(lzma.compress(tar, preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    (wanted,) = sys.argv[1:]
    print(f"{ARCHIVE.name}: {keep(wanted)} bytes")
