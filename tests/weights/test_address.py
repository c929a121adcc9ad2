from __future__ import annotations

import hashlib
import os
from pathlib import Path

import huggingface_hub.constants
import pytest

from loopback_server import Page, Server
from uniformer_pose.errors import InputError
from uniformer_pose.weights import address
from uniformer_pose.weights.address import is_address, local_file

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def error_of(text: str | Path) -> str:
    with pytest.raises(InputError) as caught:
        local_file(text)
    line = str(caught.value)
    assert line.isprintable()
    return line


@pytest.mark.parametrize("text", ["zoo:a", "ZOO:a", "hf://o/r/f", "https://h/f", "HTTPS://h/f", "http://h/f", " zoo:a"])
def test_a_file_elsewhere_has_an_address(text: str) -> None:
    assert is_address(text)


@pytest.mark.parametrize("text", ["", "a.pth", "./zoo:a", "zoo/a.pth", "/hf/a.pth", "C:/a.pth", "https", "s3://b/k"])
def test_a_path_is_no_address(text: str) -> None:
    assert not is_address(text)


@pytest.mark.parametrize("as_path", [True, False])
def test_a_path_is_taken_as_it_stands(tmp_path: Path, as_path: bool) -> None:
    file = tmp_path / "run=3 (best) @home.ckpt"
    file.write_bytes(CONTENT)
    assert local_file(file if as_path else str(file)) == file


def test_a_relative_path_is_taken_from_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.pth").write_bytes(CONTENT)
    monkeypatch.chdir(tmp_path)
    assert local_file("a.pth") == Path("a.pth")


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.pth").write_bytes(CONTENT)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_file("~/a.pth") == tmp_path / "a.pth"


def test_the_home_of_nobody_is_one_line() -> None:
    assert "cannot be read (could not determine home directory.)" in error_of("~nobody-of-that-name/a.pth")


def test_a_missing_file_is_one_line_with_the_name_that_is_alike(tmp_path: Path) -> None:
    (tmp_path / "uniformer_base_in1k.pth").touch()
    (tmp_path / "uniformer_small_in1k.pth").touch()
    line = error_of(tmp_path / "uniformer_smal_in1k.pth")
    assert line == (
        f"no such file: {tmp_path / 'uniformer_smal_in1k.pth'}; did you mean {tmp_path / 'uniformer_small_in1k.pth'}?"
    )


def test_a_missing_file_with_nothing_alike_is_one_line_with_what_can_be_given(tmp_path: Path) -> None:
    line = error_of(tmp_path / "a.pth")
    assert line.endswith("give a path, https://host/file, zoo:<name> or hf://owner/repository/file")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert f"nor is there a folder {tmp_path / 'run'};" in error_of(tmp_path / "run" / "a.pth")


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_address_is_one_line(text: str) -> None:
    assert "the address is empty" in error_of(text)


@pytest.mark.parametrize("text", ["x" * 5000, "a\0b.pth", "a\nb.pth"])
def test_a_name_that_no_file_can_have_is_one_line(text: str) -> None:
    assert "give " in error_of(text)


def test_what_is_neither_file_nor_folder_is_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "neither a file nor a folder" in error_of(tmp_path / "pipe")


def test_of_a_folder_its_safetensors_are_taken(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(CONTENT)
    (tmp_path / "other.pth").touch()
    assert local_file(tmp_path) == tmp_path / "model.safetensors"


def test_of_the_folder_of_a_run_the_checkpoints_are_offered(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in ("last.ckpt", "best.ckpt", "notes.txt"):
        (tmp_path / "checkpoints" / name).touch()
    best, last = (tmp_path / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
    assert error_of(tmp_path).endswith(f"a folder without model.safetensors; did you mean {best}, {last}?")


def test_an_empty_folder_is_one_line(tmp_path: Path) -> None:
    assert "a folder without model.safetensors or any other weights file" in error_of(tmp_path)


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("s3://bucket/a.pth", "s3"),
        ("ftp://h/a", "ftp"),
        ("file:///a", "file"),
        ("gs://b/a", "gs"),
        ("SSH://h/a", "ssh"),
    ],
)
def test_another_scheme_is_one_line(text: str, scheme: str) -> None:
    assert f"{scheme}:// is not read; give a path" in error_of(text)


def test_a_git_address_is_one_line() -> None:
    assert "a git or ssh address is not read" in error_of("git@example.org:owner/repository.git")


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        (Path("https://example.org/a.pth"), "https://example.org/a.pth"),
        ("hf:/owner/repository/a.pth", "hf://owner/repository/a.pth"),
    ],
)
def test_an_address_that_lost_a_slash_is_one_line_with_the_whole(text: str | Path, whole: str) -> None:
    assert error_of(text).endswith(f"one slash is missing; write {whole}")


def test_a_long_web_address_is_not_taken_for_a_path(server: Server) -> None:
    url = server.serve("/a.pth", Page(CONTENT))
    assert local_file(f"{url}?signature={'x' * 5000}").read_bytes() == CONTENT


def test_a_web_address_is_downloaded(server: Server) -> None:
    url = server.serve("/a.pth", Page(CONTENT))
    assert local_file(f" {url.replace('http', 'HTTP')}#sha256={SHA256} ").read_bytes() == CONTENT


def test_plain_http_of_another_machine_is_refused() -> None:
    assert "only https:// is fetched from" in error_of("http://example.org/a.pth")


def test_a_zoo_name_is_downloaded_and_held_to_its_digest(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"good": (server.serve("/a.pth", Page(CONTENT)), SHA256[:8]), "bad": (server.origin + "/a.pth", "01234567")}
    monkeypatch.setattr(address, "published_file", files.__getitem__)
    assert local_file("zoo:good").read_bytes() == CONTENT
    assert f"is {SHA256}, expected 01234567 as was asked for" in error_of("zoo:bad")


def test_a_zoo_name_that_is_not_published_is_one_line() -> None:
    assert error_of("zoo:uniformer_s_coco_256x193").endswith("did you mean uniformer_s_coco_256x192?")


def test_an_hf_address_goes_through_the_hub(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.origin)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
    page = Page(CONTENT, etag=f'"{SHA256}"', headers={"X-Repo-Commit": "0" * 40})
    server.serve("/Owner/Repository/resolve/v1/folder/a.pth", page)
    assert local_file("HF://Owner/Repository/folder/a.pth@v1").read_bytes() == CONTENT
