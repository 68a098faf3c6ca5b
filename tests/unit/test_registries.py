"""What opens private registries: read as docker's client writes it, and told to whom it concerns."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from atemporal import registries, settings
from atemporal.errors import Invalid
from atemporal.model import parse_spec
from atemporal.registries import Registries

ECR = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
SECRET = "p:ass/w\N{LATIN SMALL LETTER O WITH DIAERESIS}rd"


def encoded(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def read(path: Path, config: Any) -> Registries:
    file = path / "config.json"
    file.write_text(config if isinstance(config, str) else json.dumps(config))
    return registries.load(settings.load(registries_file=str(file)))


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("registry.example.com:5000", "registry.example.com:5000/team/app:1"),
        ("https://registry.example.com/v2/", "registry.example.com/app"),
        ("https://index.docker.io/v1/", "team/app"),
        ("docker.io", "busybox"),
    ],
)
def test_an_entry_opens_the_images_of_its_registry(tmp_path: Path, name: str, image: str) -> None:
    for entry in (
        {"auth": encoded("bond", SECRET)},
        {"username": "bond", "password": SECRET},
    ):
        known = read(tmp_path, {"auths": {name: entry}, "credsStore": "pass"})
        assert known.opens(parse_spec({"image": image}).image) == encoded("bond", SECRET)
        other = parse_spec({"image": "example.org/app"})
        assert known.opens(other.image) is None


def test_without_a_file_nothing_is_known() -> None:
    assert registries.load(settings.load()).opens("registry.example.com/app:1") is None


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        {"auths": []},
        {"auths": {"a": {}}},
        {"auths": {"a": "x"}},
        {"auths": {"a": {"auth": "c2VjcmV0"}}},
        {"auths": {"a": {"auth": "not-base64-secret"}}},
        {"auths": {"a": {"username": "", "password": "secret"}}},
        {"auths": {"a": {"identitytoken": "secret"}}},
        {"auths": {f"{ECR}": {"auth": "QVdTOnNlY3JldA=="}}},
        {"auths": {"a/x": {"auth": "YTpzZWNyZXQ="}, "a/y": {"auth": "YjpzZWNyZXQ="}}},
    ],
)
def test_a_bad_file_stops_the_process_and_is_not_repeated(tmp_path: Path, config: Any) -> None:
    with pytest.raises(Invalid) as refusal:
        read(tmp_path, config)
    (name, why), *others = refusal.value.fields.items()
    assert (name, others) == ("ATEMPORAL_REGISTRIES_FILE", [])
    assert "config.json" in why
    assert "secret" not in why


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="No such file"):
        registries.load(settings.load(registries_file=str(tmp_path / "none")))


def test_what_opens_them_is_not_printed(tmp_path: Path) -> None:
    known = read(tmp_path, {"auths": {"a": {"auth": encoded("bond", SECRET)}}})
    assert encoded("bond", SECRET) not in repr(known)
