"""What is wrong with the Terraform files, found without Terraform, a provider or an account.

Promise: `faults` names each type that the providers do not have, each argument and nested block that a
type does not have, each one that is required and missing, each name that is not declared, each
declaration that nobody uses, and each thing asked of a resource that it does not have.
Mechanism: the configuration as it was read, against the providers' schemas (`extract_schema`).

`python -m deploy.terraform.check` prints them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deploy.terraform.configuration import Block, Configuration, Resource, chains

HERE = Path(__file__).parent
_META_ARGUMENTS = frozenset({"count", "for_each", "depends_on", "provider", "for_each "})
_META_BLOCKS = frozenset({"lifecycle", "timeouts", "provisioner", "connection"})
# What an expression may begin with beside a declaration's name.
_BUILT_IN = frozenset({"path", "terraform", "self"})


def schemas() -> dict[str, Any]:
    """The extract: by `resource TYPE` or `data TYPE`."""
    found: dict[str, Any] = json.loads((HERE / "schema.json").read_text())["schemas"]
    return found


def faults(configuration: Configuration, known: Mapping[str, Any]) -> list[str]:
    """Each fault, as a sentence that says where it is."""
    found: list[str] = []
    for resource in configuration.resources:
        schema = known.get(f"{resource.sort} {resource.type}")
        if schema is None:
            found.append(
                f"{resource.address}: no provider has the {resource.sort} {resource.type}"
            )
            continue
        found += _of_block(resource.address, resource.body, schema)
        found += _of_lifecycle(resource, schema)
    found += _of_names(configuration, known)
    for name, block in configuration.outputs.items():
        if "value" not in block.arguments:
            found.append(f"output.{name}: the argument value is missing")
    return found


def _of_block(where: str, block: Block, schema: Mapping[str, Any]) -> Iterator[str]:
    arguments, blocks = schema["arguments"], schema["blocks"]
    for name in block.arguments:
        if name in blocks:
            yield f"{where}: {name} is a nested block, not an argument"
        elif name not in arguments and name not in _META_ARGUMENTS:
            yield f"{where}: there is no argument {name}"
    for name, required in arguments.items():
        if required and name not in block.arguments:
            yield f"{where}: the argument {name} is missing"
    for name, inner in blocks.items():
        if inner["required"] and name not in block.blocks:
            yield f"{where}: the block {name} is missing"
    for name, several in block.blocks.items():
        inner = blocks.get(name)
        if inner is None:
            if name in arguments:
                yield f"{where}: {name} is an argument, not a nested block"
            elif name not in _META_BLOCKS:
                yield f"{where}: there is no nested block {name}"
            continue
        if len(several) > 1 and not inner["many"]:
            yield f"{where}: there may be one block {name}"
        for one in several:
            yield from _of_block(f"{where}.{name}", one, inner)


def _of_lifecycle(resource: Resource, schema: Mapping[str, Any]) -> Iterator[str]:
    for block in resource.body.blocks.get("lifecycle", ()):
        for name in block.arguments.get("ignore_changes", ()):
            if name not in schema["arguments"] and name not in schema["blocks"]:
                yield f"{resource.address}: there is no argument {name} whose changes to ignore"


def _of_names(configuration: Configuration, known: Mapping[str, Any]) -> Iterator[str]:
    declared = {resource.address: resource for resource in configuration.resources}
    used: set[str] = set()
    for where, text in configuration.expressions():
        # The arguments of a lifecycle are names, not expressions.
        for chain in chains(text):
            head, *steps = chain
            if head == "var":
                used.add(f"var.{steps[0]}")
                if steps[0] not in configuration.variables:
                    yield f"{where}: the variable {steps[0]} is not declared"
            elif head == "local":
                used.add(f"local.{steps[0]}")
                if steps[0] not in configuration.locals:
                    yield f"{where}: the local {steps[0]} is not declared"
            elif head in ("each", "count"):
                if not _repeated(declared.get(where), head):
                    yield f"{where}: {head} without {'for_each' if head == 'each' else 'count'}"
            elif head not in _BUILT_IN and not _of_dynamic(declared.get(where), head, steps):
                yield from _of_resource(where, chain, declared, known)
    for sort, names in (("var", configuration.variables), ("local", configuration.locals)):
        for name in names:
            if f"{sort}.{name}" not in used:
                yield f"{sort}.{name}: nobody uses it"


def _of_resource(
    where: str,
    chain: tuple[str, ...],
    declared: Mapping[str, Resource],
    known: Mapping[str, Any],
) -> Iterator[str]:
    depth = 3 if chain[0] == "data" else 2
    address = ".".join(chain[:depth])
    resource = declared.get(address)
    if resource is None:
        yield f"{where}: {address} is not declared"
        return
    schema = known.get(f"{resource.sort} {resource.type}")
    if schema and len(chain) > depth:
        asked = chain[depth]
        if asked not in schema["attributes"] and asked not in schema["blocks"]:
            yield f"{where}: {address} has no {asked}"


def _repeated(resource: Resource | None, head: str) -> bool:
    return resource is not None and {"each": "for_each", "count": "count"}[head] in (
        resource.body.arguments
    )


def _of_dynamic(resource: Resource | None, head: str, steps: list[str]) -> bool:
    return resource is not None and head in resource.body.blocks and steps[0] in ("key", "value")


def main() -> int:
    """Print the faults of the files here."""
    found = faults(Configuration.read(HERE), schemas())
    print(
        "\n".join(found) or "nothing is wrong with the Terraform files, as far as can be seen here"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
