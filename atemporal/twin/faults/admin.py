"""What the twin has beside EC2's API, under `/_twin/`: its fault rules and its logs, as JSON.

    GET    /_twin/faults       {"seed", "rules": [{..., "used"}], "injected": {kind: count}}
    POST   /_twin/faults       add the rule in the body (see `rule`); 201 and the rule with its id
    DELETE /_twin/faults       remove all rules; /_twin/faults/ID: one
    GET    /_twin/injected     {"injected": [...]}: the last 10,000 faults, oldest first
    GET    /_twin/calls        {"calls": [...]}: the last 10,000 calls, oldest first

A refusal is {"error": sentence, "fields": {name: why}}. Like everything on its port it is for the
twin's own host.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from atemporal.errors import AtemporalError, Conflict, Invalid, NotFound
from atemporal.twin.faults.active_rules import ActiveRules

PREFIX = "/_twin/"


class Admin:
    """The twin's own endpoint; `recent_calls` gives the log of the last calls."""

    def __init__(
        self, rules: ActiveRules, recent_calls: Callable[[], list[dict[str, Any]]]
    ) -> None:
        self._rules = rules
        self._recent_calls = recent_calls

    def handle(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Carry out one request; return an HTTP status and a JSON document."""
        try:
            status, content = self._handle(method, path.removeprefix(PREFIX), body)
        except AtemporalError as error:
            status = HTTPStatus.BAD_REQUEST
            if isinstance(error, NotFound | Conflict):
                missing = isinstance(error, NotFound)
                status = HTTPStatus.NOT_FOUND if missing else HTTPStatus.CONFLICT
            fields = error.fields if isinstance(error, Invalid) else {}
            content = {"error": str(error), "fields": fields}
        return status, json.dumps(content).encode()

    def _handle(self, method: str, path: str, body: bytes) -> tuple[HTTPStatus, dict[str, Any]]:
        noun, _, name = path.partition("/")
        match method, noun, bool(name):
            case "GET", "faults", False:
                rules = [
                    {**rule.model_dump(exclude_none=True), "used": used}
                    for rule, used in self._rules.rules()
                ]
                seed, injected = self._rules.seed, self._rules.counts()
                return HTTPStatus.OK, {"seed": seed, "rules": rules, "injected": injected}
            case "POST", "faults", False:
                fields = _fields(body)
                rule = self._rules.add(fields.pop("kind"), **fields)
                return HTTPStatus.CREATED, rule.model_dump(exclude_none=True)
            case "DELETE", "faults", False:
                self._rules.clear()
                return HTTPStatus.OK, {}
            case "DELETE", "faults", True:
                self._rules.remove(name)
                return HTTPStatus.OK, {}
            case "GET", "injected", False:
                return HTTPStatus.OK, {"injected": self._rules.journal.recent()}
            case "GET", "calls", False:
                return HTTPStatus.OK, {"calls": self._recent_calls()}
        raise NotFound(f"the twin has no {method} {PREFIX}{path}")


def _fields(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except ValueError as error:
        raise Invalid({"rule": f"the body is no JSON: {error}"}) from None
    if not isinstance(fields, dict) or not isinstance(fields.get("kind"), str):
        raise Invalid({"kind": "the body is an object with at least a kind"})
    return fields
