"""User-data: constant but for the manifest, which comes back out byte for byte; small enough; the same
bytes for the same attempt."""

from __future__ import annotations

import base64
import copy
import gzip
import json
import random
import re
import shutil
import string
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from atemporal import userdata
from atemporal.errors import Invalid
from atemporal.model import AttemptRef, JobSpec, Launch, parse_spec
from atemporal.twin.machine.unit import load
from cloud_config import AGENT, DEADLINE_UNIT, JOB_UNIT, cloud_init, flatcar, ignition
from cloud_config.os_family import Document, OsFamily

ROOT = Path(__file__).parents[2]

FAMILIES = tuple(userdata.OS_FAMILIES.values())
DOCUMENTS: dict[str, Document] = {
    "flatcar": flatcar.document,
    "flatcar-ignition": ignition.document,
    "fcos": ignition.document,
    "amazon-linux": cloud_init.document,
    "debian": cloud_init.document,
    "ubuntu": cloud_init.document,
}
GOLDEN: dict[Document, str] = {
    flatcar.document: "userdata.golden.yaml",
    ignition.document: "userdata.ignition.golden.json",
    cloud_init.document: "userdata.cloud-init.golden.yaml",
}
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


@pytest.fixture(params=FAMILIES, ids=lambda one: one.name)
def family(request: pytest.FixtureRequest) -> OsFamily:
    found: OsFamily = request.param
    return found


def render(spec: JobSpec, ref: AttemptRef = REF, *, family: str = "flatcar") -> bytes:
    return userdata.render(ref, spec, LAUNCH.model_copy(update={"os_family": family}), TOKEN)


def golden(document: Document) -> Path:
    return Path(__file__).with_name(GOLDEN[document])


def parsed(rendered: bytes) -> dict[str, Any]:
    found: dict[str, Any] = (
        json.loads(rendered) if rendered.startswith(b"{") else yaml.safe_load(rendered)
    )
    return found


def files(document: dict[str, Any]) -> Iterator[tuple[str, int, bytes]]:
    """The files of a document: path, mode, content."""
    for one in document.get("storage", {}).get("files", ()):
        contents = one["contents"]
        content = base64.b64decode(contents["source"].removeprefix("data:;base64,"), validate=True)
        packed = contents.get("compression") == "gzip"
        yield one["path"], one["mode"], gzip.decompress(content) if packed else content
    for one in document.get("write_files", ()):
        content = base64.b64decode(one["content"], validate=True)
        packed = one["encoding"] == "gz+b64"
        yield (
            one["path"],
            int(one["permissions"], 8),
            gzip.decompress(content) if packed else content,
        )


def parse(rendered: bytes) -> tuple[dict[str, Any], bytes]:
    """The document with its manifest taken out, and the manifest."""
    document = copy.deepcopy(parsed(rendered))
    (path, mode, manifest), *_ = files(document)
    assert (path, mode) == ("/etc/atemporal/manifest", 0o600)
    if "storage" in document:
        del document["storage"]["files"][0]["contents"]
    else:
        del document["write_files"][0]["content"], document["write_files"][0]["encoding"]
    return document, manifest


def readable(rendered: bytes) -> str:
    """The text with what is compressed as it is on the machine: another zlib compresses it otherwise."""
    if rendered.startswith(b"{"):
        document = parsed(rendered)
        for one, (_, _, content) in zip(
            document["storage"]["files"], files(document), strict=True
        ):
            if "compression" in one["contents"]:
                one["contents"]["source"] = content.decode().splitlines()
        return json.dumps(document, indent=1) + "\n"
    compressed = re.compile(r"( *)encoding: gz\+b64\n +content: (\S+)\n")

    def plain(match: re.Match[str]) -> str:
        text = gzip.decompress(base64.b64decode(match[2], validate=True)).decode()
        lines = "".join(f"{match[1]} {line}\n" for line in text.splitlines())
        return f"{match[1]}compressed: |\n{lines}"

    return compressed.sub(plain, rendered.decode())


def test_rendered_bytes_are_the_golden_ones(family: OsFamily) -> None:
    # A change here is a change for every machine that starts: look at the difference, then renew the
    # files with `python -m tests.unit.test_userdata`.
    rendered = render(SPEC, family=family.name)
    assert readable(rendered) == golden(DOCUMENTS[family.name]).read_text()


def test_every_family_gives_a_machine_the_same_agent(family: OsFamily) -> None:
    agents = [one for one in files(parsed(render(SPEC, family=family.name))) if "agent" in one[0]]
    assert agents == [("/opt/atemporal/bin/agent", 0o755, AGENT.encode())]


class TestFlatcar:
    """What coreos-cloudinit applies."""

    def test_the_first_line_is_what_the_machine_looks_for(self) -> None:
        assert render(SPEC).split(b"\n")[0] == b"#cloud-config"

    def test_the_document_holds_files_and_units(self) -> None:
        document = parsed(render(SPEC))
        assert [file["path"] for file in document["write_files"]] == [
            "/etc/atemporal/manifest",
            "/opt/atemporal/bin/agent",
        ]
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

    def test_canonicals_cloud_init_powers_the_machine_off_before_anything_else(self) -> None:
        # It is what images of other families have, and it knows nothing of `coreos`.
        (command,) = parsed(render(SPEC))["bootcmd"]
        assert command.endswith("; poweroff -f || poweroff")
        assert len(command) < 120

    def test_keys_are_spelled_as_current_flatcar_reads_them(self) -> None:
        def keys(value: Any) -> set[str]:
            if isinstance(value, dict):
                return set(value).union(*map(keys, value.values()))
            return set().union(*map(keys, value)) if isinstance(value, list) else set()

        # A hyphenated key is passed over in silence there.
        assert not [key for key in keys(parsed(render(SPEC))) if "-" in key]


class TestIgnition:
    """What Flatcar and Fedora CoreOS apply in the initramfs."""

    def test_it_passes_ignitions_own_check(self, tmp_path: Path) -> None:
        for gzipped in (False, True):
            file = tmp_path / "config.ign"
            file.write_bytes(ignition.FCOS.render(b"attempt=1\0", gzipped=gzipped))
            checked = subprocess.run(
                [_program("ignition-validate"), file], capture_output=True, check=False
            )
            assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")

    def test_units_are_masked_and_one_is_enabled(self) -> None:
        units = parsed(render(SPEC, family="fcos"))["systemd"]["units"]
        assert units == [
            {"name": "update-engine.service", "mask": True},
            {"name": "locksmithd.service", "mask": True},
            {"name": "zincati.service", "mask": True},
            {"name": "atemporal-job.service", "contents": JOB_UNIT},
            {"name": "atemporal-deadline.service", "enabled": True, "contents": DEADLINE_UNIT},
        ]

    def test_an_image_of_the_other_coreos_boots_the_same(self) -> None:
        assert render(SPEC, family="fcos") == render(SPEC, family="flatcar-ignition")


class TestCloudInit:
    """What Amazon Linux, Debian and Ubuntu apply."""

    def test_it_passes_cloud_inits_own_check(self, tmp_path: Path) -> None:
        file = tmp_path / "user-data"
        file.write_bytes(render(SPEC, family="debian"))
        checked = subprocess.run(
            [_program("cloud-init"), "schema", "--config-file", file],
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr

    def test_one_command_starts_the_deadline_and_waits_for_nothing(self) -> None:
        document = parsed(render(SPEC, family="ubuntu"))
        assert document["runcmd"] == [
            "systemctl enable --now --no-block atemporal-deadline.service"
        ]

    def test_what_would_restart_docker_is_masked_before_timers_run(self) -> None:
        (command,) = parsed(render(SPEC, family="amazon-linux"))["bootcmd"]
        verb, *units = command.removeprefix("systemctl ").split()
        assert verb == "mask"
        assert "unattended-upgrades.service" in units

    def test_docker_is_installed_under_the_deadline_before_the_agent_needs_it(self) -> None:
        written = {path: text for path, _, text in files(parsed(render(SPEC, family="debian")))}
        job = load("j.service", written["/etc/systemd/system/atemporal-job.service"].decode())
        assert job.start_pre[0] == ("/opt/atemporal/bin/docker-installer",)
        assert "/opt/atemporal/bin/docker-installer" in written
        usual = load("j.service", JOB_UNIT)
        assert (job.start_pre[1:], job.requires) == (usual.start_pre, usual.requires)

    def test_flatcars_cloudinit_powers_the_machine_off(self) -> None:
        # It writes the files, knows nothing of `runcmd`, and would start nothing.
        document = parsed(render(SPEC, family="ubuntu"))
        assert document["coreos"] == {"units": [{"name": "poweroff.target", "command": "start"}]}


def _program(name: str) -> str:
    found = shutil.which(name)
    assert found, f"{name} is missing: python -m tests.provision {name}"
    return found


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
        assert (deadline.requires, deadline.start_pre) == ((), ())
        # Ignition has it started among the first: what it executes may lie on another file system.
        assert deadline.after == ("local-fs.target",)

    def test_the_job_comes_after_the_deadline_and_not_without_it(self) -> None:
        job = load("atemporal-job.service", JOB_UNIT)
        assert job.requires == ("atemporal-deadline.service",)
        assert "atemporal-deadline.service" in job.after

    def test_what_is_enabled_for_later_boots_is_what_this_boot_starts(self) -> None:
        units = parse(render(SPEC))[0]["coreos"]["units"]
        assert [unit["name"] for unit in units if unit.get("enable")] == [
            "atemporal-deadline.service"
        ]


def test_the_constant_part_has_nothing_the_machine_would_replace(family: OsFamily) -> None:
    # coreos-cloudinit replaces these words anywhere in the text.
    text = render(SPEC, family=family.name).decode()
    assert not [word for word in ("$private_ipv", "$public_ipv") if word in text]


@given(env=ENV, command=COMMAND, name=st.sampled_from(sorted(DOCUMENTS)))
def test_any_job_changes_the_manifest_only_and_it_reads_back_exactly(
    env: dict[str, str], command: tuple[str, ...], name: str
) -> None:
    spec = JobSpec(image="nginx", env=env, command=command, ports=("8080:80/tcp", "53:53/udp"))
    document, manifest = parse(render(spec, family=name))
    assert document == parse(render(SPEC, family=name))[0]
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


@given(
    tail=st.binary(max_size=300), name=st.sampled_from(sorted(DOCUMENTS)), gzipped=st.booleans()
)
def test_what_is_put_together_is_what_the_document_would_be(
    tail: bytes, name: str, gzipped: bool
) -> None:
    manifest = b"attempt=1" + tail
    whole = DOCUMENTS[name](base64.b64encode(manifest).decode(), gzipped)
    assert userdata.OS_FAMILIES[name].render(manifest, gzipped=gzipped) == whole.encode()


@given(env=ENV)
def test_the_same_attempt_gives_the_same_bytes(env: dict[str, str]) -> None:
    backwards = dict(reversed(env.items()))
    assert render(JobSpec(image="nginx", env=env)) == render(JobSpec(image="nginx", env=backwards))


def test_another_attempt_gives_other_bytes() -> None:
    assert render(SPEC) != render(SPEC, REF._replace(number=3))


def test_an_unknown_os_family_is_refused_by_name() -> None:
    launch = LAUNCH.model_copy(update={"os_family": "plan9"})
    with pytest.raises(Invalid, match=r"plan9.*known are: amazon-linux, .*, flatcar"):
        userdata.render(REF, SPEC, launch, TOKEN)


def noise(size: int, seed: int = 0) -> str:
    """Text that hardly gets smaller, as keys and tokens do."""
    return "".join(random.Random(seed).choices(string.printable[:94], k=size))


def smallest(spec: JobSpec) -> int:
    return min(userdata.room(spec, family) for family in FAMILIES)


@pytest.mark.parametrize("variables", [1, 2, 60, 300])
@pytest.mark.parametrize("ports", [(), ("80:80",), tuple(f"{n}:{n}" for n in range(1, 30))])
def test_whatever_it_is_the_stated_room_fits_to_the_byte(
    variables: int, ports: tuple[str, ...]
) -> None:
    def job(total: int) -> JobSpec:
        """A job whose variables take so many bytes of name, value and their cost."""
        names = [f"V{number:03}" for number in range(variables)]
        rest = total - sum(len(name) + 6 for name in names)
        each, more = divmod(rest, variables)
        values = [noise(each + (number < more), number) for number in range(variables)]
        env = dict(zip(names, values, strict=True))
        return JobSpec(image="nginx", ports=ports, env=env, delivery="inline")

    fits = smallest(job(5_000))
    userdata.check_fits(job(fits))
    [tightest] = {DOCUMENTS[one.name] for one in FAMILIES if userdata.room(job(fits), one) == fits}
    [family, *_] = [name for name, document in DOCUMENTS.items() if document is tightest]
    largest = LAUNCH.model_copy(
        update={
            "os_family": family,
            "callback_base": "https://" + "x" * 400,
            "deadline_s": 10**9,
            "pull_s": 10**9,
        }
    )
    token, ref = "k" * 16 + "." + "f" * 64, AttemptRef(REF.job_id, 10**9)
    rendered = userdata.render(ref, job(fits), largest, token)
    assert userdata.LIMIT - 4 < len(rendered) <= userdata.LIMIT
    assert b"gz" not in rendered.split(b"content", 1)[0]


@pytest.mark.parametrize(
    "spec",
    [
        JobSpec(image="nginx", env={"A": noise(20_000)}),
        JobSpec(image="nginx", command=(noise(15_000), "x" * 900)),
        JobSpec(image="nginx", env={f"V{n:04}": noise(30, n) for n in range(900)}),
    ],
)
def test_a_refusal_says_what_is_taken_and_what_fits(spec: JobSpec) -> None:
    userdata.check_fits(spec)
    assert userdata.delivery_of(spec) == "claim"
    with pytest.raises(Invalid) as refused:
        userdata.check_fits(spec.model_copy(update={"delivery": "inline"}))
    assert list(refused.value.fields) == ["env"]
    packed, plain, fits = map(int, re.findall(r"\d+", refused.value.fields["env"])[:3])
    taken = sum(len(word) + 5 for word in spec.command or ()) + sum(
        len(name) + len(value) + 6 for name, value in spec.env.items()
    )
    assert plain == taken
    assert fits < packed < plain + plain // 30


def test_what_gets_small_travels_inline_however_large_it_was() -> None:
    spec = JobSpec(image="nginx", env={"A": "x" * 100_000})
    assert userdata.delivery_of(spec) == "inline"
    userdata.check_fits(spec.model_copy(update={"delivery": "inline"}))


def test_a_job_whose_options_are_as_long_as_they_can_be_is_delivered_by_claim_and_harms_nobody() -> (
    None
):
    volumes = tuple(f"/{number:02}{chr(0x1F600) * 252}" for number in range(32))
    longest = {
        "volumes": volumes,
        "workdir": "/" + chr(0x1F600) * 1023,
        "entrypoint": [chr(0x1F600) * 4096],
        "user": "u" * 32 + ":" + "g" * 32,
        "ports": [f"{60_000 + n}:{60_000 + n}/udp" for n in range(32)],
    }
    spec = parse_spec({"image": "nginx", **longest})
    userdata.check_fits(spec)
    assert userdata.delivery_of(spec) == "claim"
    with pytest.raises(Invalid, match="leave out the delivery inline"):
        userdata.check_fits(parse_spec({"image": "nginx", "delivery": "inline", **longest}))
    # What an operator writes into a row by hand, too.
    more = spec.model_copy(update={"volumes": volumes * 4})
    assert userdata.delivery_of(more) == "claim"


class TestDelivery:
    def test_auto_is_inline_as_long_as_that_fits_and_then_by_claim(self) -> None:
        def delivery(size: int) -> str:
            return userdata.delivery_of(JobSpec(image="nginx", env={"A": noise(size)}))

        assert delivery(smallest(JobSpec(image="nginx")) - len("A") - 6) == "inline"
        assert delivery(9_000) == "claim"

    def test_secrets_go_by_claim_whatever_their_size(self) -> None:
        assert userdata.delivery_of(JobSpec(image="nginx", secrets={"A": "b"})) == "claim"

    def test_what_is_asked_for_is_done(self) -> None:
        for wanted in ("inline", "claim"):
            assert userdata.delivery_of(JobSpec(image="nginx", delivery=wanted)) == wanted

    def test_inline_with_secrets_is_refused_without_their_values(self) -> None:
        spec = JobSpec(image="nginx", secrets={"A": "hush"}, delivery="inline")
        with pytest.raises(Invalid) as refused:
            userdata.check_fits(spec)
        assert list(refused.value.fields) == ["delivery"]
        assert "hush" not in str(refused.value)

    def test_inline_that_does_not_fit_is_shown_the_way_out(self) -> None:
        with pytest.raises(Invalid, match="leave out the delivery inline"):
            userdata.check_fits(JobSpec(image="nginx", env={"A": noise(9_000)}, delivery="inline"))

    def test_the_whole_is_bounded_to_the_byte(self) -> None:
        def job(total: int) -> JobSpec:
            first = {f"V{n}": "x" * 99_992 for n in range(2)}
            rest = total - 2 * 100_000
            return JobSpec(image="nginx", env=first, secrets={"S": "x" * (rest - 7)})

        userdata.check_fits(job(262_144))
        with pytest.raises(Invalid, match="take 262145 bytes on the machine and 262144 fit"):
            userdata.check_fits(job(262_145))

    def test_a_secret_is_not_rendered_even_where_the_launch_says_inline(self) -> None:
        """As an intent of the release before does, which knew of none."""
        with pytest.raises(Invalid) as refused:
            userdata.render(REF, JobSpec(image="nginx", secrets={"A": "hush"}), LAUNCH, TOKEN)
        assert "hush" not in str(refused.value)

    def test_its_user_data_has_nothing_of_the_job(self) -> None:
        """So a secret can not be in it, and no size makes it too large."""
        launch = LAUNCH.model_copy(update={"delivery": "claim"})
        spec = JobSpec(
            image="nginx", command=("run",), env={"A": "b"}, secrets={"S": "x" * 100_000}
        )
        rendered = userdata.render(REF, spec, launch, TOKEN)
        assert rendered == userdata.render(REF, JobSpec(image="busybox"), launch, TOKEN)
        records = parse(rendered)[1].decode().removesuffix("\0").split("\0")
        assert [one.partition("=")[0] for one in records] == [
            *("group", "callback", "token", "deadline", "boot")
        ]
        assert f"group={REF.id}" in records
        path = f"/jobs/{REF.job_id}/attempts/{REF.number}/machine"
        assert f"callback={launch.callback_base}{path}" in records

    def test_each_way_has_a_token_of_its_own(self) -> None:
        by_claim = LAUNCH.model_copy(update={"delivery": "claim"})
        assert userdata.purpose_of(LAUNCH) == "callback"
        assert userdata.purpose_of(by_claim) == "assignment"

    def test_the_launch_of_an_earlier_release_was_inline(self) -> None:
        stored = LAUNCH.model_dump(mode="json", exclude={"delivery"})
        assert Launch.model_validate(stored).delivery == "inline"


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md"])
def test_the_room_is_as_large_as_the_documents_say(page: str) -> None:
    stated, *_ = re.findall(r"about (\d\.\d) KB\s+are left", (ROOT / page).read_text())
    assert smallest(JobSpec(image="nginx:1.9")) // 100 == float(stated) * 10


def test_there_is_always_room_for_an_ordinary_environment() -> None:
    ports = tuple(f"{60_000 + n}:{60_000 + n}/udp" for n in range(32))
    longest = JobSpec(image=f"registry.example.com/{'i' * 255}:{'t' * 128}", ports=ports)
    assert smallest(longest) > 4_100


def settings_file(size: int) -> dict[str, str]:
    """Variables as a service's env file has them, of about so many bytes: half of it secrets."""
    chance = random.Random(size)
    env: dict[str, str] = {}
    while sum(len(name) + len(value) + 6 for name, value in env.items()) < size:
        number = len(env)
        env[f"SERVICE_{number}_API_KEY"] = f"{chance.getrandbits(160):040x}"
        env[f"SERVICE_{number}_URL"] = f"https://service-{number}.prod.example.com/api/v2/hooks"
    return env


@pytest.mark.parametrize("size", [8_000, 12_000])
def test_an_env_file_that_would_not_fit_as_it_is_travels_compressed(
    family: OsFamily, size: int
) -> None:
    spec = JobSpec(image="nginx", env=settings_file(size))
    assert size > smallest(spec)
    userdata.check_fits(spec)
    document, manifest = parse(render(spec, family=family.name))
    assert document == parse(render(SPEC, family=family.name))[0]
    records = manifest.decode().split("\0")[:-1]
    sent = dict(one.removeprefix("env=").split("=", 1) for one in records if "env=" in one[:4])
    assert sent == spec.env


@given(
    size=st.integers(5_000, 30_000),
    distinct=st.integers(1, 94),
    name=st.sampled_from(sorted(DOCUMENTS)),
)
def test_what_fits_at_submission_fits_at_launch_under_the_longest_settings(
    size: int, distinct: int, name: str
) -> None:
    letters = string.printable[:distinct]
    value = "".join(random.Random(size).choices(letters, k=size))
    spec = JobSpec(image="nginx", env={"A": value}, delivery="inline")
    try:
        userdata.check_fits(spec)
    except Invalid:
        return
    launch = LAUNCH.model_copy(
        update={
            "callback_base": "https://" + "c" * 400,
            "deadline_s": 10**9,
            "os_family": name,
        }
    )
    token = "k" * 16 + "." + "f" * 64
    ref = AttemptRef(REF.job_id, 10**9)
    assert len(userdata.render(ref, spec, launch, token)) <= userdata.LIMIT


def test_a_manifest_of_two_members_reads_back_as_one(family: OsFamily) -> None:
    spec = JobSpec(image="nginx", env={"A": "é" * 9_000})
    _, manifest = parse(render(spec, family=family.name))
    assert manifest == userdata.manifest(REF, spec, LAUNCH, TOKEN)


if __name__ == "__main__":
    for name, document in DOCUMENTS.items():
        golden(document).write_text(readable(render(SPEC, family=name)))
