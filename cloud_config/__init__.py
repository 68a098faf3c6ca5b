"""What a machine boots with: constant templates, and one renderer for each OS family.

Promise: a machine runs its attempt's container at most once, says how that ended, and powers itself
off, whatever else happens to it. Everything here is constant but for the job manifest, the one file that
holds an attempt's data; it travels as base64, so nothing a job contains can break out of it.

The manifest (`/etc/atemporal/manifest`, mode 0600) holds NUL-terminated records `NAME=VALUE`: `attempt`,
`image`, `callback`, `token`, `timeout`, `deadline`, `pull` (how long a pull is tried), `capacity_type`,
then any number of `port`, `arg` (the command's words) and `env` (`env=NAME=VALUE`). Times are whole
seconds. One that is told by claim may have `auth` (what opens the image's registry), and with secrets by
reference `resolver`: first the script that gets them, then each as `resolver=NAME=ssm:/path`.

Order on the machine:
1. `atemporal-deadline.service`, the one unit that the user-data starts, waits `deadline` seconds and
   lets systemd power off by force. It needs neither docker nor network nor a right clock, and counts
   from its own start, which follows the boot by seconds. It is a service and not a timer because units
   are constant and only the manifest knows the time. An orderly shutdown does not stop it, so it ends
   one that hangs as well. Its start stops the OS's update services, which are masked too: an update
   reboots the machine. And it brings the job, ordered after it, in the same transaction of systemd:
   nothing that the program which applies the user-data does or fails to do later can part the two.
2. Where an image comes without docker, the job's unit installs it first (`docker_installer`).
3. `atemporal-job.service` calls the agent (`/opt/atemporal/bin/agent`): `pull` (with retries), `create`,
   `hold` (ask the API until the job's time is near, so that a cancel and another time are heeded),
   `claim` (ask the API; repeated with the same claim id until it answers), `run` (at the job's time, by
   the clock that counts (docs/adr/0035): start; tell when that was; wait; stop at the timeout: the
   image's stop signal, SIGKILL 30 s later; beside it, after five seconds, fetch the script `log_shipper`
   and execute it, which sends what the container writes), and in every case `report`: the exit record to
   the serial console, then by the callback for up to an hour. Then systemd powers off, however the unit
   ended.

When something fails:
- Manifest missing or damaged, agent missing: systemd powers off at once.
- Docker or registry away: `pull` repeats for `pull` seconds, then reports `pull`; the engine's message
  stands in for the log. What asking again would not change is reported as `definite` at once: an image
  that is not there or not for us, one that no engine runs, a disk that is too small
  (docs/registry-errors.md).
- A secret by reference that AWS refuses is reported as `create`; one that may be had later is tried
  for a minute and a half, less after a long pull, then reported as `pull`. The console says why.
- Refused while it holds, or when it claims: the container is never started, and there is nothing to
  report.
- A second boot: the first step finds its mark in `/var/lib/atemporal` and powers off. Were the mark
  lost with the crash, the new boot's claim id is another one and is refused.
- Stopped from outside (EC2 terminates, someone types `poweroff`): the container is stopped and its
  end reported as far as time allows, as `stopped`: the program is not to blame.
- Docker does not answer during the run: it has a minute, then the run is given up and reported.
- The callback redirects: as good as refused, since the token does not follow; the console says so.
- Docker restarts during the run: its containers ended with it, which is reported as `stopped`.
- The console takes nothing: it has five seconds for a word and a minute for the report. The deadline
  does not write there.
- The script can not be had, or is another one than the user-data names: nothing is sent before the end.
- Nothing answers at all: the deadline.

On the console the report is a line `atemporal-exit ATTEMPT {record}` and, for the last 32 KiB of the
container's output, lines `atemporal-log ATTEMPT BASE64`, each decodable alone; other programs write
there as well, between the lines.
"""

from hashlib import sha256
from importlib.resources import files


def template(name: str) -> str:
    """Return the text of one of this package's constant files."""
    return (files(__name__) / name).read_text(encoding="utf-8")


def _dense(script: str) -> str:
    """Drop comments, blank lines and indentation: a machine's user-data is small."""
    head, *lines = script.splitlines()
    bare = (line.strip() for line in lines)
    return "\n".join([head, *(line for line in bare if line and not line.startswith("#"))]) + "\n"


LOG_SHIPPER = _dense(template("log_shipper"))
"""What sends a container's output while it runs. The user-data has no room for it and holds its digest;
a machine gets it from the API."""

SECRET_RESOLVER = _dense(template("secret_resolver"))
"""What gets secrets by reference. A machine is told it with a job that has some."""

AGENT = _dense(template("agent")).replace(
    "LOG_SHIPPER_DIGEST", sha256(LOG_SHIPPER.encode()).hexdigest()[:32]
)
DOCKER_INSTALLER = _dense(template("docker_installer"))
"""What installs docker on an image that comes without it."""
DEADLINE_UNIT = template("atemporal-deadline.service")
JOB_UNIT = template("atemporal-job.service")
