"""Unit files and cloud-configs as the twin's machines read them."""

from __future__ import annotations

import base64
import gzip

import pytest

import cloud_config
from atemporal.twin.machine import cloudinit, unit

ADDRESSES = {"private_ipv4": "10.0.0.1"}
SERVICE = "[Service]\nType=exec\nExecStart=/bin/a\n"


@pytest.mark.parametrize(
    ("text", "span"), [("90", 90), ("75min", 4500), ("0.5s", 0.5), ("infinity", None)]
)
def test_time_spans(text: str, span: float | None) -> None:
    assert unit.seconds(text) == span


def test_a_service_has_what_its_file_says() -> None:
    loaded = unit.load(
        "job.service",
        "[Unit]\nDescription=A job\nRequires=a.service\nWants=b.service c.target\n"
        "After=a.service\nAfter=b.service c.target\n"
        "SuccessAction=poweroff\nFailureAction=poweroff-force\n"
        "[Service]\nType=exec\n# a comment\nExecStartPre=/bin/one\nExecStartPre=/bin/two  words\n"
        "ExecStart=/bin/main\nExecStopPost=/bin/last\nTimeoutStartSec=infinity\nTimeoutStopSec=5\n",
    )

    assert loaded == unit.Unit(
        name="job.service",
        description="A job",
        requires=("a.service",),
        wants=("b.service", "c.target"),
        after=("a.service", "b.service", "c.target"),
        success_action="poweroff",
        failure_action="poweroff-force",
        start_pre=(("/bin/one",), ("/bin/two", "words")),
        start=("/bin/main",),
        stop_post=(("/bin/last",),),
        start_timeout_s=None,
        stop_timeout_s=5,
    )


def test_defaults_are_systemds() -> None:
    loaded = unit.load("job.service", SERVICE)

    assert (loaded.start_timeout_s, loaded.stop_timeout_s) == (90, 90)
    assert (loaded.success_action, loaded.failure_action) == ("none", "none")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("atemporal-deadline.service", cloud_config.DEADLINE_UNIT),
        ("atemporal-job.service", cloud_config.JOB_UNIT),
    ],
)
def test_the_projects_own_units_are_modelled(name: str, text: str) -> None:
    assert unit.load(name, text).name == name


def test_no_directive_is_modelled_that_the_projects_own_units_do_not_use() -> None:
    text = cloud_config.DEADLINE_UNIT + cloud_config.JOB_UNIT
    used = {line.partition("=")[0] for line in text.splitlines() if "=" in line}

    known = [*unit.MODELLED.values(), *unit.WITHOUT_EFFECT.values()]
    assert set().union(*known) == used


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("MemoryMax=1G", "MemoryMax= is not modelled"),
        ("Restart=always", "Restart= is not modelled"),
        ("[Timer]\nOnBootSec=1", "OnBootSec= is not modelled"),
        ("Type=oneshot", "more than once"),
        ("ExecStart=/bin/b", "more than once"),
        ("ExecStopPost=", "without a value"),
        ("ExecStopPost=-/bin/a", "'-' is not modelled"),
        ("ExecStopPost=/bin/a %n", "specifiers"),
        ("ExecStopPost=/bin/a \\\n  b", "continued lines"),
        ("ExecStopPost=/bin/a $B", "'\\$' is not modelled"),
        ("ExecStopPost=/bin/a 'b'", '"\'" is not modelled'),
        ("ExecStopPost=/bin/a ; /bin/b", "';' is not modelled"),
        ("TimeoutStopSec=2weeks", "not a time span"),
        ("[Unit]\nSuccessAction=reboot", "SuccessAction=reboot is not modelled"),
        ("x", "neither a section nor"),
    ],
)
def test_what_is_not_modelled_is_refused(line: str, why: str) -> None:
    with pytest.raises(unit.BadUnit, match=why):
        unit.load("job.service", f"{SERVICE}{line}\n")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("job.timer", SERVICE),
        ("job.service", "[Service]\nExecStart=/bin/a\n"),
        ("job.service", "[Service]\nType=forking\nExecStart=/bin/a\n"),
        ("job.service", "[Service]\nType=exec\n"),
    ],
)
def test_a_unit_that_is_no_exec_service_is_refused(name: str, text: str) -> None:
    with pytest.raises(unit.BadUnit):
        unit.load(name, text)


def config(text: str) -> cloudinit.CloudConfig:
    return cloudinit.parse(f"#cloud-config\n{text}".encode(), ADDRESSES)


@pytest.mark.parametrize("encoding", ["", "b64", "base64", "gz+b64", "gzip+base64"])
def test_files_are_decoded_to_the_byte(encoding: str) -> None:
    raw = b"a\0b\nc" if encoding else b"plain"
    text = gzip.compress(raw) if "gz" in encoding else raw
    content = base64.b64encode(text).decode() if encoding else raw.decode()

    [file] = config(
        f"write_files:\n- path: /a\n  permissions: 0600\n  encoding: '{encoding}'\n"
        f"  content: {content}\n"
    ).files

    assert (file.path, file.content, file.mode) == ("/a", raw, 0o600)


def test_gzipped_user_data_is_read_and_addresses_are_filled_in() -> None:
    text = b"#cloud-config\nwrite_files: [{path: /a, content: $private_ipv4}]\n"

    [file] = cloudinit.parse(gzip.compress(text), ADDRESSES).files

    assert file.content == b"10.0.0.1"


@pytest.mark.parametrize(
    "text", ["", "# cloud-config\n", "\n#cloud-config\n", "#!/bin/sh\n", "#cloud-config\n- a\n"]
)
def test_anything_else_is_not_a_cloud_config(text: str) -> None:
    with pytest.raises(cloudinit.NotCloudConfig):
        cloudinit.parse(text.encode(), ADDRESSES)


def test_keys_that_are_not_applied_are_named() -> None:
    read = config(
        "runcmd: [a]\ncoreos: {update: {}, units: [{name: a.service, drop_ins: []}]}\n"
        "write_files: [{path: /a, owner: core}]\n"
    )

    assert read.ignored == (
        *("runcmd", "coreos.update", "write_files[0].owner", "coreos.units[0].drop_ins"),
    )


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("#cloud-config\nbootcmd: [poweroff]\ncoreos: {}\n", ("poweroff",)),
        ("#cloud-config\nruncmd: [poweroff]\n", ()),
        ("#cloud-config\nbootcmd:\n", ()),
        ("#!/bin/sh\npoweroff\n", ()),
    ],
)
def test_what_another_family_runs_first(text: str, commands: tuple[str, ...]) -> None:
    assert cloudinit.boot_commands(text.encode()) == commands
