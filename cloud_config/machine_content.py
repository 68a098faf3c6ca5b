"""What every machine is given at its first boot, whoever applies it there.

Promise: the files, the units and what is masked stand here once, and each renderer writes all of them.
The manifest's content is an attempt's, all else is constant. One unit is started and enabled: the
deadline, which brings the job (docs/adr/0025).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cloud_config import AGENT, DEADLINE_UNIT, DOCKER_INSTALLER, JOB_UNIT

MANIFEST: Final = "/etc/atemporal/manifest"
MANIFEST_MODE: Final = 0o600


@dataclass(frozen=True)
class Program:
    """A file to execute."""

    path: str
    text: str
    mode: int = 0o755


@dataclass(frozen=True)
class UnitFile:
    """A unit in `/etc/systemd/system`; one that is `started` is enabled too."""

    name: str
    text: str
    started: bool = False


# SELinux lets systemd execute what is below a `bin` of /opt in a domain that may do everything, and what
# lies beside it in none that may do anything (Fedora's policy: corecommands.fc, files.fc).
AGENT_FILE: Final = Program("/opt/atemporal/bin/agent", AGENT)
INSTALLER: Final = Program("/opt/atemporal/bin/docker-installer", DOCKER_INSTALLER)
JOB: Final = UnitFile("atemporal-job.service", JOB_UNIT)
DEADLINE: Final = UnitFile("atemporal-deadline.service", DEADLINE_UNIT, started=True)

# An update reboots the machine, or restarts its docker, and the job ends with it.
COREOS_UPDATES: Final = ("update-engine.service", "locksmithd.service", "zincati.service")
DISTRIBUTION_UPDATES: Final = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "unattended-upgrades.service",
)


def installing(job: UnitFile) -> UnitFile:
    """The job's unit for an image that may come without docker: installed first, under the deadline."""
    first = "ExecStartPre="
    return UnitFile(
        job.name, job.text.replace(first, f"{first}{INSTALLER.path}\n{first}", 1), job.started
    )
