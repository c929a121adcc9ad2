"""What a user names weights by becomes one whole file in one place, or one line that says why not."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import pytest

from loopback_server import Page, Server
from uniformer_pose.cache import cache_folder
from uniformer_pose.errors import InputError
from uniformer_pose.weights import fetch
from uniformer_pose.weights.fetch import download, local_file
from uniformer_pose.weights.zoo import digest_in_name

CONTENT = random.Random(0).randbytes(400_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PROGRAM = "import sys; from uniformer_pose.weights.fetch import download; print(download(sys.argv[1]))"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_RETRY", fetch._RETRY.new(backoff_factor=0))


def error_of(address: str | Path) -> str:
    with pytest.raises(InputError) as caught:
        local_file(address)
    line = str(caught.value)
    assert line.isprintable()
    return line


def kept() -> set[str]:
    return {file.name for file in cache_folder().glob("*/*")}


def test_a_path_is_taken_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "run=3 (best) @home.ckpt"
    file.write_bytes(CONTENT)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_file(file) == local_file(str(file)) == local_file(f"~/{file.name}") == file
    (tmp_path / "model.safetensors").write_bytes(CONTENT)
    assert local_file(tmp_path) == tmp_path / "model.safetensors"


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("", "give a path, https://"),
        ("{here}/uniformer_smal_in1k.pth", "no such file: {here}/uniformer_smal_in1k.pth; did you mean {here}/unif"),
        ("~nobody-of-that-name/a.pth", "cannot be read"),
        ("x" * 5000, "cannot be read"),
        ("s3://bucket/a.pth", "give a path, https://"),
        ("http://example.org/a.pth", "only https:// is fetched from"),
        ("http://localhost.example.org/a.pth", "only https:// is fetched from"),
        ("https://host:port/a.pth", "no web address"),
        (r"http://127.0.0.1\@example.org/a.pth", "no web address"),
        ("https://example.org/a.pth#sha265=01234567", "only #sha256="),
        ("https://example.org/a.pth#sha256=0123456", "only #sha256="),
        ("zoo:uniformer_s_coco_256x193", "did you mean uniformer_s_coco_256x192?"),
    ],
)
def test_what_cannot_be_a_file_is_one_line(tmp_path: Path, address: str, told: str) -> None:
    (tmp_path / "uniformer_small_in1k.pth").touch()
    assert told.replace("{here}", str(tmp_path)) in error_of(address.replace("{here}", str(tmp_path)))


def test_a_file_is_fetched_once_and_lies_in_the_cache(server: Server, cache: Path) -> None:
    url = server.serve("/folder/a.pth", Page(CONTENT))
    path = local_file(f" {url.replace('http', 'HTTP')} ")
    assert path.read_bytes() == CONTENT
    assert path.parent.parent == cache
    assert kept() == {"a.pth", "a.pth.lock"}
    assert download(url) == download(url.replace("//", "//me:word@")) == path
    assert len(server.requests) == 1
    assert download(f"{url}?signature=1") != path  # the query belongs to the address, the login does not


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/..%2f..%2fetc%2fpasswd", "passwd"),
        ("/..%5c..%5cboot.ini", "boot.ini"),
        ("/a%00b%0ac%20d.pth", "a_b_c_d.pth"),
        ("/" + "x" * 1000 + "-d4a7fdac_20230724.pth", "x" * 98 + "-d4a7fdac_20230724.pth"),
    ],
)
def test_the_name_of_a_file_is_that_of_the_address_made_harmless(server: Server, path: str, name: str) -> None:
    headers = {"Content-Disposition": 'attachment; filename="../../evil.pth"'}
    assert download(server.serve(path, Page(CONTENT, headers=headers))).name == name


def test_a_cache_that_cannot_be_written_serves_what_it_holds_and_else_is_one_line(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    url, other = server.serve("/a.pth", Page(CONTENT)), server.serve("/b.pth", Page(CONTENT))
    path = download(url)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert "No space left on device); set UNIFORMER_POSE_CACHE" in error_of(other)
    assert kept() == {"a.pth", "a.pth.lock", "b.pth.lock"}
    monkeypatch.setattr(Path, "mkdir", full)
    assert download(url) == path
    assert "set UNIFORMER_POSE_CACHE" in error_of(other)


def test_of_several_processes_one_downloads_and_the_others_wait(server: Server) -> None:
    url = server.serve("/a.pth", Page(CONTENT, seconds_before=1.5))
    processes = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, url], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    assert {Path(p.communicate(timeout=30)[0].strip()).read_bytes() for p in processes} == {CONTENT}
    assert len(server.requests) == 1


def test_a_killed_download_leaves_no_file_that_is_taken_for_whole(server: Server, cache: Path) -> None:
    page = Page(CONTENT, seconds_between=1.0)
    url = server.serve("/a.pth", page)
    with subprocess.Popen([sys.executable, "-c", PROGRAM, url], stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 20
        while not any(part.stat().st_size for part in cache.glob("*/*.part")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    assert "a.pth" not in kept()
    page.seconds_between = 0.0
    assert download(url).read_bytes() == CONTENT
    assert kept() == {"a.pth", "a.pth.lock"}


@pytest.mark.parametrize(
    ("name", "digits"),
    [
        ("top_down_256x192_global_base-12345678_20230724.pth", "12345678"),
        ("resnet18-f37072fd.pth", "f37072fd"),
        ("model-20230724.pth", None),
        ("model-d4a7fdac-final.pth", None),
    ],
)
def test_a_digest_in_a_file_name_is_told_from_dates_and_counts(name: str, digits: str | None) -> None:
    assert digest_in_name(name) == digits


def test_a_stated_digest_is_held_to_wherever_it_stands_and_a_wrong_file_is_not_kept(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.serve("/best-3f2a9c1d.pth", Page(CONTENT))
    files = {"good": (url, SHA256[:8]), "bad": (url, "01234567")}
    monkeypatch.setattr(fetch, "released_address", files.__getitem__)
    for wrong in (f"{url}#sha256=01234567", "zoo:bad"):
        assert f"sha256 {SHA256}, expected 01234567" in error_of(wrong)
        assert kept() == {"best-3f2a9c1d.pth.lock"}
    path = download(f"{url}#sha256={SHA256.upper()}")
    assert path == local_file("zoo:good") == download(url)  # anybody may write such a name
    path.write_bytes(CONTENT[:-1])
    assert download(url, SHA256).read_bytes() == CONTENT  # fetched again
    monkeypatch.setattr(fetch, "_HOSTS_WITH_DIGESTS", ("127.0.0.1",))
    assert "expected 3f2a9c1d" in error_of(f"{url}?2")


@pytest.mark.parametrize(
    ("page", "requests"),
    [
        (Page(CONTENT, statuses=[503, 500, 429]), 4),
        (Page(CONTENT, says_length=False), 1),
        (Page(CONTENT, statuses=[503], headers={"Retry-After": "0"}), 2),
    ],
)
def test_a_server_in_trouble_is_asked_again(server: Server, page: Page, requests: int) -> None:
    assert download(server.serve("/a.pth", page)).read_bytes() == CONTENT
    assert len(server.requests) == requests


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (Page(status=404), "the server answers HTTP 404 Not Found"),
        (Page(CONTENT, status=206), "the server answers HTTP 206"),
        (Page(status=502), "the server answers HTTP 502"),
        (Page(b""), "what came is empty"),
        (Page(b"x", headers={"Content-Type": "text/html; charset=utf-8"}), "the server answers with a web page"),
        (Page(CONTENT, cuts=[9]), "cannot be reached, or the connection broke (ChunkedEncodingError)"),
        (Page(status=302, headers={"Location": "/secret/a.pth"}), "cannot be reached"),
    ],
)
def test_an_answer_that_is_no_file_is_one_line_without_secrets_and_leaves_nothing(
    server: Server, page: Page, reason: str
) -> None:
    url = server.serve("/secret/a.pth", page)
    line = error_of(f"{url.replace('//', '//me:word@')}?token=12345")
    assert line.startswith(f"{url}?...: {reason}")
    assert kept() == {"a.pth.lock"}


def test_a_redirection_is_followed_and_the_name_stays_that_of_the_address(server: Server) -> None:
    server.serve("/elsewhere/b.bin", Page(CONTENT))
    path = download(server.serve("/a.pth", Page(status=302, headers={"Location": "/elsewhere/b.bin?signature=1"})))
    assert (path.name, path.read_bytes()) == ("a.pth", CONTENT)


@pytest.mark.parametrize("target", ["http://example.org/b.pth?key=12345", "file:///etc/x"])
def test_a_redirection_to_an_insecure_address_is_refused(server: Server, target: str) -> None:
    line = error_of(server.serve("/a.pth", Page(status=302, headers={"Location": target})))
    assert "example.org/b.pth" in line or "no web address" in line
    assert "12345" not in line


def test_a_server_that_is_unknown_absent_silent_or_without_tls_is_one_line_without_secrets(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "(ConnectionError)" in error_of(f"http://127.0.0.1:{port}/a.pth")
    url = server.serve("/a.pth", Page(CONTENT, seconds_before=0.3))
    assert "(SSLError)" in error_of(url.replace("http:", "https:"))
    monkeypatch.setattr(fetch, "_TIMEOUTS", (5.0, 0.05))
    assert "cannot be reached" in error_of(url)
    line = error_of("https://me:word@weights.invalid/a.pth?token=12345")
    assert line.startswith("https://weights.invalid/a.pth?...: cannot be reached")


def test_the_proxy_of_the_surroundings_is_asked_for_other_machines_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert download(server.serve("/a.pth", Page(CONTENT))).read_bytes() == CONTENT
    assert "(ProxyError)" in error_of("https://example.org/a.pth")


def test_offline_the_cache_is_used_and_nothing_is_asked_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url, other = server.serve("/a.pth", Page(CONTENT)), server.serve("/b.pth", Page(CONTENT))
    path = download(url)
    monkeypatch.setenv("UNIFORMER_POSE_OFFLINE", "1")
    assert download(url) == path
    assert "not in the cache" in error_of(other)
    assert len(server.requests) == 1
