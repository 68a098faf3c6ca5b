"""What a job may ask of its container: docker's options, and what an operator allows of them."""

from __future__ import annotations

from typing import Any

import pytest

from atemporal.errors import Invalid
from atemporal.model import parse_spec
from atemporal.model.container import EVERY_OPTION, FIELDS, JOB_OPTIONS, options
from atemporal.settings import Settings
from atemporal.terms import NO_TERMS, Terms

WHOLE = {
    "entrypoint": ["/bin/sh", "-c"],
    "command": ["echo $0", "-x"],
    "user": "1000:nogroup",
    "workdir": "/srv/app",
    "memory_mb": 512,
    "shm_mb": 256,
    "volumes": ["/data", "/mnt/disk:/cache:ro"],
    "gpus": "all",
    "network": "host",
    "machine": {"instance_types": ["g6.xlarge"]},
}


def spec(**fields: Any) -> Any:
    return parse_spec({"image": "a", **fields})


def test_each_field_is_one_option_of_docker() -> None:
    assert options(spec(**WHOLE)) == [
        "--entrypoint=/bin/sh",
        "--user=1000:nogroup",
        "--workdir=/srv/app",
        "--memory=512m",
        "--shm-size=256m",
        "--gpus=all",
        "--network=host",
        "--volume=/data",
        "--volume=/mnt/disk:/cache:ro",
    ]
    assert options(spec(gpus=2)) == ["--gpus=2"]
    assert options(spec()) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("user", "-u"),
        ("user", "a b"),
        ("user", "a:"),
        ("user", "1:2:3"),
        ("user", "1234567890"),
        ("user", ""),
        ("workdir", "srv"),
        ("workdir", "/srv/../etc"),
        ("workdir", "/srv/"),
        ("workdir", "/a\nb"),
        ("memory_mb", 5),
        ("memory_mb", "512m"),
        ("memory_mb", True),
        ("shm_mb", 0),
        ("volumes", ["data"]),
        ("volumes", ["/"]),
        ("volumes", ["/data:ro"]),
        ("volumes", ["name:/data"]),
        ("volumes", ["/a:/b:rw"]),
        ("volumes", ["/a/./b"]),
        ("volumes", ["/data", "/data"]),
        ("volumes", ["/data", "/mnt:/data"]),
        ("gpus", 0),
        ("gpus", "1"),
        ("gpus", True),
        ("gpus", "none"),
        ("network", "container:x"),
        ("entrypoint", []),
        ("entrypoint", [""]),
        ("entrypoint", ["x" * 4097]),
        ("volumes", ["/" + "x" * 255]),
        ("workdir", "/" + "x" * 1024),
    ],
)
def test_what_docker_would_refuse_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(Invalid) as refusal:
        spec(**{field: value})
    assert {name.partition(".")[0] for name in refusal.value.fields} == {field}


@pytest.mark.parametrize(
    "volume", ["/data", "/a/.cache", "/..a/b c", "/mnt:/data", "/mnt:/data:ro"]
)
def test_volumes_that_docker_takes(volume: str) -> None:
    assert spec(volumes=[volume]).volumes == (volume,)


def terms(**settings: Any) -> Terms:
    return Terms.of(Settings.model_validate(settings))


def test_an_operator_who_says_nothing_allows_all_but_the_machines_network_and_its_directories() -> (
    None
):
    with pytest.raises(Invalid) as refusal:
        NO_TERMS.check(spec(**WHOLE))
    assert sorted(refusal.value.fields) == ["network", "volumes"]
    assert "ATEMPORAL_JOB_OPTIONS" in refusal.value.fields["network"]
    assert "/mnt/disk" in refusal.value.fields["volumes"]
    NO_TERMS.check(spec(**WHOLE | {"network": "none", "volumes": ["/data"]}))


def test_an_operator_may_allow_everything() -> None:
    terms(job_options=EVERY_OPTION, host_paths="/mnt").check(spec(**WHOLE))


@pytest.mark.parametrize("field", [name for name in FIELDS if name != "network"])
def test_what_is_not_listed_is_refused_at_every_door_by_its_name(field: str) -> None:
    mean = terms(job_options=[one for one in EVERY_OPTION if one != field], host_paths="/mnt")
    with pytest.raises(Invalid) as refusal:
        mean.check(spec(**WHOLE), within="job.")
    assert list(refusal.value.fields) == [f"job.{field}"]
    assert f"have {field} added to ATEMPORAL_JOB_OPTIONS" in refusal.value.fields[f"job.{field}"]


def test_a_directory_of_the_machine_is_allowed_with_what_is_below_it_and_not_beside_it() -> None:
    own = terms(host_paths="/mnt/disk,/srv")
    own.check(spec(volumes=["/mnt/disk/a:/a", "/srv:/b"]))
    for path in ("/mnt", "/mnt/diskette", "/etc"):
        with pytest.raises(Invalid, match="may not be had here"):
            own.check(spec(volumes=[f"{path}:/a"]))


@pytest.mark.parametrize("name", ["t3.small", "t4g.small", "g4ad.xlarge", "inf2.xlarge"])
def test_gpus_want_instances_that_have_some(name: str) -> None:
    kind = "g5g.xlarge" if name.startswith("t4g") else "g4dn.xlarge"
    one, other = {"instance_types": [name]}, {"instance_types": [kind, name]}
    for machine in (one, other):
        with pytest.raises(Invalid, match=f"{name} has no NVIDIA GPU"):
            NO_TERMS.check(spec(gpus=1, machine=machine))
    with pytest.raises(Invalid, match=f"{name} has no NVIDIA GPU"):
        terms(instance_type=name).check(spec(gpus=1))


@pytest.mark.parametrize("name", ["g4dn.xlarge", "g5g.xlarge", "gr6.4xlarge", "p5en.48xlarge"])
def test_instances_that_have_gpus(name: str) -> None:
    NO_TERMS.check(spec(gpus=1, machine={"instance_types": [name]}))
    terms(instance_type=name).check(spec(gpus=1))


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("job_options", "entrypoint,privileged", "'privileged' is unknown"),
        ("host_paths", "mnt", "'mnt' is no directory"),
        ("host_paths", "/mnt/../etc", "is no directory"),
    ],
)
def test_bad_terms_are_refused_at_the_start(name: str, value: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Settings.model_validate({name: value})


def test_nothing_is_allowed_that_is_no_option() -> None:
    assert {*JOB_OPTIONS} < {*EVERY_OPTION}
