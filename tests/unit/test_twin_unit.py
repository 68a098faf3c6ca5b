"""Unit files and cloud-configs as the twin's machines read them."""

from __future__ import annotations

import base64
import gzip

import pytest

from atemporal.twin import cloudinit, unit

ADDRESSES = {"private_ipv4": "10.0.0.1"}


def service(text: str, *drop_ins: str) -> unit.Service:
    loaded = unit.load("job.service", text, drop_ins)
    assert isinstance(loaded, unit.Service)
    return loaded


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a  b\tc", ["a", "b", "c"]),
        ("'a b' \"c d\"", ["a b", "c d"]),
        (r"a\x20b \"q\" 'it\'s'", ["a b", '"q"', "it's"]),
        ("'' x", ["", "x"]),
        ("--name='a b'", ["--name=a b"]),
    ],
)
def test_words_are_split_by_systemds_quoting(line: str, words: list[str]) -> None:
    assert unit.split(line) == words


@pytest.mark.parametrize(
    ("text", "span"),
    [("90", 90), ("5min 20s", 320), ("500ms", 0.5), ("1h30m", 5400), ("infinity", None)],
)
def test_time_spans(text: str, span: float | None) -> None:
    assert unit.seconds(text) == span


def test_a_service_has_what_its_file_says() -> None:
    loaded = service(
        "[Unit]\nDescription=A job\nConditionPathExists=!/run/%N\nSuccessAction=poweroff\n"
        "[Service]\nType=exec\n# a comment\nExecStartPre=-/bin/false\nExecStartPre=/bin/echo \\\n"
        "  100%% ${HOME}\nExecStart=/bin/true\nTimeoutStartSec=infinity\nTimeoutStopSec=5\n"
    )

    assert loaded.conditions == (("/run/job", False),)
    assert (loaded.success_action, loaded.failure_action) == ("poweroff", "none")
    assert [command.may_fail for command in loaded.start_pre] == [True, False]
    assert loaded.start_pre[1].argv == ("/bin/echo", "100%", "${HOME}")
    assert (loaded.start_timeout_s, loaded.stop_timeout_s) == (None, 5)
    assert loaded.notes == ()


def test_an_empty_value_forgets_those_before_it_and_drop_ins_come_last() -> None:
    loaded = service(
        "[Service]\nExecStart=/bin/a\nExecStartPre=/bin/b\n",
        "[Service]\nExecStart=\nExecStart=/bin/c\n",
    )

    assert [command.argv for command in loaded.start] == [("/bin/c",)]
    assert len(loaded.start_pre) == 1


def test_defaults_are_systemds() -> None:
    simple = service("[Service]\nExecStart=/bin/a\n")
    oneshot = service("[Service]\nType=oneshot\nExecStart=/bin/a\n")

    assert (simple.type, simple.start_timeout_s, simple.stop_timeout_s) == ("simple", 90, 90)
    assert oneshot.start_timeout_s is None


def test_what_is_not_modelled_is_named() -> None:
    loaded = service("[Service]\nExecStart=/bin/a\nMemoryMax=1G\nPrivateTmp=yes\n")

    assert loaded.notes == (
        "[Service] MemoryMax= is not modelled",
        "[Service] PrivateTmp= is not modelled",
    )


@pytest.mark.parametrize(
    "line", ["Type=forking", "Restart=always", "ExecStop=@/bin/a b", "ExecStop=/bin/a %z", "x"]
)
def test_what_would_be_done_wrongly_is_refused(line: str) -> None:
    with pytest.raises(unit.BadUnit):
        service(f"[Service]\nExecStart=/bin/a\n{line}\n")


def test_variables_are_expanded_without_a_shell() -> None:
    command = unit.Command(("echo", "${A}-${B}", "$C", "$$A", "a$C"))

    words = unit.expand_variables(command, {"A": "x y", "C": "1 2"})

    assert words == ["echo", "x y-", "1", "2", "$A", "a$C"]


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
    read = config("runcmd: [a]\ncoreos: {update: {}, units: [{name: a.service, drop-ins: []}]}\n")

    assert read.ignored == ("runcmd", "coreos.update", "coreos.units[0].drop-ins")
