"""Who may import whom, and what a module may be: the rules that keep each module readable alone.

Pure modules do no I/O, read no clock, make no randomness. Adapters import pure modules and their own
library only, and nobody else imports that library. Services import `atemporal` and `cloud_config`,
never each other. Nothing imports a service, except `atemporal.local`, which runs all in one process.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("atemporal", "services", "cloud_config")
LONGEST = 450
VAGUE = {"common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}

PURE = (
    "atemporal.architecture",
    "atemporal.billing",
    "atemporal.calendar",
    "atemporal.causes",
    "atemporal.clock",
    "atemporal.compose_env",
    "atemporal.concurrency",
    "atemporal.console",
    "atemporal.end_code",
    "atemporal.environment",
    "atemporal.errors",
    "atemporal.event_types",
    "atemporal.forecast",
    "atemporal.fleet.absence",
    "atemporal.fleet.ending",
    "atemporal.fleet.leftovers",
    "atemporal.fleet.named",
    "atemporal.fleet.plan",
    "atemporal.fleet.reconciliation",
    "atemporal.fleet.snapshot",
    "atemporal.fleet.stopped",
    "atemporal.image",
    "atemporal.job_view",
    "atemporal.json_object",
    "atemporal.limits",
    "atemporal.lead",
    "atemporal.messages",
    "atemporal.model",
    "atemporal.offer_file",
    "atemporal.price_table",
    "atemporal.recurrence",
    "atemporal.pattern",
    "atemporal.states",
    "atemporal.tags",
    "atemporal.tokens",
    "atemporal.userdata",
    "atemporal.visible",
    "atemporal.waiting",
    "atemporal.webhook.address",
    "atemporal.webhook.answer",
    "atemporal.webhook.retry",
    "atemporal.webhook.signature",
    "cloud_config",
)
# What a pure module may use: the rest of the standard library could do I/O. `importlib.resources` is
# for constants that the package itself brings.
PURE_LIBRARIES = (
    *("__future__", "abc", "base64", "binascii", "bisect", "codecs", "collections", "copy"),
    "dataclasses",
    *("csv", "datetime", "decimal", "difflib"),
    *(
        "enum",
        "functools",
        "gzip",
        "hashlib",
        "heapq",
        "hmac",
        "statistics",
        "importlib.resources",
        "ipaddress",
    ),
    *("itertools", "json", "math", "operator", "posixpath", "re", "shlex", "statistics"),
    *("string", "struct"),
    *("textwrap", "types", "typing", "unicodedata", "urllib.parse", "uuid", "zlib"),
    *("annotated_types", "pydantic", "typing_extensions", "yaml"),
)
# A pure module's own libraries, imported there and nowhere else in the project: whoever else read a zone
# would read the machine's files.
PURE_OWN = {
    "atemporal.calendar": ("cronsim", "tzdata", "zoneinfo"),
    "atemporal.webhook.signature": ("standardwebhooks",),
}
# Frozen values of an adapter that a pure module may be made from.
VALUES = ("atemporal.cloud.instance.Instance", "atemporal.cloud.volume.Volume")
IMPURE_CALLS = re.compile(
    r"(.*\.)?(uuid1|uuid4|uuid7|utcnow|today)|(.*\.)?(datetime|date)\.now"
    r"|(.*\.)?ZoneInfo(\.no_cache)?"
    r"|open|print|input|exec|eval|__import__"
)

# Adapter -> the libraries that are its own: imported there and nowhere else in the project.
ADAPTERS = {
    "atemporal.tables": ("sqlalchemy",),
    "atemporal.store": ("sqlalchemy", "psycopg2"),
    "atemporal.migrations": ("sqlalchemy", "alembic"),
    "atemporal.broker": ("kombu", "amqp"),
    "atemporal.cloud": ("boto3", "botocore", "mypy_boto3_ec2"),
    "atemporal.fleet": (),
    "atemporal.identity": ("cryptography", "asn1crypto"),
    "atemporal.webhook.sender": ("httpcore",),
}
# What an adapter may import of the project beside the pure modules and itself. The fleet is none,
# but it stands right above two of them and knows nothing else.
BELOW = {
    "atemporal.store": ("atemporal.settings", "atemporal.tables"),
    "atemporal.migrations": ("atemporal.settings", "atemporal.tables"),
    "atemporal.broker": ("atemporal.settings",),
    "atemporal.cloud": ("atemporal.settings",),
    "atemporal.fleet": ("atemporal.store", "atemporal.cloud"),
    "atemporal.identity": ("atemporal.settings",),
    "atemporal.webhook.sender": ("atemporal.__version__", "atemporal.absent"),
}
OWNERS = {
    library: tuple(module for module, own in (ADAPTERS | PURE_OWN).items() if library in own)
    for libraries in (ADAPTERS | PURE_OWN).values()
    for library in libraries
}
SQL = re.compile(
    r"\s*(SELECT\s.+\sFROM|INSERT\s+INTO|UPDATE\s+\S+\s+SET|DELETE\s+FROM|WITH\s+\w+\s+AS"
    r"|(CREATE|ALTER|DROP)\s+(TABLE|INDEX|TYPE|DATABASE|UNIQUE))\s",
    re.DOTALL,
)
SQL_OWNERS = ("atemporal.store", "atemporal.tables", "atemporal.migrations")
ABOVE_SERVICES = ("atemporal.cli", "atemporal.local", "atemporal.twin")


def within(name: str, *modules: str) -> bool:
    """Whether the dotted name is one of the modules or inside one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def imports(module: str, is_package: bool, tree: ast.AST) -> Iterator[str]:
    """The full names of all that the module imports, at its top or inside a function."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def violations(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """What the module's source breaks of the rules, one sentence each."""
    tree = ast.parse(source)
    found: list[str] = []
    for name in imports(module, is_package, tree):
        found += _about_import(module, name)
    for node in ast.walk(tree):
        found += _about_node(module, node)
    if module.split(".")[-1] in VAGUE:
        found.append(f"{module}: the name says nothing; name the noun")
    if (length := len(source.splitlines())) > LONGEST:
        found.append(f"{module} has {length} lines, more than {LONGEST}: split it by noun")
    return found


def _about_import(module: str, name: str) -> Iterator[str]:
    top = name.split(".")[0]
    ours = top in PACKAGES
    adapter = next((known for known in ADAPTERS if within(module, known)), None)
    if within(module, *PURE):
        known = next((one for one in PURE_OWN if within(module, one)), "")
        libraries = (*PURE_LIBRARIES, *PURE_OWN.get(known, ()))
        if not within(name, *((*PURE, *VALUES) if ours else libraries)):
            yield f"{module} is pure and imports {name}"
    elif adapter and ours:
        if not within(name, *PURE, *BELOW.get(adapter, ()), adapter):
            yield f"{module} is an adapter and imports {name}"
    elif adapter and top not in (*ADAPTERS[adapter], "pydantic", *sys.stdlib_module_names):
        yield f"{module} imports {name}, which is not its library"
    if top in OWNERS and not within(module, *OWNERS[top]):
        yield f"{module} imports {name}: only {', '.join(OWNERS[top])} may"
    if within(module, "services"):
        own = ".".join(module.split(".")[:2])
        if within(name, "services") and not within(name, own):
            yield f"{module} imports another service: {name}"
        if within(name, *ABOVE_SERVICES):
            yield f"{module} is a service and imports {name}"
    elif within(name, "services") and not within(module, "atemporal.local"):
        yield f"{module} imports a service: {name}; only atemporal.local may"


def _about_node(module: str, node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Call) and within(module, *PURE):
        called = ast.unparse(node.func)
        if IMPURE_CALLS.fullmatch(called):
            yield f"{module} is pure and calls {called}"
    if (
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and SQL.match(node.value)
        and not within(module, *SQL_OWNERS)
    ):
        yield f"{module}, line {node.lineno}: SQL; its place is {SQL_OWNERS[0]}"


def _modules() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


@pytest.mark.parametrize(("module", "path"), [pytest.param(m, p, id=m) for m, p in _modules()])
def test_module_keeps_the_rules(module: str, path: Path) -> None:
    source = path.read_text()
    assert violations(module, source, is_package=path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        # pure: no I/O, no clock, no randomness, nothing impure of the project
        ("atemporal.model", "import os"),
        ("atemporal.model", "def f():\n    from pathlib import Path"),
        ("atemporal.clock", "import time"),
        ("atemporal.tokens", "import secrets"),
        ("atemporal.states", "from random import choice"),
        ("atemporal.messages", "import httpx"),
        ("atemporal.messages", "from atemporal import store"),
        ("atemporal.messages", "from .settings import Settings"),
        ("atemporal.clock", "from datetime import datetime\nx = datetime.now()"),
        ("atemporal.clock", "import datetime as d\nx = d.datetime.utcnow()"),
        ("atemporal.userdata", "import uuid\nx = uuid.uuid4()"),
        ("atemporal.userdata", "from uuid import uuid4\nx = uuid4()"),
        ("cloud_config.flatcar", "x = open('/etc/hostname')"),
        ("cloud_config.flatcar", "import socket"),
        # zones: of the pinned package, and read in one place
        ("atemporal.calendar.zone_rules", "from zoneinfo import ZoneInfo\nx = ZoneInfo('UTC')"),
        (
            "atemporal.calendar.zone_rules",
            "import zoneinfo\nx = zoneinfo.ZoneInfo.no_cache('UTC')",
        ),
        ("atemporal.model", "from zoneinfo import ZoneInfo"),
        ("atemporal.cli.jobs", "from zoneinfo import ZoneInfo"),
        ("services.scheduler.fires", "import cronsim"),
        # adapters: pure modules and their own library; that library nowhere else
        ("atemporal.cloud", "import requests"),
        ("atemporal.cloud", "import sqlalchemy"),
        ("atemporal.cloud", "from atemporal.store import Store"),
        ("atemporal.broker", "from atemporal import cloud"),
        ("atemporal.store.jobs", "from ..broker import Broker"),
        ("atemporal.store.jobs", "import services"),
        ("atemporal.tables", "import psycopg2"),
        ("atemporal.daemon", "import kombu"),
        ("atemporal.twin.server", "from botocore.loaders import Loader"),
        ("services.api.app", "from sqlalchemy import text"),
        # the fleet: decisions are pure; the reader knows store and cloud, and not their libraries
        ("atemporal.fleet.plan", "from atemporal.store import attempts"),
        ("atemporal.fleet.plan", "from atemporal.cloud import Cloud"),
        ("atemporal.fleet.plan", "from atemporal.fleet.reader import FleetReader"),
        ("atemporal.fleet.reconciliation", "from atemporal.store.database import Database"),
        ("atemporal.fleet.snapshot", "from datetime import datetime\nx = datetime.now()"),
        ("atemporal.fleet.reader", "from sqlalchemy import Connection"),
        ("atemporal.fleet.reader", "from atemporal.broker import Link"),
        ("atemporal.fleet.reader", "from services.reaper.reaper import Reaper"),
        ("atemporal.store.jobs", "from atemporal.fleet.reader import FleetReader"),
        # services: never each other, nor what stands above them
        ("services.api.app", "from services.reaper.sweep import Sweep"),
        ("services.api", "from . import reaper\nfrom services import launcher"),
        ("services.scheduler.loop", "from atemporal.twin import Twin"),
        ("atemporal.cli.submit", "from services.api.app import create"),
        ("atemporal.daemon", "import services.reaper"),
        # SQL in its place, names that say something, modules that fit a head
        ("services.reaper.sweep", "q = 'SELECT id FROM jobs'"),
        (
            "atemporal.daemon",
            "q = '''\n  update jobs set state = 1 '''.upper()\nr = 'DELETE FROM x '",
        ),
        ("atemporal.utils", ""),
        ("services.api.helpers", ""),
        ("atemporal.daemon", "\n" * (LONGEST + 1)),
    ],
)
def test_the_rules_bite(module: str, source: str) -> None:
    assert violations(module, source) != []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("atemporal.model", "import re\nfrom pydantic import BaseModel\nfrom . import image"),
        (
            "atemporal.userdata",
            "from cloud_config.flatcar import FLATCAR\nfrom atemporal import errors",
        ),
        ("cloud_config.flatcar", "from importlib.resources import files\nx = files('y').open"),
        ("atemporal.calendar.zone_rules", "from zoneinfo import ZoneInfo\nx = ZoneInfo.from_file"),
        ("services.scheduler.fires", "from atemporal.calendar import CronLine"),
        (
            "atemporal.store.jobs",
            "import time\nfrom sqlalchemy import text\nq = 'SELECT 1 FROM x '",
        ),
        ("atemporal.store", "from atemporal.tables import jobs\nfrom .database import Store"),
        ("atemporal.cloud", "import boto3\nfrom atemporal.settings import Settings"),
        ("atemporal.fleet.plan", "from atemporal.cloud.instance import Instance"),
        (
            "atemporal.fleet.reader",
            "from atemporal.cloud import Cloud\nfrom atemporal.store import x",
        ),
        ("services.reaper.reaper", "from atemporal.fleet.plan import decide"),
        ("atemporal.cli.audit", "from atemporal.fleet.reader import FleetReader"),
        ("atemporal.local", "from services.api.app import create"),
        ("atemporal.cli", "from atemporal import local, __version__"),
        (
            "services.api.app",
            "from . import jobs\nfrom atemporal.store import Store\nimport fastapi",
        ),
        ("atemporal.cli.jobs", "help = 'select a job, delete from the list, update it'"),
    ],
)
def test_the_rules_let_good_code_pass(module: str, source: str) -> None:
    package = module in ("atemporal.store", "atemporal.cli")
    assert violations(module, source, is_package=package) == []
