"""`python3 -m deploy.compose up|down`: the whole system on this machine, by docker-compose.

Promise: `up` makes the passwords when there are none, starts everything, waits until all but Grafana
is healthy, and, where EC2 is a twin, runs one job to its end and prints it. It may be repeated. `down`
keeps the volumes, unless `--volumes` says otherwise.
Failure: what is missing on this machine is named, and nothing is started then. Of a start that fails,
docker-compose names the service; `docker compose logs SERVICE` has the reason.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.compose import passwords

ROOT = Path(__file__).parents[2]
_JOB = ("busybox:1.36", "--", "sh", "-c", 'echo "hello from $(hostname)"')


class Failed(Exception):
    """It can not be done; the text says why, and what to do."""


def main(arguments: Sequence[str] | None = None, *, root: Path = ROOT) -> int:
    """Do what the words say; return the exit status."""
    parser = argparse.ArgumentParser(prog="python3 -m deploy.compose", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("up", help="start everything and run one job")
    verbs.add_parser("down", help="stop everything").add_argument(
        "--volumes", action="store_true", help="and remove the volumes: all jobs, all history"
    )
    given = parser.parse_args(arguments)
    try:
        if given.verb == "up":
            _up(root)
        else:
            _down(root, volumes=given.volumes)
    except Failed as failed:
        print(f"compose: {failed}", file=sys.stderr)
        return 1
    return 0


def _up(root: Path) -> None:
    compose = compose_words()
    if not (root / passwords.ENV).exists() and _has_volume():
        raise Failed(
            "there is a volume atemporal_postgres, and no .env here with its password: put the .env "
            "back, or remove the volumes with all jobs (docker volume rm)"
        )
    values = passwords.prepare(root)
    _call(*compose, "up", "--detach", "--remove-orphans", cwd=root)
    api = f"http://127.0.0.1:{values.get('API_PORT', '8080')}"
    if "twin" in values["COMPOSE_PROFILES"].split(","):
        _run_a_job([*compose, "run", "--rm", "-T", "cli"], root)
    print(
        f"\n{api}/ui wants a token: {' '.join(compose)} run --rm cli token create NAME --scope read\n"
        f"Prometheus is at http://127.0.0.1:{values.get('PROMETHEUS_PORT', '9090')}, Grafana at "
        f"http://127.0.0.1:{values.get('GRAFANA_PORT', '3000')} (admin, GRAFANA_PASSWORD of .env)"
    )


def _run_a_job(cli: Sequence[str], root: Path) -> None:
    job = _call(*cli, "submit", *_JOB, cwd=root, captured=True).strip()
    _call(*cli, "wait", job, cwd=root)
    _call(*cli, "show", job, cwd=root)


def _down(root: Path, *, volumes: bool) -> None:
    compose = compose_words()
    if not (root / passwords.ENV).exists():
        raise Failed("there is no .env here: nothing was started from this folder")
    _call(*compose, "down", "--remove-orphans", *(["--volumes"] if volumes else []), cwd=root)


def compose_words() -> list[str]:
    """The words that call docker-compose.

    Raises:
        Failed: there is none here, or no docker.
    """
    if shutil.which("docker") is None or _fails("docker", "version"):
        raise Failed("no docker answers (`docker version`): install it and start it")
    if not _fails("docker", "compose", "version"):
        return ["docker", "compose"]
    if shutil.which("docker-compose") and not _fails("docker-compose", "version"):
        return ["docker-compose"]
    raise Failed("docker has no compose: install docker-compose-plugin, or docker-compose 1.29")


def _has_volume() -> bool:
    return not _fails("docker", "volume", "inspect", "atemporal_postgres")


def _fails(*argv: str) -> bool:
    return bool(subprocess.run(argv, capture_output=True, check=False).returncode)


def _call(*argv: str, cwd: Path, captured: bool = False) -> str:
    """Run a program; return what it prints, or let it be read.

    Raises:
        Failed: by its exit status.
    """
    done = subprocess.run(
        argv, cwd=cwd, stdout=subprocess.PIPE if captured else None, text=True, check=False
    )
    if done.returncode:
        raise Failed(f"`{' '.join(argv)}` failed ({done.returncode}); what it printed says why")
    return done.stdout or ""


if __name__ == "__main__":
    sys.exit(main())
