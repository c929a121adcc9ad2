"""A web server on this machine whose every misbehaviour is scripted."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


@dataclass
class Page:
    """What the server gives at one address."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    etag: str | None = None
    says_length: bool = True
    has_ranges: bool = False  # answers with the part that a request asks for
    statuses: list[int] = field(default_factory=list)  # of the first requests, in place of ``status``
    cuts: list[int] = field(default_factory=list)  # bytes after which the first bodies lose their connection
    seconds_before: float = 0.0  # the answer
    seconds_between: float = 0.0  # its pieces of 64 KiB


class Server:
    """Pages by path, and the requests that came: method and path."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.pages: dict[str, Page] = {}
        self.requests: list[tuple[str, str]] = []

    def serve(self, path: str, page: Page) -> str:
        """From now on ``page`` is at ``path``, whatever query is asked with; the URL."""
        self.pages[unquote(path)] = page
        return self.origin + path


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    class Handler(_Handler):
        pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        Handler.site = Server(f"http://127.0.0.1:{http_server.server_port}")
        thread = threading.Thread(target=http_server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield Handler.site
        http_server.shutdown()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Server

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        self.site.requests.append((self.command, self.path))
        page = self.site.pages.get(unquote(self.path.partition("?")[0]), Page(status=404))
        time.sleep(page.seconds_before)
        status = page.statuses.pop(0) if page.statuses else page.status
        body = page.body if status == page.status else b""
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if page.has_ranges and asked and status == 200:
            status, body = 206, body[int(asked[1]) : int(asked[2]) + 1]
        length = str(len(body)) if page.says_length else None
        self.send_response(status)
        for name, value in {"Connection": "close", "ETag": page.etag, "Content-Length": length, **page.headers}.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        if self.command == "GET":
            cut = page.cuts.pop(0) if page.cuts and status in (200, 206) else None
            with contextlib.suppress(OSError):  # the client went away
                for start in range(0, len(body[:cut]), 2**16):
                    self.wfile.write(body[:cut][start : start + 2**16])
                    time.sleep(page.seconds_between)
