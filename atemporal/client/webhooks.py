"""The calls of the API about webhooks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlencode

from atemporal.client.shapes import FailedPage, Webhook, WebhookPage
from atemporal.client.transport import Transport, object_of, path_of

_PAGE = 100


class WebhookCalls(Transport):
    """The calls about webhooks; what changes one wants the scope `admin`."""

    def create_webhook(self, fields: Mapping[str, Any]) -> Webhook:
        """Make a webhook by the fields of the API's schema; `secret` in the answer is shown only now.

        Raises:
            Invalid: a field is wrong; `fields` has each.
            Conflict: there is one of that name.
            Unknown: nobody knows whether it arrived; look for its name. Its secret is lost: rotate it.
        """
        body = json.dumps(dict(fields)).encode()
        return cast(Webhook, object_of(self.call("POST", "/webhooks", body)[1]))

    def webhooks(self, *, limit: int = _PAGE, after: str = "") -> WebhookPage:
        """One page of webhooks, by name, from the first one after `after` on."""
        query = urlencode({"limit": limit, "after": after})
        return cast(WebhookPage, self.get(f"/webhooks?{query}"))

    def webhook(self, name: str) -> Webhook:
        """A webhook, and how it fares.

        Raises:
            NotFound: there is none of that name.
        """
        return cast(Webhook, self.get(_at(name)))

    def delete_webhook(self, name: str) -> Webhook:
        """Delete a webhook with all that it has not delivered; return what it was.

        Raises:
            NotFound: there is none of that name.
            Unknown: nobody knows whether it arrived.
        """
        return cast(Webhook, object_of(self.call("DELETE", _at(name))[1]))

    def pause_webhook(self, name: str) -> Webhook:
        """Send nothing until it is resumed; one that is paused stays so.

        Raises:
            NotFound: there is none of that name.
            Unknown: nobody knows whether it arrived; pausing again changes nothing more.
        """
        return self._change(name, "pause")

    def resume_webhook(self, name: str, *, skip: bool = False) -> Webhook:
        """Send again: what has happened meanwhile too, or with `skip` only what happens from now on.

        Raises:
            NotFound: there is none of that name.
            Unknown: nobody knows whether it arrived.
        """
        return self._change(name, "resume", {"skip": skip})

    def rotate_webhook_secret(self, name: str) -> Webhook:
        """Give it another secret, in the answer only; the one before signs as well for a day.

        Raises:
            NotFound: there is none of that name.
            Unknown: nobody knows whether it arrived; look before you repeat it.
        """
        return self._change(name, "rotate-secret")

    def test_webhook(self, name: str) -> Webhook:
        """Ask for a test event; `tested` of `webhook` says later what came of it.

        Raises:
            NotFound: there is none of that name.
            Unknown: nobody knows whether it arrived.
        """
        return self._change(name, "test")

    def failed_deliveries(self, name: str, *, after: int = 0, limit: int = _PAGE) -> FailedPage:
        """One page of the events that were given up, by their numbers.

        Raises:
            NotFound: there is no webhook of that name.
        """
        query = urlencode({"limit": limit, "after": after})
        return cast(FailedPage, self.get(f"{_at(name)}/failed?{query}"))

    def retry_deliveries(self, name: str, events: Sequence[int] | None = None) -> int:
        """Send again what was given up: these events, or all; return how many those are.

        Raises:
            NotFound: there is no webhook of that name.
            Unknown: nobody knows whether it arrived; again changes nothing more.
        """
        fields = {} if events is None else {"events": list(events)}
        body = json.dumps(fields).encode()
        return int(object_of(self.call("POST", f"{_at(name)}/retry", body)[1])["retried"])

    def _change(self, name: str, verb: str, fields: Mapping[str, Any] | None = None) -> Webhook:
        body = b"" if fields is None else json.dumps(dict(fields)).encode()
        return cast(Webhook, object_of(self.call("POST", f"{_at(name)}/{verb}", body)[1]))


def _at(name: str) -> str:
    return f"/webhooks/{path_of(name, 'webhook')}"
