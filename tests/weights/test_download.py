from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import requests

from loopback_server import Page, Server
from uniformer_pose.errors import InputError
from uniformer_pose.weights import download_progress, transfer
from uniformer_pose.weights.download import cache_folder, download

CONTENT = random.Random(0).randbytes(400_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = random.Random(1).randbytes(400_000)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_PAUSES", (0.0, 0.0, 0.0, 0.0))


def error_of(url: str, **arguments: Any) -> str:
    with pytest.raises(InputError) as caught:
        download(url, **arguments)
    line = str(caught.value)
    assert line.isprintable()
    return line


def leave_part(url: str, content: bytes, version: dict[str, str] | None = None) -> Path:
    """What an interrupted download of ``url`` leaves; where the file will be."""
    path = cache_folder() / hashlib.sha256(url.encode()).hexdigest()[:16] / url.rpartition("/")[2]
    path.parent.mkdir(parents=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    if version is not None:
        part.with_name(part.name + ".json").write_text(json.dumps(version))
    return path


def names_beside(path: Path) -> set[str]:
    return {file.name for file in path.parent.iterdir()}


# -- the cache --------------------------------------------------------------------------------------------------------


def test_a_file_is_fetched_once_and_lies_in_the_cache_with_its_digest(server: Server, cache: Path) -> None:
    url = server.serve("/folder/a.pth", Page(CONTENT))
    path = download(url)
    assert path.read_bytes() == CONTENT
    assert path.parent.parent == cache
    assert names_beside(path) == {"a.pth", "a.pth.sha256", "a.pth.lock"}
    assert path.with_name("a.pth.sha256").read_text() == f"{SHA256}\n"
    assert download(url) == path
    assert len(server.requests) == 1


def test_two_addresses_with_the_same_file_name_are_two_files(server: Server) -> None:
    first = download(server.serve("/first/a.pth", Page(CONTENT)))
    second = download(server.serve("/second/a.pth", Page(OTHER)))
    assert (first.read_bytes(), second.read_bytes()) == (CONTENT, OTHER)


def test_the_query_belongs_to_the_address_and_the_login_does_not(server: Server) -> None:
    url = server.serve("/a.pth", Page(CONTENT))
    plain = download(url)
    assert download(url.replace("//", "//me:word@")) == plain
    assert download(f"{url}?version=2") != plain


def test_the_name_in_the_cache_can_be_given_and_cannot_leave_it(server: Server, cache: Path) -> None:
    path = download(server.serve("/get", Page(CONTENT)), file_name="../../other/b.pth", cache=cache / "mine")
    assert path.parent.parent == cache / "mine"
    assert path.name == "b.pth"


def test_a_name_proposed_by_the_server_is_ignored(server: Server) -> None:
    headers = {"Content-Disposition": 'attachment; filename="../../evil.pth"'}
    assert download(server.serve("/..%2f..%2fa.pth", Page(CONTENT, headers=headers))).name == "a.pth"


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"UNIFORMER_POSE_CACHE": "/own", "XDG_CACHE_HOME": "/xdg", "HOME": "/home/me"}, "/own"),
        ({"UNIFORMER_POSE_CACHE": "~/own", "HOME": "/home/me"}, "/home/me/own"),
        ({"XDG_CACHE_HOME": "/xdg", "HOME": "/home/me"}, "/xdg/uniformer_pose"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/home/me"}, "/home/me/.cache/uniformer_pose"),
        ({"HOME": "/home/me"}, "/home/me/.cache/uniformer_pose"),
    ],
)
def test_the_cache_is_where_the_user_keeps_caches(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str
) -> None:
    monkeypatch.delenv("UNIFORMER_POSE_CACHE")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder)


def test_a_damaged_file_in_the_cache_is_noticed_and_fetched_anew(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    url = server.serve("/a.pth", Page(CONTENT))
    path = download(url)
    path.write_bytes(CONTENT[:-1] + b"!")
    assert download(url) == path
    assert path.read_bytes() == CONTENT
    assert f"{path}: is damaged" in capsys.readouterr().err


def test_a_file_without_a_record_of_its_digest_is_fetched_anew(server: Server) -> None:
    url = server.serve("/a.pth", Page(CONTENT))
    path = download(url)
    path.write_bytes(OTHER)
    path.with_name("a.pth.sha256").unlink()
    assert download(url).read_bytes() == CONTENT


def test_a_file_in_the_cache_that_is_not_the_one_asked_for_is_fetched_anew(server: Server) -> None:
    url = server.serve("/a.pth", Page(OTHER))
    download(url)
    server.serve("/a.pth", Page(CONTENT))
    assert download(url, sha256=SHA256).read_bytes() == CONTENT


def test_a_cache_that_can_only_be_read_serves_what_it_holds(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.serve("/a.pth", Page(CONTENT))
    path = download(url)

    def read_only(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for function in ("mkdir", "write_text", "write_bytes", "replace", "unlink", "touch"):
        monkeypatch.setattr(Path, function, read_only)
    assert download(url) == path


def test_a_cache_that_is_no_folder_is_one_line(server: Server, cache: Path) -> None:
    cache.write_text("")
    line = error_of(server.serve("/a.pth", Page(CONTENT)))
    assert line.startswith(f"{cache}")
    assert "(not a directory); set UNIFORMER_POSE_CACHE to a folder of your own" in line


def test_a_full_disk_is_one_line_and_what_arrived_is_kept(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    url = server.serve("/a.pth", Page(CONTENT))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert "no space left; free some, or set UNIFORMER_POSE_CACHE" in error_of(url, sha256=SHA256)
    assert download(url, sha256=SHA256).read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_a_file_larger_than_the_disk_is_refused_before_it_is_fetched(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: SimpleNamespace(free=100_000))
    line = error_of(server.serve("/a.pth", Page(CONTENT)))
    assert "0.4 MB are needed" in line
    assert "0.1 MB are free" in line


# -- the digest -------------------------------------------------------------------------------------------------------


def test_a_wrong_digest_is_one_line_with_both_and_nothing_is_kept(server: Server) -> None:
    url = server.serve("/model.pth", Page(CONTENT))
    line = error_of(f"{url}#sha256=01234567")
    assert line.startswith(f"{url}: its sha256 is {SHA256}, expected 01234567 from the end of the address; ")
    assert line.endswith("download the file by hand and give its path")
    folder = next(cache_folder().iterdir())
    assert {file.name for file in folder.iterdir()} == {"model.pth.lock"}


@pytest.mark.parametrize("name", ["best-3f2a9c1d.pth", "last-deadbeef01_20240101.pth", "run-3f2a9c1d_20261129.pth"])
def test_the_commit_of_a_training_in_a_name_is_no_digest(server: Server, name: str) -> None:
    assert download(server.serve(f"/{name}", Page(CONTENT))).read_bytes() == CONTENT


def test_the_digest_behind_the_address_is_held_to(server: Server) -> None:
    url = server.serve("/a.pth", Page(CONTENT))
    assert "expected 01234567 from the end of the address" in error_of(f"{url}#sha256=01234567")
    assert download(f"{url}#sha256={SHA256}") == download(url)


# -- interruptions ----------------------------------------------------------------------------------------------------


def test_a_lost_connection_is_continued_where_it_broke(server: Server) -> None:
    url = server.serve("/a.pth", Page(CONTENT, cuts=[150_000, 150_000]))
    assert download(url).read_bytes() == CONTENT
    first, second, third = server.ranges
    assert first is None
    assert [headers["If-Range"] for _, _, headers in server.requests] == [None, '"first"', '"first"']
    starts = [int(str(asked).removeprefix("bytes=").removesuffix("-")) for asked in (second, third)]
    assert 150_000 - 2**16 <= starts[0] <= 150_000
    assert starts[0] < starts[1] <= starts[0] + 150_000


def test_a_server_that_knows_no_ranges_sends_the_whole_again(server: Server) -> None:
    url = server.serve("/a.pth", Page(CONTENT, cuts=[200_000], ranges=False))
    assert download(url).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_a_server_that_answers_with_less_than_the_rest_is_asked_for_more(server: Server) -> None:
    url = server.serve("/a.pth", Page(CONTENT, most_of_range=150_000))
    leave_part(url, CONTENT[:100_000], {"etag": '"first"'})
    assert download(url).read_bytes() == CONTENT
    assert server.ranges == ["bytes=100000-", "bytes=250000-"]


@pytest.mark.parametrize("heeds_if_range", [True, False])
def test_a_file_that_changed_meanwhile_is_fetched_from_its_beginning(server: Server, heeds_if_range: bool) -> None:
    page = Page(CONTENT, etag='"second"', heeds_if_range=heeds_if_range)
    url = server.serve("/a.pth", page)
    leave_part(url, OTHER[:200_000], {"etag": '"first"', "length": "400000"})
    assert download(url).read_bytes() == CONTENT


def test_a_file_whose_length_changed_without_a_new_etag_is_fetched_from_its_beginning(server: Server) -> None:
    url = server.serve("/a.pth", Page(CONTENT))
    leave_part(url, OTHER[:200_000], {"etag": '"first"', "length": "500000"})
    assert download(url).read_bytes() == CONTENT
    assert server.ranges == ["bytes=200000-", None]


def test_a_file_with_another_date_is_fetched_from_its_beginning_by_a_server_that_only_sends_dates(
    server: Server,
) -> None:
    headers = {"Last-Modified": "Tue, 25 Jul 2023 10:00:00 GMT"}
    url = server.serve("/a.pth", Page(CONTENT, etag=None, headers=headers, heeds_if_range=False))
    leave_part(url, OTHER[:200_000], {"last_modified": "Mon, 24 Jul 2023 10:00:00 GMT"})
    assert download(url).read_bytes() == CONTENT
    assert server.ranges == ["bytes=200000-", None]


def test_a_part_longer_than_the_file_is_discarded(server: Server) -> None:
    url = server.serve("/a.pth", Page(CONTENT))
    leave_part(url, CONTENT + b"more", {"etag": '"first"', "length": "400000"})
    assert download(url).read_bytes() == CONTENT
    assert server.ranges == ["bytes=400004-", None]


def test_a_part_that_is_already_whole_needs_no_request_where_the_digest_is_known(server: Server) -> None:
    url = server.serve("/a.pth", Page(CONTENT))
    leave_part(url, CONTENT)
    assert download(url, sha256=SHA256).read_bytes() == CONTENT
    assert server.requests == []


@pytest.mark.parametrize("version", [None, {}, {"etag": 'W/"first"'}, {"etag": "bad\r\nheader"}])
def test_a_part_of_an_unknown_version_is_not_continued(server: Server, version: dict[str, str] | None) -> None:
    url = server.serve("/a.pth", Page(CONTENT))
    leave_part(url, OTHER[:200_000], version)
    assert download(url).read_bytes() == CONTENT
    assert server.ranges == [None]


def test_a_part_of_an_unknown_version_is_continued_where_the_digest_will_tell(server: Server) -> None:
    url = server.serve("/a.pth", Page(CONTENT))
    leave_part(url, CONTENT[:200_000])
    assert download(url, sha256=SHA256[:8]).read_bytes() == CONTENT
    assert server.ranges == ["bytes=200000-"]


def test_a_part_that_does_not_fit_the_rest_is_fetched_whole(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    url = server.serve("/a.pth", Page(CONTENT))
    leave_part(url, OTHER[:200_000], {"etag": '"first"'})
    assert download(url, sha256=SHA256).read_bytes() == CONTENT
    assert server.ranges == ["bytes=200000-", None]
    assert "what an earlier download left does not fit the rest" in capsys.readouterr().err


def test_a_date_identifies_a_version_where_there_is_no_etag(server: Server) -> None:
    date = "Mon, 24 Jul 2023 10:00:00 GMT"
    page = Page(CONTENT, etag=None, headers={"Last-Modified": date}, cuts=[200_000])
    assert download(server.serve("/a.pth", page)).read_bytes() == CONTENT
    assert server.requests[1][2]["If-Range"] == date


def test_a_record_of_the_version_that_is_damaged_is_as_good_as_none(server: Server) -> None:
    url = server.serve("/a.pth", Page(CONTENT))
    path = leave_part(url, OTHER[:200_000])
    path.with_name("a.pth.part.json").write_text('["etag"')
    assert download(url).read_bytes() == CONTENT


@pytest.mark.parametrize("seed", range(40))
def test_whatever_was_left_and_whatever_the_server_does_the_file_ends_right(server: Server, seed: int) -> None:
    draw = random.Random(seed)
    chunked = draw.random() < 0.3
    page = Page(
        CONTENT,
        ranges=draw.random() < 0.7,
        heeds_if_range=draw.random() < 0.7,
        chunked=chunked,
        zipped=draw.random() < 0.2,
        cuts=[draw.randrange(400_000) for _ in range(draw.randrange(4))],
        statuses=draw.choice([[], [503], [200, 500]]),
    )
    url = server.serve("/a.pth", page)
    length = {"length": "400000"}
    left = draw.choice([None, (CONTENT, '"first"'), (OTHER, '"other"'), (CONTENT + OTHER, '"first"'), (OTHER, None)])
    if left is not None:
        content, etag = left
        leave_part(
            url, content[: draw.randrange(500_000)], draw.choice([length, {}]) | ({"etag": etag} if etag else {})
        )
    path = download(url, sha256=draw.choice([None, SHA256[:8]]))
    assert path.read_bytes() == CONTENT
    assert names_beside(path) == {"a.pth", "a.pth.sha256", "a.pth.lock"}


def test_after_many_tries_the_line_says_what_arrived_and_the_next_call_goes_on(server: Server) -> None:
    page = Page(CONTENT, cuts=[150_000, 0, 0, 0, 0])
    url = server.serve("/a.pth", page)
    line = error_of(url)
    found = re.search(r"the connection was closed, 5 times; (0\.\d) MB of 0\.4 MB arrived and are kept", line)
    assert found is not None
    assert found[1] == "0.1"
    assert "the same command continues there" in line
    assert len(server.requests) == 5
    assert download(url).read_bytes() == CONTENT
    assert str(server.ranges[-1]) == f"bytes={2 * 2**16}-"


def test_a_try_that_brings_much_is_not_counted(server: Server) -> None:
    content = random.Random(2).randbytes(9 * 2**20)
    url = server.serve("/a.pth", Page(content, cuts=[2**20 + 2**17] * 7))
    assert download(url).read_bytes() == content
    assert len(server.requests) == 8


def test_a_busy_server_is_asked_again(server: Server) -> None:
    url = server.serve("/a.pth", Page(CONTENT, statuses=[503, 500, 429]))
    assert download(url).read_bytes() == CONTENT
    assert len(server.requests) == 4


def test_a_server_that_asks_for_patience_gets_it(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(transfer.time, "sleep", slept.append)
    page = Page(CONTENT, statuses=[429, 503], headers={"Retry-After": "7"})
    download(server.serve("/a.pth", page))
    assert [seconds for seconds in slept if seconds] == [7.0, 7.0]


def test_a_server_that_stays_broken_is_one_line(server: Server) -> None:
    line = error_of(server.serve("/a.pth", Page(status=502)))
    assert "the server answers HTTP 502, 5 times; try again later" in line


def test_a_server_that_falls_silent_is_left_after_a_while(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_TIMEOUTS", (5.0, 0.05))
    line = error_of(server.serve("/a.pth", Page(CONTENT, seconds_before=0.3)))
    assert "nothing came for 0.05 s, 5 times; try again later" in line


def test_a_server_that_stops_half_way_is_continued(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(CONTENT, seconds_between=0.3)
    url = server.serve("/a.pth", page)
    monkeypatch.setattr(transfer, "_TIMEOUTS", (5.0, 0.05))
    assert "nothing came for 0.05 s" in error_of(url)
    monkeypatch.setattr(transfer, "_TIMEOUTS", (5.0, 5.0))
    page.seconds_between = 0.0
    assert download(url).read_bytes() == CONTENT
    assert server.ranges[-1] is not None


_DOWNLOAD = "import sys; from uniformer_pose.weights.download import download; print(download(sys.argv[1]))"


def test_ctrl_c_leaves_a_part_that_is_continued(server: Server, cache: Path) -> None:
    page = Page(CONTENT, seconds_between=1.0)
    url = server.serve("/a.pth", page)
    with subprocess.Popen(
        [sys.executable, "-c", _DOWNLOAD, url],
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background hands down a SIGINT that is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        deadline = time.monotonic() + 20
        while not any(part.stat().st_size for part in cache.glob("*/*.part")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert re.search(r"a.pth: interrupted; .* of 0.4 MB arrived and are kept: the same command continues", said)
    page.seconds_between = 0.0
    assert download(url).read_bytes() == CONTENT
    assert re.fullmatch(r"bytes=[1-9]\d+-", str(server.ranges[-1]))


def test_of_several_processes_one_downloads_and_the_others_wait_and_say_so(server: Server) -> None:
    url = server.serve("/a.pth", Page(CONTENT, seconds_before=1.5))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _DOWNLOAD, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    said = [process.communicate(timeout=30) for process in processes]
    assert {Path(out.strip()).read_bytes() for out, _ in said} == {CONTENT}
    assert len(server.requests) == 1
    assert sorted("waiting" in progress for _, progress in said) == [False, True, True]


# -- answers that are no file -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (Page(status=404), "no such file on the server (HTTP 404)"),
        (Page(status=410), "no such file on the server (HTTP 410)"),
        (Page(status=401), "access is denied (HTTP 401)"),
        (Page(status=403), "access is denied (HTTP 403)"),
        (Page(status=418), "the server answers HTTP 418"),
        (Page(b"", status=204, says_length=False), "the server answers HTTP 204"),
        (Page(CONTENT, status=206), "the server answers HTTP 206 to a plain request"),
        (Page(b""), "the server sends an empty file"),
        (Page(b"x", headers={"Content-Type": "text/html; charset=utf-8"}), "a web page came, not the file"),
        (Page(b"\xef\xbb\xbf \n<!DOCTYPE html><html>"), "a web page came, not the file"),
        (Page(b"<HTML><body>log in</body></HTML>"), "a web page came, not the file"),
    ],
)
def test_an_answer_that_is_no_file_is_one_line_and_leaves_nothing(server: Server, page: Page, reason: str) -> None:
    url = server.serve("/secret/a.pth", page)
    line = error_of(f"{url.replace('//', '//me:word@')}?token=12345")
    assert line.startswith(f"{url}?...: {reason}")
    assert line.endswith("download the file by hand and give its path")
    assert len(server.requests) == 1
    assert [file.name for file in cache_folder().glob("*/*")] == ["a.pth.lock"]


def test_a_web_page_is_named_as_such_and_not_as_a_wrong_digest(server: Server) -> None:
    page = Page(b"<html>sign in", headers={"Content-Type": "application/octet-stream"})
    assert "a web page came" in error_of(f"{server.serve('/model.pth', page)}#sha256=d4a7fdac")


@pytest.mark.parametrize("chunked", [True, False])
def test_a_file_that_comes_compressed_is_unpacked(server: Server, chunked: bool) -> None:
    page = Page(CONTENT, zipped=True, chunked=chunked, cuts=[100_000])
    assert download(server.serve("/a.pth", page)).read_bytes() == CONTENT
    assert server.ranges == [None, None]
    assert server.requests[0][2]["Accept-Encoding"] == "identity"


def test_a_file_that_comes_compressed_is_not_continued_even_where_its_digest_is_known(server: Server) -> None:
    url = server.serve("/a.pth", Page(CONTENT, zipped=True, cuts=[200_000]))
    assert download(url, sha256=SHA256).read_bytes() == CONTENT


def test_a_server_that_has_begun_to_compress_is_not_continued_with(server: Server) -> None:
    url = server.serve("/a.pth", Page(CONTENT, zipped=True))
    leave_part(url, CONTENT[:200_000], {"etag": '"first"'})
    assert download(url).read_bytes() == CONTENT


@pytest.mark.parametrize("page", [Page(CONTENT, chunked=True), Page(CONTENT, says_length=False)])
def test_a_file_of_unknown_length_is_fetched(server: Server, page: Page) -> None:
    assert download(server.serve("/a.pth", page)).read_bytes() == CONTENT


def test_a_file_of_which_nothing_says_whether_it_is_whole_comes_with_a_warning(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    url = server.serve("/a.pth", Page(CONTENT, says_length=False))
    download(url, sha256=SHA256)
    assert "whether it came whole" not in capsys.readouterr().err
    download(f"{url}?2")
    assert "neither its length nor its sha256 is known: whether it came whole" in capsys.readouterr().err


def test_a_chunked_answer_that_breaks_off_is_noticed(server: Server) -> None:
    url = server.serve("/a.pth", Page(CONTENT, chunked=True, cuts=[200_000]))
    assert download(url).read_bytes() == CONTENT
    assert len(server.requests) == 2


# -- redirections -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirection_is_followed_and_the_name_stays_that_of_the_address(server: Server, status: int) -> None:
    server.serve("/elsewhere/b.bin", Page(CONTENT))
    url = server.serve("/a.pth", Page(status=status, headers={"Location": "/elsewhere/b.bin?signature=1"}))
    path = download(url)
    assert path.name == "a.pth"
    assert path.read_bytes() == CONTENT


def test_after_a_lost_connection_the_redirection_is_asked_for_again(server: Server) -> None:
    server.serve("/b.bin", Page(CONTENT, cuts=[200_000]))
    url = server.serve("/a.pth", Page(status=302, headers={"Location": "/b.bin"}))
    assert download(url).read_bytes() == CONTENT
    assert [path for _, path, _ in server.requests] == ["/a.pth", "/b.bin"] * 2


@pytest.mark.parametrize(
    "target", ["http://example.org/b.pth?key=12345", "ftp://example.org/b.pth", "file:///etc/passwd"]
)
def test_a_redirection_to_an_insecure_address_is_refused(server: Server, target: str) -> None:
    url = server.serve("/a.pth", Page(status=302, headers={"Location": target}))
    line = error_of(url)
    assert line.startswith(f"{url}: leads on to ")
    assert "12345" not in line


def test_a_circle_of_redirections_is_one_line(server: Server) -> None:
    url = server.serve("/a.pth", Page(status=302, headers={"Location": "/a.pth"}))
    assert "leads in a circle" in error_of(url)


# -- no network -------------------------------------------------------------------------------------------------------


def test_a_host_whose_name_is_unknown_is_one_line_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    line = error_of("https://weights.invalid/a.pth?token=12345")
    assert line.startswith("https://weights.invalid/a.pth?...: cannot be reached, its name cannot be resolved; check")


def test_a_server_that_is_not_there_is_one_line_at_once(server: Server) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "cannot be reached, connection refused" in error_of(f"http://127.0.0.1:{port}/a.pth")


def test_a_server_without_tls_is_one_line_at_once(server: Server) -> None:
    url = server.serve("/a.pth", Page(CONTENT)).replace("http:", "https:")
    assert "cannot be reached, no TLS connection (" in error_of(url)


def test_a_certificate_that_nobody_vouches_for_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    untrusted = ssl.SSLCertVerificationError(1, "certificate verify failed")
    untrusted.verify_message = "self-signed certificate"

    def refuse(*_: object, **__: object) -> NoReturn:
        raise requests.exceptions.SSLError(untrusted)

    monkeypatch.setattr(requests.Session, "get", refuse)
    line = error_of("https://example.org/a.pth")
    assert "cannot be reached, its TLS certificate is not trusted (self-signed certificate)" in line


def test_the_proxy_of_the_surroundings_is_not_asked_for_this_machine(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert download(server.serve("/a.pth", Page(CONTENT))).read_bytes() == CONTENT


def test_a_proxy_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    assert "cannot be reached, connection refused; check network, proxy" in error_of("https://example.org/a.pth")


@pytest.mark.parametrize("variable", ["UNIFORMER_POSE_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_the_cache_is_used_and_nothing_is_asked_for(
    server: Server, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    url = server.serve("/a.pth", Page(CONTENT))
    path = download(url)
    other = server.serve("/b.pth", Page(CONTENT))
    monkeypatch.setenv(variable, "1")
    assert download(url) == path
    line = error_of(other)
    assert line.startswith(f"{other}: the file in the cache, ")
    assert f"b.pth, is not there, and {variable} forbids to fetch it; unset that" in line
    assert len(server.requests) == 1


def test_offline_a_damaged_file_is_one_line(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.serve("/a.pth", Page(CONTENT))
    download(url).write_bytes(b"!")
    monkeypatch.setenv("UNIFORMER_POSE_OFFLINE", "true")
    assert "a.pth, is damaged (its sha256 is" in error_of(url)


# -- progress ---------------------------------------------------------------------------------------------------------


def test_in_a_log_file_there_is_a_line_at_about_every_tenth(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(download_progress.time, "monotonic", lambda: next(clock))
    with download_progress.transfer_progress("a.pth", arrived=0, total=20_000_000) as report:
        for arrived in range(500_000, 20_500_000, 500_000):
            report(arrived)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[:2] == ["a.pth: downloading, 20.0 MB", "a.pth: 10 %, 2.0 MB, 36 s left"]
    assert lines[-2:] == ["a.pth: 90 %, 18.0 MB, 4 s left", "a.pth: 20.0 MB, done in 41 s"]


def test_a_fast_download_is_two_lines(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    download(server.serve("/a.pth", Page(CONTENT)))
    assert capsys.readouterr().err == "a.pth: downloading, 0.4 MB\na.pth: 0.4 MB, done in 0 s\n"


def test_a_download_of_unknown_length_says_now_and_then_how_much_there_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(download_progress.time, "monotonic", lambda: next(clock))
    with download_progress.transfer_progress("a.pth", arrived=0, total=None) as report:
        for arrived in range(1_000_000, 7_000_000, 1_000_000):
            report(arrived)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["a.pth: downloading, size unknown", "a.pth: 4.0 MB", "a.pth: 6.0 MB, done in 28 s"]


def test_in_a_terminal_there_is_a_bar(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    download(server.serve("/a.pth", Page(CONTENT)))
    shown = capsys.readouterr()
    assert "a.pth" in shown.err
    assert "400.0/400.0 kB" in shown.err
    assert shown.out == ""
