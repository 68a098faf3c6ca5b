"""What docker's own client takes we take, to the same end: references, env files and commands.

A docker of our own judges each shape. What we refuse and docker takes is named in `shapes.py` with its
reason. Commands and environments go the whole way: the command line, the machine's manifest, the
machine's agent, the container.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import click
import pytest

from atemporal import environment, image, userdata
from atemporal.cli.arguments import read_environment
from atemporal.cli.submit import submit
from atemporal.errors import Invalid
from atemporal.model import AttemptRef, JobSpec, Launch, parse_spec
from atemporal.model.secret import revealed
from cloud_config import AGENT
from tests.e2e.shapes import (
    COMMANDS,
    ENV_FILES,
    NEWER_REFERENCES,
    REFERENCES,
    STRICTER_COMMANDS,
    EnvFile,
)
from tests.e2e.systemd.engine import Engine, open_own_engine

T = TypeVar("T")
R = TypeVar("R")
BASE = "docker.io/library/shape:1"
OWN_COMMAND = ["/own"]


@dataclass(frozen=True)
class Docker:
    """A docker with one image, `BASE`, that has a command of its own."""

    engine: Engine
    root: Path

    def created(self, *words: str | Path) -> dict[str, Any] | None:
        """The configuration of a container that `docker create WORDS` makes; None if it refuses."""
        done = self.engine.run("create", *words, check=False)
        return self.config(done.stdout.decode().strip()) if done.returncode == 0 else None

    def config(self, container: str) -> dict[str, Any]:
        """A container's configuration."""
        shown = self.engine.text("inspect", "--format", "{{json .Config}}", container)
        return dict(json.loads(shown))

    def by_agent(self, spec: JobSpec, *, by_claim: bool = False) -> dict[str, Any]:
        """The configuration of the container that a machine's agent makes for this job.

        It has the job in its user-data, or has asked for it (`by_claim`).
        """
        ref = AttemptRef(uuid4(), 1)
        launch = Launch(
            image_id="ami-1",
            instance_type="t3.small",
            callback_base="http://127.0.0.1:9",
            key_id="k1",
            deadline_s=60,
        )
        root = self.root / str(ref)
        launch = launch.model_copy(update={"delivery": "claim" if by_claim else "inline"})
        token = "k1." + "0" * 64
        rendered = userdata.render(ref, spec, launch, token).decode()
        manifest = re.search(r"encoding: base64\n *content: (\S+)\n", rendered)
        assert manifest
        for folder in ("etc/atemporal", "run/atemporal"):
            (root / folder).mkdir(parents=True)
        (root / "etc/atemporal/manifest").write_bytes(base64.b64decode(manifest[1]))
        if by_claim:
            answer = userdata.manifest(ref, spec, launch, token)
            (root / "run/atemporal/manifest").write_bytes(answer)
        path = f"{self.engine.program.parent}:{os.environ['PATH']}"
        host = f"unix://{self.engine.socket}"
        subprocess.run(
            ["bash", "-c", AGENT, "agent", "create"],
            env={**os.environ, "PATH": path, "DOCKER_HOST": host, "ATEMPORAL_ROOT": str(root)},
            check=True,
            timeout=60,
        )
        return self.config(f"atemporal-{ref.id}")


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    nothing = io.BytesIO()
    tarfile.open(fileobj=nothing, mode="w").close()
    with open_own_engine(disk_mb=64) as engine:
        own = f"CMD {json.dumps(OWN_COMMAND)}"
        engine.run("import", "--change", own, "-", BASE, stdin=nothing.getvalue())
        yield Docker(engine, tmp_path_factory.mktemp("machines"))


def each(do: Callable[[T], R], things: Iterable[T]) -> list[R]:
    """Docker's client is mostly waited for: four at a time."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(do, things))


def ours(reference: str) -> str | None:
    """What we make of a reference, in the form that docker shows; None if we refuse it."""
    try:
        return image.familiar(image.normalise(reference))
    except ValueError:
        return None


def is_taken(docker: Docker, reference: str) -> bool:
    """Whether docker takes the reference: as another name of `BASE`, or it has a digest."""
    tagged = docker.engine.run("tag", "--", BASE, reference, check=False)
    return tagged.returncode == 0 or b"tag with a digest reference" in tagged.stderr


def absent(docker: Docker, reference: str) -> str:
    """What docker calls an image that it has not."""
    refused = docker.engine.run(
        "create", "--pull", "never", reference, check=False
    ).stderr.decode()
    named = re.search(r"No such image: (\S+)", refused)
    assert named, refused
    return named[1]


def test_a_hundred_references_are_to_us_what_they_are_to_docker(docker: Docker) -> None:
    references = list(dict.fromkeys(REFERENCES))
    assert len(references) == len(REFERENCES) > 100
    newer = docker.engine.text("version", "--format", "{{.Server.Version}}").split(".")[0]
    if int(newer) >= 25:
        references += NEWER_REFERENCES
    taken = each(lambda one: is_taken(docker, one), references)
    verdicts = zip(references, taken, strict=True)
    other = [one for one, theirs in verdicts if (ours(one) is not None) != theirs]
    assert not other, "docker and we do not agree"
    mine = {one: name for one in references if (name := ours(one)) is not None}
    assert 40 < len(mine) < len(references) - 40, "both kinds have to be there"
    digests = [one for one in mine if "@" in one]
    assert [mine.pop(one) for one in digests] == each(lambda one: absent(docker, one), digests)
    names = json.loads(
        docker.engine.text("image", "inspect", "--format", "{{json .RepoTags}}", BASE)
    )
    assert set(names) == {image.familiar(BASE), *mine.values()}


def test_a_reference_that_only_a_newer_docker_knows_is_taken() -> None:
    refused = [one for one in NEWER_REFERENCES if ours(one) is None]
    assert refused == ["[fe80::1%eth0]:5000/a", "[::g]/a", "[::1]", "[]/a"]


def _environment(config: dict[str, Any]) -> dict[str, str]:
    """As a program sees it: of two with one name the last."""
    return dict(pair.split("=", 1) for pair in config["Env"] or ())


def test_env_files_mean_to_us_what_they_mean_to_docker(
    docker: Docker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MINE", "my own =value ")
    monkeypatch.delenv("ABSENT", raising=False)
    assert len(ENV_FILES) > 40

    def compare(file: EnvFile) -> str | None:
        path = tmp_path / str(uuid4())
        content = file.content
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        config = docker.created("--env-file", path, BASE)
        try:
            with path.open("rb") as stream:
                spec = parse_spec({"image": BASE, "env": read_environment([stream], [])})
            userdata.check_fits(spec)
        except (click.BadParameter, Invalid) as refusal:
            if file.stricter:
                return None if config else f"{file.shape}: docker refuses it too"
            return f"{file.shape}: we refuse it ({refusal}), docker does not" if config else None
        if file.stricter:
            return f"{file.shape}: we take it, though {file.stricter}"
        if config is None:
            return None if file.looser else f"{file.shape}: docker refuses it, we do not"
        if file.looser:
            return f"{file.shape}: docker takes it too"
        mine = docker.by_agent(spec.model_copy(update={"ports": ()}))
        if _environment(mine) != _environment(config):
            return f"{file.shape}: {_environment(mine)} is not {_environment(config)}"
        return None

    assert not list(filter(None, each(compare, ENV_FILES)))


def test_the_largest_environment_and_the_longest_variable_arrive(docker: Docker) -> None:
    """A byte more is refused at the submit: the machine's own limits are never met there."""
    longest = "é" * ((environment.LONGEST - len("A=")) // 2)
    fill = userdata.LARGEST - (len("env=A=") + len(longest.encode()) + 1) - 2 * len("env=B=\0")
    fields: dict[str, Any] = {
        "image": BASE,
        "ports": (),
        "env": {"A": longest, "B": "b" * (fill // 2)},
        "secrets": {"C": "c" * (fill - fill // 2)},
    }
    spec = parse_spec(fields)
    userdata.check_fits(spec)
    with pytest.raises(Invalid, match=f"take {userdata.LARGEST + 1} bytes"):
        userdata.check_fits(parse_spec({**fields, "env": {**spec.env, "B": spec.env["B"] + "b"}}))
    for longer in ({"env": {"A": longest + "éé"}}, {"secrets": {"A": longest + "éé"}, "env": {}}):
        with pytest.raises(Invalid, match="A takes"):
            parse_spec({**fields, **longer})
    found = _environment(docker.by_agent(spec, by_claim=True))
    assert {name: found[name] for name in "ABC"} == spec.env | revealed(spec.secrets)


def test_commands_arrive_as_docker_would_take_them(docker: Docker) -> None:
    assert len(COMMANDS) > 40

    def read(*words: str) -> JobSpec:
        given = submit.make_context("submit", list(words)).params
        fields: dict[str, Any] = {
            "image": given["image"],
            "command": given["command"],
            "ports": (),
        }
        return parse_spec(fields)

    def compare(words: tuple[str, ...]) -> str | None:
        config = docker.created(BASE, *words)
        assert config is not None
        mine = docker.by_agent(spec := read(BASE, "--", *words))
        if mine["Cmd"] != config["Cmd"] or mine["Entrypoint"] != config["Entrypoint"]:
            return f"{words}: {mine['Cmd']} is not {config['Cmd']}"
        # What begins with a dash right behind the image is an option of ours: see `submit --help`.
        if not (words and words[0].startswith("-")) and read(BASE, *words) != spec:
            return f"{words}: not the same without --"
        return None

    assert not list(filter(None, each(compare, COMMANDS)))
    for words in STRICTER_COMMANDS:
        assert docker.created(BASE, *words) is not None
        with pytest.raises(Invalid):
            read(BASE, "--", *words)
