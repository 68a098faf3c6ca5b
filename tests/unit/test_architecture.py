"""The processors of an instance type, by its name, and that a job's types have the same."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import moto
import pytest

from atemporal.architecture import architecture, check_one
from atemporal.errors import Invalid
from atemporal.model import parse_spec, read_spec

# As EC2 listed all of its types, in the moto that the tests have.
LISTED = Path(moto.__file__).parent / "ec2" / "resources" / "instance_types.json.gz"


def test_every_type_of_ec2_that_boots_linux_says_its_architecture_by_its_name() -> None:
    types = json.loads(gzip.decompress(LISTED.read_bytes()))
    supported = {
        name: one["ProcessorInfo"]["SupportedArchitectures"] for name, one in types.items()
    }
    linux = {name: of for name, of in supported.items() if not name.startswith("mac")}
    assert len(linux) > 1000
    assert [name for name, of in linux.items() if architecture(name) not in of] == []


@pytest.mark.parametrize(
    ("name", "of"),
    [
        *(("p6e-gb200.36xlarge", "arm64"), ("u7i-12tb.224xlarge", "x86_64")),
        *(("a1.metal", "arm64"), ("gr6.4xlarge", "x86_64"), ("new.kind", "x86_64")),
    ],
)
def test_a_newer_type_too(name: str, of: str) -> None:
    assert architecture(name) == of


def test_types_of_one_architecture_are_taken() -> None:
    check_one(())
    check_one(("m7g.large", "c7g.large", "a1.large"))
    check_one(("m7i.large", "c7a.large"))


def test_mixed_types_are_refused_at_submission_and_an_older_job_is_still_read() -> None:
    given = {
        "image": "nginx",
        "machine": {"instance_types": ["m7i.large", "c7g.large", "m7g.large"]},
    }
    with pytest.raises(Invalid) as refused:
        parse_spec(given)
    assert refused.value.fields == {
        "machine.instance_types": "all have to be of one architecture, for one image: c7g.large "
        "has arm64 and m7i.large has x86_64; submit a job for each"
    }
    read = read_spec({**given, "image": "docker.io/library/nginx:latest"}, None)
    assert len(read.machine.instance_types) == 3
