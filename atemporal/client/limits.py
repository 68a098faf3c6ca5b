"""The calls of the API about concurrency limits."""

from __future__ import annotations

import json
from typing import cast
from urllib.parse import urlencode

from atemporal.client.shapes import Limit, LimitChange
from atemporal.client.transport import Transport, object_of


class LimitCalls(Transport):
    """The calls about limits; to change one wants the scope `admin`."""

    def limits(self) -> list[Limit]:
        """The concurrency limits that are set, with what is in use of each."""
        return cast(list[Limit], self.get("/limits")["limits"])

    def limit_changes(self, name: str = "", *, limit: int = 100) -> list[LimitChange]:
        """Who changed which limit, or the one of this name, the latest first."""
        query = urlencode({"limit": limit, **({"name": name} if name else {})})
        return cast(list[LimitChange], self.get(f"/limits/changes?{query}")["changes"])

    def set_limit(self, name: str, most: int) -> Limit:
        """Set a concurrency limit, new or not.

        Raises:
            Invalid: that is no limit.
            Unknown: nobody knows whether it arrived; the same again changes nothing more.
        """
        body = json.dumps({"name": name, "most": most}).encode()
        return cast(Limit, object_of(self.call("PUT", "/limits", body)[1]))

    def remove_limit(self, name: str) -> Limit:
        """Remove a concurrency limit; return what it was.

        Raises:
            NotFound: there is none of just this name.
            Unknown: nobody knows whether it arrived.
        """
        path = f"/limits?{urlencode({'name': name})}"
        return cast(Limit, object_of(self.call("DELETE", path)[1]))
