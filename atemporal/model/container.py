"""What a job may ask of its container beside its image, command and environment: options of docker's.

Promise: each field is what `docker create` takes, and is checked here: what docker would refuse without
knowing the image or the machine is refused at the submit, not at the job's time.
Mechanism: the forms are docker's own (docs.docker.com/reference/cli/docker/container/create). `options`
writes them as words of its command line, none of which can be read as two.
Failure: what only the machine knows (a user that the image does not have, more memory than there is, an
image without the driver of a GPU) is told by docker there, as the end of the attempt.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, Strict

from atemporal.model.forms import EACH_ONCE
from atemporal.pattern import whole

if TYPE_CHECKING:
    from atemporal.model.job_spec import JobFields

MOST_MB = 32 * 1024 * 1024
MOST_GPUS = 64
Network = Literal["bridge", "host", "none"]

_NAME = "(?:[A-Za-z_][A-Za-z0-9_.-]{0,31}|[0-9]{1,9})"
USER = re.compile(f"{_NAME}(?::{_NAME})?")
# No step is `.` or `..`, and none is empty: two ways to write a place would be one place to docker.
_PATH = r"(?:/\.{0,2}[^/:.\x00-\x1f][^/:\x00-\x1f]*)+"
PATH = re.compile(_PATH)
VOLUME = re.compile(rf"{_PATH}(?::{_PATH}(?::ro)?)?")

FIELDS: Final = (
    *("entrypoint", "user", "workdir", "memory_mb", "shm_mb", "volumes", "gpus", "network"),
)
"""The fields of a job that are options of its container."""
JOB_OPTIONS: Final = (*(name for name in FIELDS if name != "network"), "network=none")
"""What an operator who says nothing allows jobs to use."""
EVERY_OPTION: Final = (*JOB_OPTIONS, "network=host")


def _checked_user(user: str) -> str:
    if not USER.fullmatch(user):
        raise ValueError(
            f"{user!r} is no user; write a name or a number, or USER:GROUP, for example 1000:1000"
        )
    return user


def _checked_workdir(path: str) -> str:
    if path != "/" and not PATH.fullmatch(path):
        raise ValueError(
            f"{path!r} is no directory of a container; write it from / on, without . and .. and :"
        )
    return path


def _checked_volumes(volumes: tuple[str, ...]) -> tuple[str, ...]:
    taken: dict[str, str] = {}
    for volume in volumes:
        if not VOLUME.fullmatch(volume):
            raise ValueError(
                f"{volume!r} is no volume; write a directory of the container like /data, or "
                "HOST:CONTAINER or HOST:CONTAINER:ro, each from / on, without . and .."
            )
        place = container_path(volume)
        if place in taken:
            raise ValueError(
                f"{taken[place]!r} and {volume!r} are the same place of the container"
            )
        taken[place] = volume
    return volumes


def _checked_gpus(value: Any) -> Any:
    """Tell `all` from a number first, so that what is wrong is told in one sentence."""
    if value is not None and not (
        value == "all" or (type(value) is int and 1 <= value <= MOST_GPUS)
    ):
        raise ValueError(f"is neither all nor a whole number from 1 to {MOST_GPUS}")
    return value


User = Annotated[
    str,
    Field(max_length=65, json_schema_extra={"pattern": whole(USER.pattern)}),
    AfterValidator(_checked_user),
]
Workdir = Annotated[
    str,
    Field(max_length=1024, json_schema_extra={"pattern": whole(rf"/|{PATH.pattern}")}),
    AfterValidator(_checked_workdir),
]
# All of them together are in a part of the manifest that has to stay small.
_Volume = Annotated[
    str, Field(max_length=255, json_schema_extra={"pattern": whole(VOLUME.pattern)})
]
Volumes = Annotated[
    tuple[_Volume, ...], EACH_ONCE, Field(max_length=32), AfterValidator(_checked_volumes)
]
# The smallest that docker takes.
Memory = Annotated[int, Strict(), Field(ge=6, le=MOST_MB)]
SharedMemory = Annotated[int, Strict(), Field(ge=1, le=MOST_MB)]
_GpuCount = Annotated[int, Strict(), Field(ge=1, le=MOST_GPUS)]
Gpus = Annotated[Literal["all"] | _GpuCount, BeforeValidator(_checked_gpus)]


def known_options(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of options, if there are such.

    Raises:
        ValueError: one is unknown; with those there are.
    """
    unknown = sorted({*names} - {*EVERY_OPTION})
    if unknown:
        raise ValueError(f"{unknown[0]!r} is unknown; known are: {', '.join(EVERY_OPTION)}")
    return names


def paths(given: tuple[str, ...]) -> tuple[str, ...]:
    """Directories of a machine, if they are written as such.

    Raises:
        ValueError: one is not; with what to write.
    """
    for path in given:
        if not PATH.fullmatch(path):
            raise ValueError(f"{path!r} is no directory; write it from / on, without . and ..")
    return given


def host_path(volume: str) -> str | None:
    """The directory of the machine that a volume is; None where docker makes a new one."""
    parts = volume.split(":")
    return parts[0] if len(parts) > 1 else None


def container_path(volume: str) -> str:
    """Where in the container a volume is."""
    parts = volume.split(":")
    return parts[min(1, len(parts) - 1)]


def options(spec: JobFields) -> list[str]:
    """The words of `docker create` that a job's fields are, each an option with its value."""
    given = {
        "entrypoint": spec.entrypoint[0] if spec.entrypoint else None,
        "user": spec.user,
        "workdir": spec.workdir,
        "memory": f"{spec.memory_mb}m" if spec.memory_mb else None,
        "shm-size": f"{spec.shm_mb}m" if spec.shm_mb else None,
        "gpus": spec.gpus,
        "network": spec.network if spec.network != "bridge" else None,
    }
    words = [f"--{name}={value}" for name, value in given.items() if value is not None]
    return [*words, *(f"--volume={volume}" for volume in spec.volumes)]
