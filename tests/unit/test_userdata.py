"""User-data: constant but for the manifest, which comes back out byte for byte; small enough; the same
bytes for the same attempt."""

from __future__ import annotations

import base64
import copy
import gzip
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from atemporal import userdata
from atemporal.errors import Invalid
from atemporal.model import AttemptRef, JobSpec, Launch
from atemporal.twin.machine.unit import load
from cloud_config import AGENT, DEADLINE_UNIT, JOB_UNIT
from cloud_config.flatcar import FLATCAR, document

ROOT = Path(__file__).parents[2]

GOLDEN = Path(__file__).with_name("userdata.golden.yaml")
REF = AttemptRef(UUID("0198c5e0-7a11-7c3e-9d5b-2f4a6b8c0d1e"), 2)
TOKEN = "k1." + "0123456789abcdef" * 4
LAUNCH = Launch(
    image_id="ami-0123456789abcdef0",
    instance_type="t3.small",
    callback_base="https://atemporal.example.com",
    key_id="k1",
    deadline_s=90_000,
)
SPEC = JobSpec(
    image="nginx:1.9",
    command=("sh", "-c", "echo $NAME; exit 7"),
    env={"NAME": "bond, james bond!", "LINES": "one\ntwo\n"},
    timeout_s=3600,
)

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200)
ENV = st.dictionaries(st.from_regex(r"\A[B-Zb-z_][A-Za-z0-9_]{0,8}\Z"), TEXT, max_size=6)
COMMAND = st.lists(TEXT, max_size=5).filter(lambda words: not words or words[0]).map(tuple)


def render(spec: JobSpec, ref: AttemptRef = REF) -> bytes:
    return userdata.render(ref, spec, LAUNCH, TOKEN)


def parse(rendered: bytes) -> tuple[dict[str, Any], bytes]:
    """The document with its manifest taken out, and the manifest."""
    document = copy.deepcopy(yaml.safe_load(rendered))
    manifest = document["write_files"][0]
    return document, base64.b64decode(manifest.pop("content"), validate=True)


def readable(rendered: bytes) -> str:
    """The text with the agent as it is on the machine: another zlib compresses it otherwise."""
    compressed = re.compile(r"( *)encoding: gz\+b64\n +content: (\S+)\n")

    def plain(match: re.Match[str]) -> str:
        agent = gzip.decompress(base64.b64decode(match[2], validate=True)).decode()
        lines = "".join(f"{match[1]} {line}\n" for line in agent.splitlines())
        return f"{match[1]}compressed: |\n{lines}"

    return compressed.sub(plain, rendered.decode())


def test_rendered_bytes_are_the_golden_ones() -> None:
    # A change here is a change for every machine that starts: look at the difference, then renew the
    # file with `python -m tests.unit.test_userdata`.
    assert readable(render(SPEC)) == GOLDEN.read_text()


def test_the_first_line_is_what_the_machine_looks_for() -> None:
    assert render(SPEC).split(b"\n")[0] == b"#cloud-config"


def test_the_document_holds_files_and_units() -> None:
    document, _ = parse(render(SPEC))
    assert [file["path"] for file in document["write_files"]] == [
        "/etc/atemporal/manifest",
        "/opt/atemporal/bin/agent",
    ]
    assert [file["permissions"] for file in document["write_files"]] == ["0600", "0755"]
    agent = document["write_files"][1]
    assert agent["encoding"] == "gz+b64"
    assert gzip.decompress(base64.b64decode(agent["content"])).decode() == AGENT
    assert document["coreos"]["units"] == [
        {"name": "update-engine.service", "mask": True},
        {"name": "locksmithd.service", "mask": True},
        {"name": "atemporal-job.service", "content": JOB_UNIT},
        {
            "name": "atemporal-deadline.service",
            "enable": True,
            "command": "start",
            "content": DEADLINE_UNIT,
        },
    ]


class TestOneCommand:
    """Each command waits for a signal of systemd that can be lost, and then no later one is sent."""

    def test_the_deadline_is_all_that_a_command_starts(self) -> None:
        units = parse(render(SPEC))[0]["coreos"]["units"]
        assert [unit["name"] for unit in units if "command" in unit] == [
            "atemporal-deadline.service"
        ]

    def test_the_deadline_brings_the_job_and_does_not_depend_on_it(self) -> None:
        deadline = load("atemporal-deadline.service", DEADLINE_UNIT)
        assert deadline.wants == ("atemporal-job.service",)
        assert (deadline.requires, deadline.after, deadline.start_pre) == ((), (), ())

    def test_the_job_comes_after_the_deadline_and_not_without_it(self) -> None:
        job = load("atemporal-job.service", JOB_UNIT)
        assert job.requires == ("atemporal-deadline.service",)
        assert "atemporal-deadline.service" in job.after

    def test_what_is_enabled_for_later_boots_is_what_this_boot_starts(self) -> None:
        units = parse(render(SPEC))[0]["coreos"]["units"]
        assert [unit["name"] for unit in units if unit.get("enable")] == [
            "atemporal-deadline.service"
        ]


def test_canonicals_cloud_init_powers_the_machine_off_before_anything_else() -> None:
    # It is what images of other families have, and it knows nothing of `coreos`.
    (command,) = parse(render(SPEC))[0]["bootcmd"]
    assert command.endswith("; poweroff -f || poweroff")
    assert len(command) < 120


def test_the_constant_part_has_nothing_the_machine_would_replace() -> None:
    # coreos-cloudinit replaces these words anywhere in the text.
    text = render(SPEC).decode()
    assert not [word for word in ("$private_ipv", "$public_ipv") if word in text]


def test_keys_are_spelled_as_current_flatcar_reads_them() -> None:
    def keys(value: Any) -> set[str]:
        if isinstance(value, dict):
            return set(value).union(*map(keys, value.values()))
        return set().union(*map(keys, value)) if isinstance(value, list) else set()

    # A hyphenated key is passed over in silence there.
    assert not [key for key in keys(parse(render(SPEC))[0]) if "-" in key]


@given(env=ENV, command=COMMAND)
def test_any_job_changes_the_manifest_only_and_it_reads_back_exactly(
    env: dict[str, str], command: tuple[str, ...]
) -> None:
    spec = JobSpec(image="nginx", env=env, command=command, ports=("8080:80/tcp", "53:53/udp"))
    document, manifest = parse(render(spec))
    assert document == parse(render(SPEC))[0]
    expected = [
        f"attempt={REF.id}",
        "image=docker.io/library/nginx:latest",
        f"callback=https://atemporal.example.com/jobs/{REF.job_id}/callback",
        f"token={TOKEN}",
        "timeout=86400",
        "deadline=90000",
        "pull=120",
        "capacity_type=on-demand",
        "port=8080:80/tcp",
        "port=53:53/udp",
        *(f"arg={word}" for word in command),
        *(f"env={name}={value}" for name, value in sorted(env.items())),
    ]
    assert manifest.endswith(b"\0")
    assert manifest.decode().split("\0")[:-1] == expected


@given(tail=st.binary(max_size=300))
def test_what_is_put_together_is_what_yaml_would_write(tail: bytes) -> None:
    manifest = b"attempt=1" + tail
    whole = document(base64.b64encode(manifest).decode())
    assert FLATCAR.render(manifest) == whole.encode()


@given(env=ENV)
def test_the_same_attempt_gives_the_same_bytes(env: dict[str, str]) -> None:
    backwards = dict(reversed(env.items()))
    assert render(JobSpec(image="nginx", env=env)) == render(JobSpec(image="nginx", env=backwards))


def test_another_attempt_gives_other_bytes() -> None:
    assert render(SPEC) != render(SPEC, REF._replace(number=3))


def test_an_unknown_os_family_is_refused_by_name() -> None:
    launch = LAUNCH.model_copy(update={"os_family": "plan9"})
    with pytest.raises(Invalid, match=r"plan9.*known are: flatcar"):
        userdata.render(REF, SPEC, launch, TOKEN)


@pytest.mark.parametrize("variables", [1, 2, 60, 300])
@pytest.mark.parametrize("ports", [(), ("80:80",), tuple(f"{n}:{n}" for n in range(1, 30))])
def test_a_refusal_says_what_is_taken_and_what_fits_to_the_byte(
    variables: int, ports: tuple[str, ...]
) -> None:
    def job(total: int) -> JobSpec:
        """A job whose variables take so many bytes of name, value and their cost."""
        names = [f"V{number:03}" for number in range(variables)]
        rest = total - sum(len(name) + 6 for name in names)
        each, more = divmod(rest, variables)
        values = ["x" * (each + (number < more)) for number in range(variables)]
        return JobSpec(image="nginx", ports=ports, env=dict(zip(names, values, strict=True)))

    with pytest.raises(Invalid) as refused:
        userdata.check_fits(job(20_000))
    assert list(refused.value.fields) == ["env"]
    numbers = [int(one) for one in re.findall(r"\d+", refused.value.fields["env"])]
    assert numbers[0] == 20_000
    fits = numbers[1]
    assert fits == userdata.room(job(20_000), FLATCAR)
    userdata.check_fits(job(fits))
    with pytest.raises(Invalid, match=f"take {fits + 1} bytes on the machine and {fits} fit"):
        userdata.check_fits(job(fits + 1))


@pytest.mark.parametrize("words", [1, 100])
def test_a_commands_words_count_as_the_refusal_says(words: int) -> None:
    fits = userdata.room(JobSpec(image="nginx"), FLATCAR)

    def job(total: int) -> JobSpec:
        first = "x" * (total - 5 * words - (words - 1))
        return JobSpec(image="nginx", command=(first, *(["y"] * (words - 1))))

    userdata.check_fits(job(fits))
    with pytest.raises(Invalid, match=f"and {fits} fit"):
        userdata.check_fits(job(fits + 1))


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md"])
def test_the_room_is_as_large_as_the_documents_say(page: str) -> None:
    (stated,) = re.findall(r"about (\d\.\d) KB\s+are left", (ROOT / page).read_text())
    assert userdata.room(JobSpec(image="nginx:1.9"), FLATCAR) // 100 == float(stated) * 10


def test_there_is_always_room_for_an_ordinary_environment() -> None:
    ports = tuple(f"{60_000 + n}:{60_000 + n}/udp" for n in range(32))
    longest = JobSpec(image=f"registry.example.com/{'i' * 255}:{'t' * 128}", ports=ports)
    assert userdata.room(longest, FLATCAR) > 5_080


@given(size=st.integers(5_800, 7_000))
def test_what_fits_at_submission_fits_at_launch_under_the_longest_settings(size: int) -> None:
    spec = JobSpec(image="nginx", env={"A": "é" * (size // 2)})
    try:
        userdata.check_fits(spec)
    except Invalid:
        return
    launch = LAUNCH.model_copy(
        update={"callback_base": "https://" + "c" * 400, "deadline_s": 10**9}
    )
    token = "k" * 16 + "." + "f" * 64
    ref = AttemptRef(REF.job_id, 10**9)
    assert len(userdata.render(ref, spec, launch, token)) <= userdata.LIMIT


if __name__ == "__main__":
    GOLDEN.write_text(readable(render(SPEC)))
