"""`docker` on a machine when the host has a container engine: the real one, shared by machines.

Promise: the words are passed to the host's engine, changed in three ways, because machines of the
twin share one host. Container names get the instance's id before them and a label with it, by which
everything of a machine is found and removed. `--publish H:C` becomes a free port of the loopback
address. An image that the host has is not pulled again.
"""

from __future__ import annotations

import os
import subprocess
import sys

from atemporal.twin.containers import command_line

LABEL = "atemporal.twin.machine"
_ON_CONTAINERS = {"start", "stop", "kill", "wait", "inspect", "logs", "rm", "port", "top", "exec"}


def rewrite(words: list[str], instance_id: str) -> list[str]:
    """Return the words for the host's engine."""
    line = command_line.parse(words)
    options, operands = list(line.options), list(line.operands)
    if line.verb in ("create", "run"):
        changes = {"--name": lambda name: f"{instance_id}-{name}", "--publish": _ephemeral}
        options = [(name, changes.get(name, str)(value)) for name, value in options]
        options.append(("--label", f"{LABEL}={instance_id}"))
    elif line.verb in _ON_CONTAINERS and operands:
        # What is executed in a container is the caller's; a name is one word.
        names = operands[:1] if line.verb == "exec" else operands
        operands[: len(names)] = [f"{instance_id}-{name}" for name in names]
    own = words[:2] if words[:1] == ["--config"] else []
    return [*own, *line.verb.split(), *(f"{name}={value}" for name, value in options), *operands]


def _ephemeral(port: str) -> str:
    return f"127.0.0.1::{port.rpartition(':')[2]}"


def main(engine: str, instance_id: str, words: list[str]) -> None:
    """Become the host's engine."""
    line = command_line.parse(words)
    if line.verb == "pull" and line.operands:
        known = subprocess.run(
            [engine, "image", "inspect", *line.operands[-1:]],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if known.returncode == 0:
            print(line.operands[-1])
            return
    os.execv(engine, [engine, *rewrite(words, instance_id)])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
