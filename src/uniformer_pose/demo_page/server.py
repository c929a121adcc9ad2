"""The page over HTTP, from Python's own server: it is for this machine, and needs neither a framework nor a network.

Every connection has a thread; one more thread does all that computes, in the order of the questions, so that several
visitors share the processor and the memory rather than fight for them. Nothing that a visitor sends is kept on disk,
and no answer allows a browser to load anything from elsewhere.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import socket
import socketserver
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import unquote, urlsplit

from uniformer_pose.demo_page.answers import PageAnswers
from uniformer_pose.demo_page.shelf import PictureGoneError
from uniformer_pose.errors import DivergedError, InputError

_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/geometry.js": ("geometry.js", "text/javascript; charset=utf-8"),
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_QUESTION_BYTES = 100_000  # of JSON
_BODIES_AT_ONCE = 8
_SECONDS_FOR_A_PLACE = 60.0
_SECONDS_FOR_A_BODY = 120.0
_SECONDS_OF_SILENCE = 30.0
_PIECE = 1 << 20


@dataclass(frozen=True)
class Answer:
    """What goes back to the browser."""

    body: bytes
    content_type: str = "application/json"
    status: HTTPStatus = HTTPStatus.OK


class _RefusedError(Exception):
    """A request that is no question to the page; the sentence goes back with ``status``."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class PageServer(ThreadingHTTPServer):
    """Serves the page until ``shutdown``; ``url`` is where, also with ``port`` 0, which takes any free one.

    On a loopback address only requests that a browser addressed to this machine are answered, so that no web site can
    reach the page through a name of its own that leads here. Raises InputError where it cannot listen.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, answers: PageAnswers, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.answers = answers
        self.is_local = _is_loopback(host)
        self.bodies = threading.BoundedSemaphore(_BODIES_AT_ONCE)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="poses")
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        if not 0 <= port <= 65535:
            raise InputError(f"port={port}: give a number up to 65535; 0 takes any free port")
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(f"host={host} port={port}: {reason}; port=0 takes any free port") from error

    def server_bind(self) -> None:
        """Bind without the look-up of a host name that ``HTTPServer`` does, which may go over the network."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of browsers that hang up; anything else is a fault of ours."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def server_close(self) -> None:
        """Stop listening, and drop the questions that wait."""
        super().server_close()
        self._worker.shutdown(wait=False, cancel_futures=True)

    @property
    def url(self) -> str:
        """The address to type into a browser on this machine."""
        host = str(self.server_name)
        with contextlib.suppress(ValueError):
            if ipaddress.ip_address(host).is_unspecified:
                host = "::1" if ":" in host else "127.0.0.1"
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/"

    def compute(self, work: Callable[[], Any]) -> Any:
        """The result of ``work``, done in the one thread that computes."""
        return self._worker.submit(work).result()


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    protocol_version = "HTTP/1.1"
    server_version = "uniformer-pose"
    sys_version = ""
    timeout = _SECONDS_OF_SILENCE

    def do_GET(self) -> None:
        self._send(self._answered(self._get))

    def do_POST(self) -> None:
        self._send(self._answered(self._post))

    def log_message(self, *_: Any) -> None:
        """Log nothing: what visitors look at is theirs."""

    def _answered(self, handle: Callable[[str], Answer]) -> Answer:
        """The answer to this request; whatever goes wrong becomes a sentence."""
        self._unread = _length(self.headers.get("Content-Length"))
        try:
            self._check_sender()
            return handle(urlsplit(self.path).path)
        except _RefusedError as error:
            return _sentence(error.status, str(error))
        except PictureGoneError as error:
            return _sentence(HTTPStatus.GONE, str(error))
        except InputError as error:
            return _sentence(HTTPStatus.BAD_REQUEST, str(error))
        except DivergedError as error:
            return _sentence(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        except MemoryError:
            return _sentence(HTTPStatus.INSUFFICIENT_STORAGE, "there is not enough memory for this; make it smaller")
        except OSError:
            raise  # of the connection: there is nobody to answer
        except Exception:
            traceback.print_exc()
            return _sentence(
                HTTPStatus.INTERNAL_SERVER_ERROR, "the program made a mistake; the terminal it runs in says where"
            )

    def _check_sender(self) -> None:
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if self.server.is_local and not _is_loopback(_hostname(host)):
            raise _RefusedError(HTTPStatus.FORBIDDEN, f"this page is for this machine only: open {self.server.url}")
        if origin is not None and urlsplit(origin).netloc != host:
            raise _RefusedError(HTTPStatus.FORBIDDEN, "questions are taken from this page only, not from other sites")

    def _get(self, path: str) -> Answer:
        answers = self.server.answers
        if path in _FILES:
            name, content_type = _FILES[path]
            return Answer(files(__package__).joinpath(name).read_bytes(), content_type)
        if path == "/api/about":
            return _json(answers.about())
        if found := re.fullmatch(r"/api/examples/(\d{1,4})/preview", path):
            return Answer(answers.example_preview(int(found[1])), "image/jpeg")
        if found := re.fullmatch(r"/api/pictures/([\w-]{1,64})/preview", path):
            return Answer(answers.preview(found[1]), "image/jpeg")
        raise _RefusedError(HTTPStatus.NOT_FOUND, f"there is nothing at this address; the page is {self.server.url}")

    def _post(self, path: str) -> Answer:
        answers, compute = self.server.answers, self.server.compute
        if path == "/api/pictures":
            limit = answers.limits.upload_bytes
            with self._body(limit, f"the picture is larger than {limit / 1e6:g} MB; make it smaller first") as data:
                name = unquote(self.headers.get("X-File-Name", ""))
                return _json(compute(lambda: answers.open_upload(name, data)))
        questions = {"/api/poses": answers.poses, "/api/detect": answers.detect, "/api/heatmaps": answers.heatmaps}
        opened = re.fullmatch(r"/api/examples/(\d{1,4})", path)
        if opened is None and path not in questions:
            raise _RefusedError(HTTPStatus.NOT_FOUND, "there is no such question")
        with self._body(_QUESTION_BYTES, f"the question is longer than {_QUESTION_BYTES} bytes") as data:
            if opened is not None:
                return _json(compute(lambda: answers.open_example(int(opened[1]))))
            try:
                question = json.loads(data)
            except (ValueError, RecursionError):
                raise _RefusedError(HTTPStatus.BAD_REQUEST, "the question is not JSON") from None
            return _json(compute(lambda: questions[path](question)))

    @contextlib.contextmanager
    def _body(self, limit: int, sentence: str) -> Any:
        """The body of the request; few of them are in memory at once."""
        length = self._unread
        if length is None or self.headers.get("Transfer-Encoding") is not None:
            raise _RefusedError(HTTPStatus.LENGTH_REQUIRED, "say how long the request is (Content-Length)")
        if length > limit:
            raise _RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence)
        if not self.server.bodies.acquire(timeout=_SECONDS_FOR_A_PLACE):
            raise _RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "too many visitors at once; try again in a minute")
        try:
            yield self._read(length)
        finally:
            self.server.bodies.release()

    def _read(self, length: int) -> bytes:
        body = bytearray()
        end = time.monotonic() + _SECONDS_FOR_A_BODY
        while len(body) < length:
            piece = self.rfile.read1(min(_PIECE, length - len(body)))
            if not piece or time.monotonic() > end:
                raise ConnectionError("the request ended early")
            body += piece
            self._unread = length - len(body)
        return bytes(body)

    def _send(self, answer: Answer) -> None:
        # A body that was not read would be taken for the next request.
        closing = self._unread != 0 or self.headers.get("Transfer-Encoding") is not None
        self.send_response(answer.status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        if closing:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer.body)
        if closing:
            self._let_it_finish()

    def _let_it_finish(self) -> None:
        """Read on for a while: browsers drop an answer that comes while they still send, if the connection closes."""
        self.wfile.flush()
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(2.0)
            end = time.monotonic() + 20.0
            while time.monotonic() < end and self.rfile.read1(_PIECE):
                pass


def _json(content: Any) -> Answer:
    return Answer(json.dumps(content, allow_nan=False).encode())


def _sentence(status: HTTPStatus, sentence: str) -> Answer:
    return Answer(json.dumps({"error": sentence}).encode(), status=status)


def _length(header: str | None) -> int | None:
    """The length of a request's body: 0 without a header, None for one that makes no sense."""
    if header is None:
        return 0
    return int(header) if re.fullmatch(r"[0-9]{1,18}", header) else None


def _hostname(host_header: str) -> str:
    try:
        return urlsplit(f"//{host_header}").hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
