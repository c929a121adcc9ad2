"""The page over HTTP: who is let in, what is answered, and that one visitor's mistake is nobody else's."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Any

import pytest

from demo_pages import LIMITS, encoded, served, smooth_photo
from uniformer_pose.demo_page.answers import PageAnswers
from uniformer_pose.demo_page.server import PageServer
from uniformer_pose.errors import DivergedError, InputError
from uniformer_pose.prediction.estimator import PoseEstimator

PHOTO = smooth_photo()
PHOTO_FILE = encoded(PHOTO)
BOX = [10.0, 10.0, 80.0, 100.0]


@pytest.fixture
def server(answers: PageAnswers) -> Any:
    with served(answers) as running:
        yield running


def connection(server: PageServer) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)


def asked(
    server: PageServer, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    with_dashes = {name.replace("_", "-"): value for name, value in headers.items()}
    client = connection(server)
    try:
        client.request(method, path, body, with_dashes)
        response = client.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    finally:
        client.close()


def posted(server: PageServer, path: str, question: Any) -> dict[str, Any]:
    status, _, body = asked(server, "POST", path, json.dumps(question).encode())
    assert status == 200, body
    return dict(json.loads(body))


def opened(server: PageServer, data: bytes = PHOTO_FILE, name: str = "photo.png") -> dict[str, Any]:
    status, _, body = asked(server, "POST", "/api/pictures", data, X_File_Name=name)
    assert status == 200, body
    return dict(json.loads(body))


def refusal(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, str]:
    status, headers, body = answer
    assert headers["content-type"] == "application/json"
    sentence = json.loads(body)["error"]
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    return status, sentence


def test_a_picture_becomes_poses(server: PageServer, estimator: PoseEstimator) -> None:
    upload = opened(server, name="Gru%C3%9F.png")
    assert (upload["name"], upload["height"], upload["width"], upload["boxes"]) == ("Gruß.png", 120, 160, [])
    answered = posted(server, "/api/poses", {"picture": upload["picture"], "boxes": [BOX], "flip_test": True})
    assert answered["results"][0]["keypoints"] == estimator(PHOTO, [BOX], flip_test=True).to_coco(1)[0]["keypoints"]


def test_heatmaps_previews_and_examples_are_served(server: PageServer) -> None:
    upload = opened(server)
    assert len(posted(server, "/api/heatmaps", {"picture": upload["picture"], "box": BOX})["layers"]) == 17
    for path in (f"/api/pictures/{upload['picture']}/preview", "/api/examples/1/preview"):
        status, headers, body = asked(server, "GET", path)
        assert (status, headers["content-type"], body[:3]) == (200, "image/jpeg", b"\xff\xd8\xff")
    example = posted(server, "/api/examples/1", {})
    assert len(posted(server, "/api/poses", {"picture": example["picture"], "boxes": example["boxes"]})["results"]) > 0


@pytest.mark.parametrize(
    ("path", "content_type", "beginning"),
    [
        ("/", "text/html; charset=utf-8", b"<!doctype html>"),
        ("/?from=bookmark", "text/html; charset=utf-8", b"<!doctype html>"),
        ("/page.css", "text/css; charset=utf-8", b":root"),
        ("/page.js", "text/javascript; charset=utf-8", b"//"),
        ("/geometry.js", "text/javascript; charset=utf-8", b"//"),
    ],
)
def test_the_pages_files_are_served_and_may_load_nothing_from_elsewhere(
    server: PageServer, path: str, content_type: str, beginning: bytes
) -> None:
    status, headers, body = asked(server, "GET", path)
    assert (status, headers["content-type"]) == (200, content_type)
    assert body.startswith(beginning)
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "http" not in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"


def test_the_pages_files_name_no_other_server() -> None:
    for name in ("page.html", "page.css", "page.js", "geometry.js"):
        content = files("uniformer_pose.demo_page").joinpath(name).read_text(encoding="utf-8")
        assert not re.findall(r"""["'(]\s*(?:[a-z]+:)?//[\w.]""", content), name


def test_everything_that_the_page_refers_to_is_served(server: PageServer) -> None:
    page = asked(server, "GET", "/")[2].decode()
    script = asked(server, "GET", "/page.js")[2].decode()
    referred = re.findall(r'(?:href|src)="([\w.]+)"', page) + re.findall(r'from "\./([\w.]+)"', script)
    assert sorted(referred) == ["geometry.js", "page.css", "page.js"]
    assert all(asked(server, "GET", f"/{name}")[0] == 200 for name in referred)


def test_every_element_that_the_script_asks_for_is_on_the_page() -> None:
    folder = files("uniformer_pose.demo_page")
    script = folder.joinpath("page.js").read_text(encoding="utf-8")
    page = folder.joinpath("page.html").read_text(encoding="utf-8")
    wanted = set(re.findall(r'element\("([\w-]+)"\)', script))
    assert len(wanted) > 15
    assert wanted <= set(re.findall(r'id="([\w-]+)"', page))


@pytest.mark.parametrize(
    "path",
    [
        "/server.py",
        "/../server.py",
        "/%2e%2e/server.py",
        "//etc/passwd",
        "/api",
        "/api/pictures/../about",
        "/api/examples/99999/preview",
        "/favicon.ico",
    ],
)
def test_nothing_else_can_be_fetched(server: PageServer, path: str) -> None:
    status, sentence = refusal(asked(server, "GET", path))
    assert status == 404
    assert server.url in sentence


def test_a_question_that_is_not_one_of_the_pages_is_told_so(server: PageServer) -> None:
    assert refusal(asked(server, "POST", "/api/shutdown", b"{}")) == (404, "there is no such question")


def test_an_unknown_picture_is_gone_rather_than_a_mistake(server: PageServer) -> None:
    status, sentence = refusal(
        asked(server, "POST", "/api/poses", json.dumps({"picture": "x", "boxes": [BOX]}).encode())
    )
    assert (status, sentence) == (410, "this picture is no longer held here; open it again")
    assert refusal(asked(server, "GET", "/api/pictures/x/preview"))[0] == 410


def test_a_bad_upload_is_a_sentence_without_the_servers_folders(server: PageServer) -> None:
    status, sentence = refusal(asked(server, "POST", "/api/pictures", b"<html></html>", X_File_Name="cat%2Fdog.jpg"))
    assert status == 400
    assert sentence == "dog.jpg: holds a web page or XML, not an image; fetch the image itself"


@pytest.mark.parametrize("question", [b"", b"{", b"\xff\xfe", b"[" * 90_000, b'"\\ud800"'])
def test_a_question_that_is_no_json_object_is_a_sentence(server: PageServer, question: bytes) -> None:
    status, sentence = refusal(asked(server, "POST", "/api/poses", question))
    assert status == 400
    assert sentence in ("the question is not JSON", "picture: say which; its key came when it was opened")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_none_are_a_sentence(server: PageServer, number: str) -> None:
    key = opened(server)["picture"]
    question = f'{{"picture": "{key}", "boxes": [[0, 0, {number}, 5]]}}'.encode()
    status, sentence = refusal(asked(server, "POST", "/api/poses", question))
    assert status == 400
    assert "finite" in sentence


@pytest.mark.parametrize(("path", "limit"), [("/api/pictures", LIMITS.upload_bytes), ("/api/poses", 100_000)])
def test_what_is_too_large_is_refused_in_words_that_arrive(server: PageServer, path: str, limit: int) -> None:
    status, headers, body = asked(server, "POST", path, bytes(limit + 3_000_000))
    assert status == 413
    assert "larger than 2 MB" in json.loads(body)["error"] or "longer than" in json.loads(body)["error"]
    assert headers["connection"] == "close"


def test_a_body_of_unknown_length_is_refused(server: PageServer) -> None:
    client = connection(server)
    client.request("POST", "/api/pictures", iter([b"abc"]), {"Transfer-Encoding": "chunked"}, encode_chunked=True)
    assert client.getresponse().status == 411
    client.close()


@pytest.mark.parametrize("length", ["-1", "ten", "1_0", "9" * 30])
def test_a_length_that_is_no_number_is_refused(server: PageServer, length: str) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as client:
        client.sendall(f"POST /api/poses HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode())
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100).startswith(b"HTTP/1.1 411 ")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "192.168.0.1", "127.0.0.1.evil.example", "[", ""])
def test_a_page_for_this_machine_only_answers_no_other_name(server: PageServer, host: str) -> None:
    status, sentence = refusal(asked(server, "GET", "/api/about", Host=host))
    assert status == 403
    assert server.url in sentence


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:1", "[::1]:7860"])
def test_this_machines_own_names_are_answered_whatever_the_port(server: PageServer, host: str) -> None:
    assert asked(server, "GET", "/api/about", Host=host)[0] == 200


def test_other_sites_may_not_ask_through_a_visitors_browser(server: PageServer) -> None:
    for origin in ("https://evil.example", "null", "http://localhost:1"):
        status, sentence = refusal(asked(server, "POST", "/api/pictures", PHOTO_FILE, Origin=origin))
        assert (status, sentence) == (403, "questions are taken from this page only, not from other sites")
    assert asked(server, "POST", "/api/pictures", PHOTO_FILE, Origin=server.url.rstrip("/"))[0] == 200


def test_a_page_for_others_answers_to_the_name_they_know_it_by(answers: PageAnswers) -> None:
    with served(answers, host="0.0.0.0") as server:
        assert not server.is_local
        assert asked(server, "GET", "/api/about", Host="studio.example")[0] == 200
        assert server.url == f"http://127.0.0.1:{server.server_port}/"


def test_the_default_is_this_machine_only_and_no_name_is_looked_up(
    answers: PageAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: Any) -> Any:
        raise AssertionError("a name was looked up")

    monkeypatch.setattr(socket, "getfqdn", forbidden)
    monkeypatch.setattr(socket, "gethostbyaddr", forbidden)
    with served(answers) as server:
        assert server.server_address[0] == "127.0.0.1"
        assert asked(server, "GET", "/")[0] == 200


def test_the_page_can_be_at_an_ipv6_address(answers: PageAnswers) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with served(answers, host="::1") as server:
        assert server.url == f"http://[::1]:{server.server_port}/"
        client = http.client.HTTPConnection("::1", server.server_port, timeout=30)
        client.request("GET", "/api/about")
        assert client.getresponse().status == 200
        client.close()


def test_a_port_in_use_is_a_sentence(server: PageServer, answers: PageAnswers) -> None:
    with pytest.raises(InputError, match=f"port={server.server_port}: .*port=0 takes any free port"):
        PageServer(answers, port=server.server_port)


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 70_000), ("127.0.0.1", -1), ("203.0.113.7", 0)])
def test_an_address_that_cannot_be_had_is_a_sentence(answers: PageAnswers, host: str, port: int) -> None:
    with pytest.raises(InputError, match="port"):
        PageServer(answers, host=host, port=port)


def test_a_connection_goes_on_after_a_mistake(server: PageServer) -> None:
    client = connection(server)
    for path, status in (("/nowhere", 404), ("/api/about", 200), ("/api/pictures/x/preview", 410), ("/", 200)):
        client.request("GET", path)
        response = client.getresponse()
        response.read()
        assert response.status == status
    client.request("POST", "/api/poses", b"{}")
    response = client.getresponse()
    response.read()
    assert (response.status, response.headers["Connection"]) == (400, None)
    client.close()


def test_a_visitor_who_hangs_up_half_way_disturbs_nobody(server: PageServer, capfd: pytest.CaptureFixture[str]) -> None:
    for part in (
        b"GET",
        b"POST /api/pictures HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc",
        b"\0\n\n",
    ):
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as client:
            client.sendall(part)
    assert opened(server)["height"] == 120
    assert capfd.readouterr().err == ""


def test_a_mistake_of_the_program_is_a_sentence_here_and_a_traceback_in_the_terminal(
    server: PageServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(_: Any) -> Any:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(server.answers, "poses", broken)
    status, sentence = refusal(asked(server, "POST", "/api/poses", b"{}"))
    assert status == 500
    assert "secret" not in sentence
    assert "RuntimeError: secret detail" in capfd.readouterr().err
    assert asked(server, "GET", "/api/about")[0] == 200


@pytest.mark.parametrize(
    ("error", "status", "told"), [(MemoryError(), 507, "memory"), (DivergedError("NaN; try fp32"), 500, "try fp32")]
)
def test_what_the_machine_or_the_network_cannot_do_is_a_sentence(
    server: PageServer, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, told: str
) -> None:
    def failing(_: Any) -> Any:
        raise error

    monkeypatch.setattr(server.answers, "poses", failing)
    answered = refusal(asked(server, "POST", "/api/poses", b"{}"))
    assert answered[0] == status
    assert told in answered[1]


def test_visitors_at_the_same_time_get_each_their_own_poses(server: PageServer, estimator: PoseEstimator) -> None:
    photos = [smooth_photo(seed=number) for number in range(6)]
    alone = [estimator(photo, [BOX]).to_coco(1)[0]["keypoints"] for photo in photos]

    def visit(number: int) -> list[Any]:
        key = opened(server, encoded(photos[number]))["picture"]
        return [
            posted(server, "/api/poses", {"picture": key, "boxes": [BOX]})["results"][0]["keypoints"] for _ in range(2)
        ]

    with ThreadPoolExecutor(6) as visitors:
        together = list(visitors.map(visit, range(6)))
    assert together == [[keypoints, keypoints] for keypoints in alone]


def test_one_thread_does_all_that_computes(server: PageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set()

    def poses(_: Any) -> dict[str, Any]:
        threads.add(threading.get_ident())
        return {}

    monkeypatch.setattr(server.answers, "poses", poses)
    with ThreadPoolExecutor(4) as visitors:
        list(visitors.map(lambda _: posted(server, "/api/poses", {}), range(8)))
    assert len(threads) == 1
