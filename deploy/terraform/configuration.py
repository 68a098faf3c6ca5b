"""The Terraform files, read: what they declare, and what their expressions name.

Promise: `read` gives every block of every `*.tf` file in a folder, or says which file is no HCL.
Expressions stay text: nothing is computed here. `chains` finds the names in one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hcl2

from atemporal.errors import Invalid

_NOT_ARGUMENTS = frozenset({"__is_block__", "__comments__", "__inline_comments__"})
_CHAIN = re.compile(r"(?<![\w.\"-])([A-Za-z_]\w*)((?:\.(?:[A-Za-z_]\w*|\d+))+)")
_BRACKETED = re.compile(r"\[([^\[\]]*)\]")
_BOUND = re.compile(r"\bfor\s+(\w+)(?:\s*,\s*(\w+))?\s+in\b")


@dataclass(frozen=True)
class Block:
    """The body of a block: arguments by name, and the nested blocks of each name."""

    arguments: Mapping[str, Any]
    blocks: Mapping[str, list[Block]]

    def expressions(self) -> Iterator[str]:
        """All text in it that may name something, nested blocks included."""
        for value in self.arguments.values():
            yield from _texts(value)
        for blocks in self.blocks.values():
            for block in blocks:
                yield from block.expressions()


@dataclass(frozen=True)
class Resource:
    """A `resource` or a `data` block."""

    sort: str
    type: str
    name: str
    body: Block

    @property
    def address(self) -> str:
        """As expressions name it."""
        return f"{'data.' * (self.sort == 'data')}{self.type}.{self.name}"


@dataclass
class Configuration:
    """All of a folder's declarations."""

    resources: list[Resource] = field(default_factory=list)
    variables: dict[str, Block] = field(default_factory=dict)
    outputs: dict[str, Block] = field(default_factory=dict)
    locals: dict[str, Any] = field(default_factory=dict)
    others: list[Block] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> Configuration:
        """Read the folder's files.

        Raises:
            Invalid: one is no HCL, by its name.
        """
        made = cls()
        for path in sorted(folder.glob("*.tf")):
            made.add(path.read_text(), name=path.name)
        return made

    def add(self, text: str, *, name: str) -> None:
        """Read one more file's text."""
        try:
            parsed = hcl2.loads(text)
        except Exception as error:
            raise Invalid({name: f"no HCL: {str(error).splitlines()[0]}"}) from error
        for sort in ("resource", "data"):
            for entry in parsed.get(sort, ()):
                for kind, label, body in _labelled(entry, 2):
                    self.resources.append(Resource(sort, kind, label, _block(body)))
        for sort, into in (("variable", self.variables), ("output", self.outputs)):
            for entry in parsed.get(sort, ()):
                for label, body in _labelled(entry, 1):
                    into[label] = _block(body)
        for entry in parsed.get("locals", ()):
            self.locals |= {k: v for k, v in entry.items() if k not in _NOT_ARGUMENTS}
        for sort in ("provider", "terraform"):
            for entry in parsed.get(sort, ()):
                self.others.append(_block(entry))

    def expressions(self) -> Iterator[tuple[str, str]]:
        """All text that may name something, each with where it stands."""
        for resource in self.resources:
            yield from ((resource.address, text) for text in resource.body.expressions())
        for name, value in self.locals.items():
            yield from ((f"local.{name}", text) for text in _texts(value))
        for sort, blocks in (("output", self.outputs), ("variable", self.variables)):
            for name, block in blocks.items():
                yield from ((f"{sort}.{name}", text) for text in block.expressions())
        for block in self.others:
            yield from (("provider", text) for text in block.expressions())


def chains(text: str) -> Iterator[tuple[str, ...]]:
    """The names with steps in an expression, like `("aws_lb", "this", "arn")`; not the bound ones."""
    code = _code(text)
    bound = {name for pair in _BOUND.findall(code) for name in pair if name}
    # Inside out: what stands in brackets is looked at by itself, and taken away.
    while True:
        bracketed = _BRACKETED.findall(code)
        rest = _BRACKETED.sub("", code)
        for part in bracketed or [rest]:
            for head, steps in _CHAIN.findall(part):
                if head not in bound:
                    yield (head, *steps[1:].split("."))
        if not bracketed:
            return
        code = rest


def plain(value: Any) -> Any:
    """A value of literals without the quotes that its strings and keys have here."""
    if isinstance(value, dict):
        return {plain(k): plain(v) for k, v in value.items() if k not in _NOT_ARGUMENTS}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value[1:-1] if isinstance(value, str) and value[:1] == '"' else value


def _labelled(entry: Mapping[str, Any], depth: int) -> Iterator[tuple[Any, ...]]:
    for label, inside in entry.items():
        if label in _NOT_ARGUMENTS:
            continue
        if depth == 1:
            yield plain(label), inside
        else:
            yield from ((plain(label), *rest) for rest in _labelled(inside, depth - 1))


def _block(body: Mapping[str, Any]) -> Block:
    arguments: dict[str, Any] = {}
    blocks: dict[str, list[Block]] = {}
    for name, value in body.items():
        if name in _NOT_ARGUMENTS:
            continue
        if name == "dynamic":
            for entry in value:
                for label, inside in _labelled(entry, 1):
                    blocks.setdefault(label, []).append(_dynamic(inside))
        elif isinstance(value, list) and any(_is_block(one) for one in value):
            blocks.setdefault(plain(name), []).extend(_block(one) for one in value)
        else:
            arguments[plain(name)] = value
    return Block(arguments, blocks)


def _dynamic(inside: Mapping[str, Any]) -> Block:
    made = _block(inside["content"][0])
    # What it is repeated for is looked at as the block's own, under a name that no argument has.
    return Block({**made.arguments, "for_each ": inside["for_each"]}, made.blocks)


def _is_block(value: Any) -> bool:
    # A labelled one has the mark further in.
    return isinstance(value, dict) and (
        "__is_block__" in value or any(_is_block(one) for one in value.values())
    )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, dict):
        for name, one in value.items():
            if name not in _NOT_ARGUMENTS:
                yield from _texts(name)
                yield from _texts(one)


def _code(text: str) -> str:
    """An expression without the letters of its strings; what they interpolate stays."""
    code: list[str] = []
    # What we are in, the innermost last: a string (None), or an expression with so many open braces.
    inside: list[int | None] = [0]
    at = 0
    while at < len(text):
        braces, here = inside[-1], text[at]
        if braces is None and text.startswith("$${", at):
            at += 3
            continue
        if text.startswith("${", at):
            inside.append(0)
            code.append(" ")
            at += 2
            continue
        if braces is None and here == "\\":
            at += 2
            continue
        if here == '"':
            if braces is None:
                inside.pop()
            else:
                inside.append(None)
            code.append(here)
        elif braces is not None:
            if here == "}" and not braces and len(inside) > 1:
                inside.pop()
            else:
                inside[-1] = braces + {"{": 1, "}": -1}.get(here, 0)
                code.append(here)
        at += 1
    return "".join(code)
