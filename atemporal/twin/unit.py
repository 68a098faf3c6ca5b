"""systemd unit files: text in, a typed unit out; pure.

Promise: what the twin runs of a unit is in `Service` or `Timer`; a directive that is not modelled
and could change what happens is named in `notes`, a value that is not modelled is a `BadUnit`, and
only what can make no difference here (descriptions, ordering, scheduling weights) is passed over.
Source: systemd.syntax(7), systemd.unit(5), systemd.service(5), systemd.timer(5), systemd.time(7).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MODELLED = {
    "Unit": {"Requires", "Wants", "ConditionPathExists", "SuccessAction", "FailureAction"},
    "Service": {
        *("Type", "ExecStartPre", "ExecStart", "ExecStartPost", "ExecStop", "ExecStopPost"),
        *("TimeoutStartSec", "TimeoutStopSec", "TimeoutSec", "RuntimeMaxSec", "RemainAfterExit"),
        *("Restart", "Environment", "KillMode", "SuccessExitStatus", "User"),
        *("StandardOutput", "StandardError"),
    },
    "Timer": {"OnBootSec", "OnActiveSec", "Unit"},
}
WITHOUT_EFFECT = {
    "Unit": {
        *("Description", "Documentation", "After", "Before", "Conflicts", "DefaultDependencies"),
        *("StartLimitIntervalSec", "StartLimitBurst"),
    },
    "Service": {
        *("OOMScoreAdjust", "Nice", "IOSchedulingClass", "LimitNOFILE", "SyslogIdentifier"),
        *("RestartSec", "ExecReload", "StandardInput"),
    },
    "Timer": {"AccuracySec"},
    "Install": {"WantedBy", "RequiredBy", "Alias", "Also"},
}
ACTIONS = {"": "none", "none": "none", "poweroff": "poweroff"}
ACTIONS |= {"poweroff-force": "force", "poweroff-immediate": "force"}
DEFAULT_TIMEOUT_S = 90.0

_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "s": " "}
_SECONDS = {
    **dict.fromkeys(("us", "usec"), 1e-6),
    **dict.fromkeys(("ms", "msec"), 1e-3),
    **dict.fromkeys(("", "s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
    **dict.fromkeys(("w", "week", "weeks"), 604800.0),
}


class BadUnit(Exception):
    """systemd would not load this unit, or the twin can not do what it asks; the text says what."""


@dataclass(frozen=True)
class Command:
    """One Exec line; `may_fail` is the `-` prefix, `literal` (the `:` prefix) keeps `$` as it is."""

    argv: tuple[str, ...]
    may_fail: bool = False
    literal: bool = False


@dataclass(frozen=True)
class Unit:
    """What services and timers have in common. `conditions` are (path, must exist)."""

    name: str
    description: str
    requires: tuple[str, ...]
    wants: tuple[str, ...]
    conditions: tuple[tuple[str, bool], ...]
    success_action: str
    failure_action: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Service(Unit):
    """A service; a time of None is unlimited. Outputs are journal, console or null."""

    type: str
    start_pre: tuple[Command, ...]
    start: tuple[Command, ...]
    start_post: tuple[Command, ...]
    stop: tuple[Command, ...]
    stop_post: tuple[Command, ...]
    start_timeout_s: float | None
    stop_timeout_s: float | None
    runtime_max_s: float | None
    remain_after_exit: bool
    success_codes: frozenset[int]
    environment: Mapping[str, str]
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Timer(Unit):
    """A timer: seconds after the boot, or after its own start, at which it starts a unit."""

    on_boot_s: tuple[float, ...]
    on_active_s: tuple[float, ...]
    starts: str


def load(name: str, text: str, drop_ins: Sequence[str] = ()) -> Unit:
    """Read a unit file and its drop-ins.

    Raises:
        BadUnit: it can not be loaded, or asks for what is not modelled.
    """
    sections: dict[str, dict[str, list[str]]] = {}
    for part in (text, *drop_ins):
        _read(name, part, sections)
    notes = tuple(
        f"[{section}] {key}= is not modelled"
        for section, keys in sections.items()
        for key in keys
        if not key.startswith("X-")
        and key not in MODELLED.get(section, ())
        and key not in WITHOUT_EFFECT.get(section, ())
    )
    unit = sections.get("Unit", {})
    common = {
        "name": name,
        "description": _last(unit, "Description", name),
        "requires": tuple(" ".join(unit.get("Requires", ())).split()),
        "wants": tuple(" ".join(unit.get("Wants", ())).split()),
        "conditions": tuple(
            (expand_specifiers(path.removeprefix("!").strip(), name), not path.startswith("!"))
            for path in unit.get("ConditionPathExists", ())
        ),
        "success_action": _choice(unit, "SuccessAction", ACTIONS, "none"),
        "failure_action": _choice(unit, "FailureAction", ACTIONS, "none"),
        "notes": notes,
    }
    if name.endswith(".service"):
        return Service(**common, **_service(name, sections.get("Service", {})))  # type: ignore[arg-type]
    if name.endswith(".timer"):
        return Timer(**common, **_timer(name, sections.get("Timer", {})))  # type: ignore[arg-type]
    return Unit(**common)  # type: ignore[arg-type]


def expand_specifiers(text: str, name: str) -> str:
    """Replace systemd's %-specifiers.

    Raises:
        BadUnit: one is not modelled.
    """
    stem = name.rpartition(".")[0]
    prefix, _, instance = stem.partition("@")
    values = {"%": "%", "n": name, "N": stem, "p": prefix, "i": instance, "I": instance}
    values |= {"t": "/run", "S": "/var/lib", "C": "/var/cache", "L": "/var/log", "E": "/etc"}

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise BadUnit(f"{name}: the specifier {match[0]} is not modelled")
        return values[match[1]]

    return re.sub(r"%(.)", value, text)


def expand_variables(command: Command, environment: Mapping[str, str]) -> list[str]:
    """Replace `${NAME}` and words that are `$NAME`, as systemd does: no shell; absent is empty."""
    if command.literal:
        return list(command.argv)
    words = []
    for position, word in enumerate(command.argv):
        whole = re.fullmatch(r"\$([A-Za-z_][A-Za-z0-9_]*)", word)
        if whole and position:
            words += environment.get(whole[1], "").split()
        else:
            words.append(
                re.sub(
                    r"\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)\}",
                    lambda match: "$" if match[0] == "$$" else environment.get(match[1], ""),
                    word,
                )
            )
    return words


def seconds(text: str) -> float | None:
    """Read a time span such as `5min 20s`; None is unlimited.

    Raises:
        BadUnit: it is none.
    """
    text = text.strip()
    if text == "infinity":
        return None
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)\s*", text)
    spelled = re.fullmatch(r"(?:[0-9]+(?:\.[0-9]+)?\s*[a-z]*\s*)+", text)
    if not spelled or any(word not in _SECONDS for _, word in parts):
        raise BadUnit(f"{text!r} is not a time span")
    return sum(float(number) * _SECONDS[word] for number, word in parts)


def split(text: str) -> list[str]:
    """Split a line into words by systemd's quoting.

    Raises:
        BadUnit: a quotation does not end.
    """
    words: list[str] = []
    word: str | None = None
    quote = ""
    for token in re.findall(r"\\x[0-9a-fA-F]{2}|\\.|.", text, re.DOTALL):
        if len(token) > 1:
            code = token[1:]
            character = chr(int(code[1:], 16)) if len(code) == 3 else _ESCAPES.get(code, code)
            word = (word or "") + character
        elif quote:
            quote, word = ("", word or "") if token == quote else (quote, (word or "") + token)
        elif token in "\"'":
            quote, word = token, word or ""
        elif token.isspace():
            words += [] if word is None else [word]
            word = None
        else:
            word = (word or "") + token
    if quote:
        raise BadUnit(f"the quotation in {text!r} does not end")
    return words if word is None else [*words, word]


def _read(name: str, text: str, sections: dict[str, dict[str, list[str]]]) -> None:
    section = ""
    joined = re.sub(r"\\\n(?:[ \t]*[#;][^\n]*\n)*", " ", text)
    for line in joined.splitlines():
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
            continue
        key, equals, value = line.partition("=")
        if not equals or not section:
            raise BadUnit(f"{name}: {line!r} is neither a section nor KEY=VALUE")
        values = sections.setdefault(section, {}).setdefault(key.strip(), [])
        if value.strip():
            values.append(value.strip())
        else:
            values.clear()


def _service(name: str, keys: dict[str, list[str]]) -> dict[str, object]:
    kinds = {"simple": "simple", "exec": "exec", "oneshot": "oneshot", "idle": "simple"}
    kind = _choice(keys, "Type", kinds, "simple")
    _choice(keys, "Restart", {"no": "no"}, "no")
    _choice(keys, "KillMode", {"control-group": "control-group"}, "control-group")
    _choice(keys, "User", {"root": "root"}, "root")
    start = _commands(name, keys, "ExecStart")
    if not start or (len(start) > 1 and kind != "oneshot"):
        raise BadUnit(f"{name}: ExecStart= is needed once (any number of times for oneshot)")
    both = _last(keys, "TimeoutSec", f"{DEFAULT_TIMEOUT_S}")
    start_default = "infinity" if kind == "oneshot" and "TimeoutSec" not in keys else both
    codes = " ".join(keys.get("SuccessExitStatus", ())).split()
    if not all(code.isdigit() for code in codes):
        raise BadUnit(f"{name}: of SuccessExitStatus= only numbers are modelled")
    pairs = [word.partition("=") for line in keys.get("Environment", ()) for word in split(line)]
    outputs = {
        **dict.fromkeys(("inherit", "journal", "kmsg", "syslog"), "journal"),
        **dict.fromkeys(("journal+console", "kmsg+console", "syslog+console", "tty"), "console"),
        "null": "null",
    }
    stdout = _choice(keys, "StandardOutput", outputs, "journal")
    return {
        "type": kind,
        "start_pre": _commands(name, keys, "ExecStartPre"),
        "start": start,
        "start_post": _commands(name, keys, "ExecStartPost"),
        "stop": _commands(name, keys, "ExecStop"),
        "stop_post": _commands(name, keys, "ExecStopPost"),
        "start_timeout_s": seconds(_last(keys, "TimeoutStartSec", start_default)),
        "stop_timeout_s": seconds(_last(keys, "TimeoutStopSec", both)),
        "runtime_max_s": seconds(_last(keys, "RuntimeMaxSec", "infinity")),
        "remain_after_exit": _last(keys, "RemainAfterExit", "no") in ("yes", "true", "on", "1"),
        "success_codes": frozenset({0, *map(int, codes)}),
        "environment": {key: expand_specifiers(value, name) for key, _, value in pairs},
        "stdout": stdout,
        "stderr": _choice(keys, "StandardError", {**outputs, "inherit": stdout}, stdout),
    }


def _timer(name: str, keys: dict[str, list[str]]) -> dict[str, object]:
    def spans(key: str) -> tuple[float, ...]:
        return tuple(span for text in keys.get(key, ()) if (span := seconds(text)) is not None)

    return {
        "on_boot_s": spans("OnBootSec"),
        "on_active_s": spans("OnActiveSec"),
        "starts": _last(keys, "Unit", f"{name.removesuffix('.timer')}.service"),
    }


def _commands(name: str, keys: dict[str, list[str]], key: str) -> tuple[Command, ...]:
    commands = []
    for line in keys.get(key, ()):
        marks = re.match(r"[-:+!@|]*", line)
        prefix = marks[0] if marks else ""
        if "@" in prefix or "|" in prefix:
            raise BadUnit(f"{name}: the prefix of {key}={line} is not modelled")
        words = [expand_specifiers(word, name) for word in split(line[len(prefix) :])]
        if not words or ";" in words:
            raise BadUnit(f"{name}: {key}={line} is not exactly one command")
        commands.append(Command(tuple(words), "-" in prefix, ":" in prefix))
    return tuple(commands)


def _choice(
    keys: Mapping[str, list[str]], key: str, choices: Mapping[str, str], default: str
) -> str:
    value = _last(keys, key, "")
    if not value:
        return default
    if value not in choices:
        raise BadUnit(
            f"{key}={value} is not modelled; modelled are {', '.join(filter(None, choices))}"
        )
    return choices[value]


def _last(keys: Mapping[str, list[str]], key: str, default: str) -> str:
    values = keys.get(key)
    return values[-1] if values else default
