"""How the shell's examples call the tools: with heartbeats, and certificates where it is amqps."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SHELL = Path(__file__).parents[2] / "docs" / "examples" / "shell"
TOOLS = ("amqp-declare-queue", "amqp-publish", "amqp-consume", "amqp-delete-queue")


def calls(script: str, url: str, folder: Path) -> list[str]:
    """The command lines of the tools, in order; each of them does nothing and succeeds."""
    for name in TOOLS:
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >> "{folder}/calls"\n')
        (folder / name).chmod(0o755)
    env = {"PATH": f"{folder}:{os.environ['PATH']}", "AMQP_URL": url}
    subprocess.run([SHELL / script], env=env, stdin=subprocess.DEVNULL, check=True, timeout=30)
    return (folder / "calls").read_text().splitlines()


@pytest.mark.parametrize(("script", "tools"), [("submit.sh", TOOLS), ("listen.sh", TOOLS[2:3])])
@pytest.mark.parametrize("scheme", ["amqp", "amqps"])
def test_each_tool_has_heartbeats_and_over_tls_the_machines_certificates(
    script: str, tools: tuple[str, ...], scheme: str, tmp_path: Path
) -> None:
    url = f"{scheme}://user:password@host/%2F"
    options = f"--url {url} --heartbeat 30"
    if scheme == "amqps":
        options += " --cacert /etc/ssl/certs/ca-certificates.crt"
    made = calls(script, url, tmp_path)
    assert [line.split()[0] for line in made] == list(tools)
    for line in made:
        assert line.startswith(f"{line.split()[0]} {options} -")
        assert ("--cacert" in line) == (scheme == "amqps")
