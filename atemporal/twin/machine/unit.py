"""The part of systemd's unit files that the project's own units use: text in, a `Unit` out; pure.

Promise: a unit that has been loaded runs as systemd would run it. A directive, a value or a piece
of syntax that is not modelled makes the unit `BadUnit`, so nothing is silently ignored. Directives
that can make no difference on a machine of the twin are accepted: descriptions, what it conflicts
with (the OS's own units, which are not there), the OOM killer's weights. Source: systemd.syntax(7),
systemd.unit(5), systemd.service(5), systemd.time(7).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

MODELLED = {
    "Unit": {"Description", "Requires", "Wants", "After", "SuccessAction", "FailureAction"},
    "Service": {
        *("Type", "ExecStartPre", "ExecStart", "ExecStopPost"),
        *("TimeoutStartSec", "TimeoutStopSec"),
    },
}
WITHOUT_EFFECT = {
    "Unit": {"Conflicts", "DefaultDependencies"},
    "Service": {"OOMScoreAdjust"},
    "Install": {"WantedBy"},
}
ACTIONS = ("none", "poweroff", "poweroff-force")
DEFAULT_TIMEOUT_S = 90.0

_MAY_REPEAT = {"Requires", "Wants", "After", "ExecStartPre", "ExecStopPost"}
_SECONDS = {"": 1.0, "s": 1.0, "min": 60.0}
# Variables, quotes, escapes, separators and prefixes: systemd would not take the words as they are.
_SYNTAX = re.compile(r"[$\"'\\;]|^[-:+!@|]")

Sections = dict[str, dict[str, list[str]]]


class BadUnit(Exception):
    """systemd would not load this unit, or the twin can not run it; the text says why."""


@dataclass(frozen=True)
class Unit:
    """A service of Type=exec; a timeout of None is unlimited, commands are split into words."""

    name: str
    description: str
    requires: tuple[str, ...]
    wants: tuple[str, ...]
    after: tuple[str, ...]
    success_action: str
    failure_action: str
    start_pre: tuple[tuple[str, ...], ...]
    start: tuple[str, ...]
    stop_post: tuple[tuple[str, ...], ...]
    start_timeout_s: float | None
    stop_timeout_s: float | None


def load(name: str, text: str) -> Unit:
    """Read a unit file.

    Raises:
        BadUnit: it can not be loaded, or asks for what is not modelled.
    """
    if not name.endswith(".service"):
        raise BadUnit("only services are modelled")
    sections = _read(text)
    unit, service = sections.get("Unit", {}), sections.get("Service", {})
    if service.get("Type") != ["exec"]:
        raise BadUnit("only Type=exec is modelled")
    if "ExecStart" not in service:
        raise BadUnit("ExecStart= is missing")
    [start] = _commands(service, "ExecStart")
    return Unit(
        name=name,
        description=_value(unit, "Description", name),
        requires=tuple(" ".join(unit.get("Requires", ())).split()),
        wants=tuple(" ".join(unit.get("Wants", ())).split()),
        after=tuple(" ".join(unit.get("After", ())).split()),
        success_action=_action(unit, "SuccessAction"),
        failure_action=_action(unit, "FailureAction"),
        start_pre=_commands(service, "ExecStartPre"),
        start=start,
        stop_post=_commands(service, "ExecStopPost"),
        start_timeout_s=seconds(_value(service, "TimeoutStartSec", f"{DEFAULT_TIMEOUT_S}")),
        stop_timeout_s=seconds(_value(service, "TimeoutStopSec", f"{DEFAULT_TIMEOUT_S}")),
    )


def seconds(text: str) -> float | None:
    """Read a time span such as `75min`; None is unlimited.

    Raises:
        BadUnit: it is none, or of a form that is not modelled.
    """
    if text == "infinity":
        return None
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(s|min)?", text)
    if match is None:
        raise BadUnit(f"{text!r} is not a time span in s or min")
    return float(match[1]) * _SECONDS[match[2] or ""]


def _read(text: str) -> Sections:
    sections: Sections = {}
    section = ""
    for line in map(str.strip, text.splitlines()):
        if not line or line[0] in "#;":
            continue
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not section:
            raise BadUnit(f"{line!r} is neither a section nor KEY=VALUE")
        if key not in MODELLED.get(section, set()) | WITHOUT_EFFECT.get(section, set()):
            raise BadUnit(f"[{section}] {key}= is not modelled")
        if not value:
            raise BadUnit(f"[{section}] {key}= without a value is not modelled")
        if "%" in value or value.endswith("\\"):
            raise BadUnit(f"[{section}] {key}=: specifiers and continued lines are not modelled")
        values = sections.setdefault(section, {}).setdefault(key, [])
        if values and key in MODELLED.get(section, set()) - _MAY_REPEAT:
            raise BadUnit(f"[{section}] {key}= more than once is not modelled")
        values.append(value)
    return sections


def _commands(keys: Mapping[str, list[str]], key: str) -> tuple[tuple[str, ...], ...]:
    for line in keys.get(key, ()):
        if found := _SYNTAX.search(line):
            raise BadUnit(f"{key}={line}: the {found[0]!r} is not modelled")
    return tuple(tuple(line.split()) for line in keys.get(key, ()))


def _action(keys: Mapping[str, list[str]], key: str) -> str:
    action = _value(keys, key, "none")
    if action not in ACTIONS:
        raise BadUnit(f"{key}={action} is not modelled; modelled are {', '.join(ACTIONS)}")
    return action


def _value(keys: Mapping[str, list[str]], key: str, default: str) -> str:
    return keys[key][0] if key in keys else default
