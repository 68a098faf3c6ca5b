"""Unit files and cloud-configs as the twin's machines read them."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pytest

import cloud_config
from atemporal.twin.machine import canonical, cloudinit, first_boot, ignition, unit

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


def config(text: str) -> first_boot.FirstBoot:
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
    with pytest.raises(first_boot.NotApplied):
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
    ("text", "off"),
    [
        ("#cloud-config\nbootcmd: [poweroff]\ncoreos: {}\n", "poweroff"),
        ("#cloud-config\nbootcmd: [[poweroff, -f]]\n", "poweroff -f"),
        ("#cloud-config\nruncmd: [poweroff]\n", ""),
        ("#cloud-config\nbootcmd:\n", ""),
    ],
)
def test_what_canonicals_cloud_init_runs_first(text: str, off: str) -> None:
    assert canonical.parse(text.encode()).off == off


class TestCanonical:
    def test_units_are_masked_written_and_started_in_this_order(self) -> None:
        read = canonical.parse(
            b"#cloud-config\nbootcmd: [systemctl mask a.timer b.service]\n"
            b"runcmd:\n- systemctl enable --now --no-block c.service\n- [systemctl, start, d.service]\n"
            b"write_files: [{path: /etc/systemd/system/c.service, content: text}]\n"
        )
        assert [(one.name, one.content, one.command, one.mask) for one in read.units] == [
            ("a.timer", "", "", True),
            ("b.service", "", "", True),
            ("c.service", "text", "", False),
            ("c.service", "", "start", False),
            ("d.service", "", "start", False),
        ]
        assert read.ignored == ()

    def test_no_other_command_is_run_and_each_is_named(self) -> None:
        read = canonical.parse(
            b"#cloud-config\nruncmd: [rm -rf /, systemctl start]\nbootcmd: [echo a]\npackages: [a]\n"
        )
        assert read.ignored == (
            *("packages", "bootcmd: echo a", "runcmd: rm -rf /", "runcmd: systemctl start"),
        )
        assert read.units == ()


def configuration(**parts: Any) -> bytes:
    return json.dumps({"ignition": {"version": "3.3.0"}, **parts}).encode()


class TestIgnition:
    @pytest.mark.parametrize("compression", ["", "gzip"])
    def test_files_are_decoded_to_the_byte(self, compression: str) -> None:
        raw = b"a\0b\nc"
        data = base64.b64encode(gzip.compress(raw) if compression else raw).decode()
        contents = {"compression": compression, "source": f"data:text/plain;base64,{data}"}
        file = {"path": "/a", "mode": 0o600, "contents": contents}
        [read] = ignition.parse(configuration(storage={"files": [file]})).files
        assert (read.path, read.content, read.mode) == ("/a", raw, 0o600)

    def test_units_are_masked_and_what_is_enabled_is_started(self) -> None:
        units = [
            {"name": "a.service", "mask": True},
            {"name": "b.service", "contents": "text", "enabled": True},
            {"name": "c.service", "contents": "more", "dropins": []},
        ]
        read = ignition.parse(configuration(systemd={"units": units}))
        assert [(one.name, one.content, one.command, one.mask) for one in read.units] == [
            ("a.service", "", "", True),
            ("b.service", "text", "start", False),
            ("c.service", "more", "", False),
        ]
        assert read.ignored == ("systemd.units[2].dropins",)

    @pytest.mark.parametrize(
        ("user_data", "words"),
        [
            (b"#cloud-config\n", "JSON can not be read"),
            (b"[]", "is not a mapping"),
            (b"{}", "version"),
            (b'{"ignition": {"version": "2.2.0"}}', "version"),
            (configuration(passwd={"users": []}), "passwd"),
            (configuration(storage={"files": [{"path": "a"}]}), "not absolute"),
            (configuration(storage={"files": [{"path": "/a", "mode": "0600"}]}), "mode"),
            (
                configuration(
                    storage={"files": [{"path": "/a", "contents": {"source": "s3://b"}}]}
                ),
                "data:",
            ),
            (configuration(systemd={"units": [{"name": "a"}]}), "not a unit's name"),
        ],
    )
    def test_what_it_can_not_apply_is_not_applied_at_all(
        self, user_data: bytes, words: str
    ) -> None:
        with pytest.raises(first_boot.NotApplied, match=words):
            ignition.parse(user_data)
