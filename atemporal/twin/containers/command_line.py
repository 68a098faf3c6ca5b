"""docker's command line: the verb, its options, and what follows them.

Promise: nothing behind the image's name is read as an option: those words are the job's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_LONG = {
    "-a": "--attach",
    "-d": "--detach",
    "-e": "--env",
    "-f": "--format",
    "-i": "--interactive",
    "-n": "--tail",
    "-p": "--publish",
    "-q": "--quiet",
    "-s": "--signal",
    "-t": "--time",
    "--timeout": "--time",
}
_ELSEWHERE = {
    ("rm", "-f"): "--force",
    ("logs", "-f"): "--follow",
    ("ps", "-a"): "--all",
    ("inspect", "-s"): "--size",
    ("create", "-t"): "--tty",
    ("run", "-t"): "--tty",
}
_WITHOUT_VALUE = {
    *("--all", "--size", "--no-trunc"),
    *("--attach", "--detach", "--interactive", "--quiet", "--tty", "--rm", "--init", "--force"),
    *("--privileged", "--read-only", "--publish-all", "--timestamps", "--follow", "--volumes"),
    *("--no-healthcheck", "--oom-kill-disable", "--sig-proxy"),
}


@dataclass(frozen=True)
class CommandLine:
    """`docker VERB OPTIONS OPERANDS`; options by their long names, a flag's value is `true`."""

    verb: str
    options: tuple[tuple[str, str], ...]
    operands: tuple[str, ...]

    def all(self, name: str) -> list[str]:
        """All values of an option."""
        return [value for option, value in self.options if option == name]

    def last(self, name: str, default: str = "") -> str:
        """The last value of an option, which is the one that counts."""
        return (self.all(name) or [default])[-1]

    def has(self, name: str) -> bool:
        """Whether a flag was given."""
        return self.last(name, "false") == "true"


def parse(words: Sequence[str]) -> CommandLine:
    """Read the words behind `docker`; what a one-letter option means depends on the verb."""
    rest = list(words)
    if rest[:1] == ["--config"]:
        # The client's own settings: what opens a registry, from which nothing is pulled here.
        del rest[:2]
    if rest[:1] == ["container"]:
        rest.pop(0)
    verb = rest.pop(0) if rest else "help"
    if verb == "image" and rest:
        verb = f"image {rest.pop(0)}"
    options = []
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        name, equals, value = word.partition("=")
        name = _ELSEWHERE.get((verb, name)) or _LONG.get(name, name)
        if not equals:
            value = "true" if name in _WITHOUT_VALUE else (rest.pop(0) if rest else "")
        options.append((name, value))
    return CommandLine(verb, tuple(options), tuple(rest))
