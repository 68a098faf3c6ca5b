"""`python -m atemporal.twin.machine DIR`: be the machine in this directory.

DIR holds `boot.json` (see `host.lifecycle`). It gets `machine.json` (this process, once it runs) and
`ended.json` (once it has powered off by itself or was told to); without the latter it crashed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from atemporal.twin import jsonfile, processes
from atemporal.twin.faults import fault
from atemporal.twin.machine.machine import Machine


def main(directory: Path) -> None:
    """Boot, run to the end, and say who powered the machine off; never return."""
    processes.adopt_orphans()
    pid = os.getpid()
    identity = {"pid": pid, "started": processes.start_time(pid)}
    jsonfile.replace(directory / "machine.json", identity)
    by = Machine(directory).run()
    fault.hang(directory)
    jsonfile.replace(directory / "ended.json", {"by": by})
    # Threads may still sit in a read or a wait; there is nothing left for them to do.
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
