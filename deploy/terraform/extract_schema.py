"""The part of the providers' schemas that the Terraform files use, taken from published bindings.

Promise: for each resource and each data source in `*.tf`: its arguments, which of them are required, its
nested blocks, and what it can be asked for. The result, `schema.json`, names the providers' versions it
is of, and is the same for the same input.
Mechanism: CDK for Terraform publishes a provider's bindings, made from the provider's own schema, as a
package. Of a resource's JavaScript each list of arguments says name, type and whether it is a block; the
TypeScript declarations say which are optional; the classes' getters, what it can be asked for. Again, in
a folder of its own:

    pip download --no-deps cdktf-cdktf-provider-aws==21.22.1 cdktf-cdktf-provider-random==12.0.1
    python -m deploy.terraform.extract_schema *.whl

Failure: a resource that no binding has is named, and nothing is written.
"""

from __future__ import annotations

import io
import json
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.terraform.configuration import Configuration

HERE = Path(__file__).parent
OUTPUT = HERE / "schema.json"

_VERSION = re.compile(r"providerVersion: '([^']+)'")
_TYPE = re.compile(r"terraformResourceType: '([^']+)'")
_FUNCTION = re.compile(r"^function (\w+)ToHclTerraform\(struct\) \{(.*?)^\}", re.M | re.S)
_TOP = re.compile(r"^    synthesizeHclAttributes\(\) \{(.*?)^    \}", re.M | re.S)
_ATTRIBUTE = re.compile(
    r"^ +(\w+): \{\n +value: ([^\n]*),\n +isBlock: (true|false),\n"
    r' +type: "(\w+)",\n +storageClassType: "(\w+)",',
    re.M,
)
_INTERFACE = re.compile(r"^export interface (\w+)[^{]*\{(.*?)^\}", re.M | re.S)
_MEMBER = re.compile(r"#(\w+) [^\n]*\}\n(?:[^/]*?)\*/\n +readonly (\w+)(\??):", re.S)
_CLASS = re.compile(
    r"^class (\w+) extends cdktf\.Terraform(?:Resource|DataSource) \{(.*)", re.M | re.S
)
_GETTERS = (
    re.compile(r"this\.get\w+Attribute\('(\w+)'\)"),
    re.compile(r'\(this, "(\w+)"'),
)


@dataclass(frozen=True)
class Binding:
    """One resource's or data source's two files."""

    script: str
    declarations: str

    @property
    def version(self) -> str:
        """The provider's."""
        return _VERSION.findall(self.script)[0]  # type: ignore[no-any-return]

    def schema(self) -> dict[str, Any]:
        """Arguments, blocks and attributes."""
        class_ = _CLASS.search(self.script)
        if class_ is None:
            raise SystemExit("a binding without a class: the form of the bindings has changed")
        name, body = class_.groups()
        functions = dict(_FUNCTION.findall(self.script))
        interfaces = dict(_INTERFACE.findall(self.declarations))
        top = _TOP.search(body)
        found = self._block(top[1] if top else "", f"{name}Config", functions, interfaces)
        asked = {one for pattern in _GETTERS for one in pattern.findall(body)}
        found["attributes"] = sorted((asked | set(found["arguments"])) - {"tags_all"})
        return found

    def _block(
        self,
        body: str,
        interface: str,
        functions: Mapping[str, str],
        interfaces: Mapping[str, str],
    ) -> dict[str, Any]:
        members = {
            name: optional != "?"
            for name, _, optional in _MEMBER.findall(interfaces.get(interface, ""))
        }
        arguments: dict[str, Any] = {}
        blocks: dict[str, Any] = {}
        for name, value, is_block, _, stored in _ATTRIBUTE.findall(body):
            if name not in members:
                raise SystemExit(f"{interface} says nothing of {name}: the bindings have changed")
            if is_block == "false":
                arguments[name] = members[name]
                continue
            inner = stored.removesuffix("List").removesuffix("Map")
            key = inner[:1].lower() + inner[1:]
            block = self._block(functions.get(key, ""), inner, functions, interfaces)
            # One that may come several times is mapped over in the script.
            many = "Mapper" in value
            blocks[name] = block | {"required": members[name], "many": many}
        return {"arguments": arguments, "blocks": blocks}


def bindings(wheel: Path) -> Iterable[tuple[str, Binding]]:
    """Each binding of a package, by `resource TYPE` or `data TYPE`."""
    with zipfile.ZipFile(wheel) as package:
        inner = next(name for name in package.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(package.read(inner)), mode="r:gz") as tar:
            yield from _in(tar)


def _in(tar: tarfile.TarFile) -> Iterable[tuple[str, Binding]]:
    half: dict[str, dict[str, str]] = {}
    for member in tar:
        match = re.fullmatch(r"package/lib/([^/]+)/index\.(js|d\.ts)", member.name)
        file = tar.extractfile(member) if match else None
        if match is None or file is None:
            continue
        folder, kind = match.groups()
        pair = half.setdefault(folder, {})
        pair[kind] = file.read().decode()
        if len(pair) < 2:
            continue
        binding = Binding(pair["js"], pair["d.ts"])
        half[folder] = {}
        if types := _TYPE.findall(binding.script):
            sort = "data" if folder.startswith("data-") else "resource"
            yield f"{sort} {types[0]}", binding


def main(wheels: list[str]) -> int:
    """Write `schema.json` from these packages."""
    wanted = {f"{one.sort} {one.type}" for one in Configuration.read(HERE).resources}
    found: dict[str, Any] = {}
    versions: dict[str, str] = {}
    for wheel in wheels:
        for name, binding in bindings(Path(wheel)):
            if name in wanted:
                found[name] = binding.schema()
                versions[name.split()[1].partition("_")[0]] = binding.version
    if missing := sorted(wanted - set(found)):
        print(f"no binding has: {', '.join(missing)}", file=sys.stderr)
        return 1
    text = {"providers": dict(sorted(versions.items())), "schemas": dict(sorted(found.items()))}
    OUTPUT.write_text(json.dumps(text, indent=1, sort_keys=True) + "\n")
    print(f"{len(found)} schemas of {versions} in {OUTPUT}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
