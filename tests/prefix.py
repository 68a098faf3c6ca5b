"""A proxy that serves beneath a prefix, as many in front of the API do: it takes the prefix off."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

PREFIX = "/atemporal"
_OWN = ("connection", "transfer-encoding", "content-length", "server", "date", "keep-alive")


@contextmanager
def prefixed(upstream: str) -> Iterator[str]:
    """Serve what is at `upstream` beneath the prefix; yield the address of that."""
    upstream = upstream.rstrip("/")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith(f"{PREFIX}/"):
                self.send_error(404)
                return
            length = int(self.headers.get("content-length", 0))
            body = self.rfile.read(length)
            # The header Host goes on as it is.
            answer = client.request(
                self.command,
                upstream + self.path.removeprefix(PREFIX),
                content=body,
                headers={n: v for n, v in self.headers.items() if n.lower() not in _OWN},
            )
            self.send_response(answer.status_code)
            for name, value in answer.headers.multi_items():
                if name.lower() not in _OWN:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with httpx.Client(
        trust_env=False, timeout=30, headers={"Accept-Encoding": "identity"}
    ) as client:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}{PREFIX}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
