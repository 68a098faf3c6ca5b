"""The calls of the API about what jobs' containers write."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, cast
from urllib.parse import urlencode

from atemporal.client.shapes import LogPage
from atemporal.client.transport import Transport, path_of
from atemporal.errors import Unavailable

# While nothing comes; and while the API is away, doubled each time.
_PAUSE_S = 1.0
_AWAY_S = (0.5, 5.0)


class LogOutput(NamedTuple):
    """A piece of an attempt's output: no more than a MiB without a gap in it.

    `missing` bytes before it are not kept; None: nobody knows how many, or some of it comes again.
    """

    attempt: int
    start: int
    missing: int | None
    data: bytes

    @property
    def end(self) -> int:
        """Where to go on after it."""
        return self.start + len(self.data)


class LogCalls(Transport):
    """The calls about output."""

    def log(self, job_id: str, attempt: int) -> bytes:
        """The very bytes of the end of an attempt's output; none before it has ended.

        Raises:
            NotFound: there is no such job or attempt.
        """
        return self.call("GET", f"/jobs/{path_of(job_id)}/log?attempt={attempt}")[1]

    def log_page(self, job_id: str, *, attempt: int | None = None, after: int = 0) -> LogPage:
        """What is kept of an attempt's output from the position `after` on; by default of the last one.

        Raises:
            NotFound: there is no such job or attempt.
        """
        given = {"after": after, **({} if attempt is None else {"attempt": attempt})}
        return cast(LogPage, self.get(f"/jobs/{path_of(job_id)}/logs?{urlencode(given)}"))

    def logs(
        self,
        job_id: str,
        *,
        attempt: int | None = None,
        after: int = 0,
        follow: bool = False,
        on_outage: Callable[[Unavailable], None] | None = None,
    ) -> Iterator[LogOutput]:
        """Go through an attempt's output from the position `after` on; by default that of the last one.

        With `follow` it waits for what comes until the attempt has ended. If no attempt was named it
        goes on with the next ones, each of which begins with a piece without bytes, until the job has
        finished. Who follows waits for an API that is away, after a call of `on_outage`.

        Raises:
            NotFound: there is no such job or attempt.
            Unavailable: the API does not answer, and nobody follows.
        """
        number = attempt
        while True:
            page = (
                self._awaited(job_id, number, after, on_outage)
                if follow
                else self.log_page(job_id, attempt=number, after=after)
            )
            number, after = page["attempt"], page["next"]
            for part in page["parts"]:
                data = base64.b64decode(part["data"])
                yield LogOutput(number, part["start"], part["missing"], data)
            behind = page["next_attempt"] if attempt is None else None
            if page["more"]:
                continue
            if not follow:
                return
            if page["ended"] and behind is not None:
                number, after = behind, 0
                yield LogOutput(number, 0, 0, b"")
            elif page["ended"] and (page["finished"] or attempt is not None):
                return
            else:
                time.sleep(_PAUSE_S)

    def _awaited(
        self,
        job_id: str,
        number: int | None,
        after: int,
        on_outage: Callable[[Unavailable], None] | None,
    ) -> LogPage:
        """A page, however long the API is away."""
        pause = _AWAY_S[0]
        while True:
            try:
                return self.log_page(job_id, attempt=number, after=after)
            except Unavailable as error:
                if on_outage is not None:
                    on_outage(error)
                on_outage = None
            time.sleep(pause)
            pause = min(2 * pause, _AWAY_S[1])
