"""A web server on this machine whose every misbehaviour is scripted."""

from __future__ import annotations

import contextlib
import gzip
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


@dataclass
class Page:
    """What the server gives at one address."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    etag: str | None = '"first"'
    ranges: bool = True  # whether Range is answered with a part,
    most_of_range: int | None = None  # of at most so many bytes
    heeds_if_range: bool = True  # and only if the version is the one that If-Range names
    says_length: bool = True
    chunked: bool = False
    zipped: bool = False  # compressed, asked for or not
    statuses: list[int] = field(default_factory=list)  # of the first requests, in place of ``status``
    cuts: list[int] = field(default_factory=list)  # bytes after which the first bodies lose their connection
    seconds_before: float = 0.0  # the answer
    seconds_between: float = 0.0  # its pieces of 64 KiB


class Server:
    """Pages by path, and the requests that came: method, path, headers."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.pages: dict[str, Page] = {}
        self.requests: list[tuple[str, str, Message]] = []

    def serve(self, path: str, page: Page) -> str:
        """From now on ``page`` is at ``path``, whatever query is asked with; the URL."""
        self.pages[unquote(path)] = page
        return self.origin + path

    @property
    def ranges(self) -> list[str | None]:
        """The Range header of each GET so far."""
        return [headers["Range"] for method, _, headers in self.requests if method == "GET"]


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
        self.site.requests.append((self.command, self.path, self.headers))
        page = self.site.pages.get(unquote(self.path.partition("?")[0]), Page(status=404, etag=None))
        time.sleep(page.seconds_before)
        status = page.statuses.pop(0) if page.statuses else page.status
        whole = gzip.compress(page.body) if page.zipped else page.body
        body = whole if status == page.status else b""
        content_range = None
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        same = self.headers["If-Range"] in (None, page.etag, page.headers.get("Last-Modified"))
        if asked and page.ranges and status == 200 and (same or not page.heeds_if_range):
            start, end = int(asked[1]), len(whole)
            status, body = (206, body[start:]) if start < end else (416, b"")
            body = body[: page.most_of_range]
            content_range = f"bytes {start}-{start + len(body) - 1}/{end}" if body else f"bytes */{end}"
        headers = {
            "Connection": "close",
            "ETag": page.etag,
            "Content-Range": content_range,
            "Content-Encoding": "gzip" if page.zipped else None,
            "Content-Length": str(len(body)) if page.says_length and not page.chunked else None,
            "Transfer-Encoding": "chunked" if page.chunked else None,
            **page.headers,
        }
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        if self.command == "GET":
            cut = page.cuts.pop(0) if page.cuts and status in (200, 206) else None
            with contextlib.suppress(OSError):  # the client went away
                self._send(page, body[:cut], whole=cut is None)

    def _send(self, page: Page, body: bytes, *, whole: bool) -> None:
        for start in range(0, len(body), 2**16):
            piece = body[start : start + 2**16]
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" if page.chunked else piece)
            time.sleep(page.seconds_between)
        if page.chunked and whole:
            self.wfile.write(b"0\r\n\r\n")
