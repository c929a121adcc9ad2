from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import huggingface_hub.utils._http
import pytest

from loopback_server import Page, Server
from uniformer_pose.errors import InputError
from uniformer_pose.weights.hub_file import HubAddress, hub_address, hub_file

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "0123456789abcdef0123456789abcdef01234567"
MOVED = "89abcdef0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def hub(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    """The server as a hub: what is not served is no repository."""
    monkeypatch.setenv("HF_ENDPOINT", server.origin)
    for name, value in {
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_TOKEN_PATH": str(tmp_path / "no_token"),
        "HF_HUB_OFFLINE": False,
    }.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    monkeypatch.setattr(huggingface_hub.utils._http.time, "sleep", lambda _: None)
    return server


def serve(
    hub: Server,
    file: str,
    content: bytes = CONTENT,
    *,
    revision: str = "main",
    commit: str = COMMIT,
    large: bool = True,
) -> None:
    etag = hashlib.sha256(content).hexdigest() if large else hashlib.sha1(content).hexdigest()
    for asked in (revision, commit):
        path = f"/owner/repository/resolve/{asked}/{file}"
        hub.serve(path, Page(content, etag=f'"{etag}"', headers={"X-Repo-Commit": commit}))


def serve_nothing(hub: Server, file: str, code: str, *, revision: str = "main", status: int = 404) -> None:
    headers = {"X-Error-Code": code, "X-Repo-Commit": COMMIT}
    hub.serve(f"/owner/repository/resolve/{revision}/{file}", Page(status=status, headers=headers, etag=None))


def serve_absent(hub: Server, *files: str) -> None:
    for file in files:
        serve_nothing(hub, file, "EntryNotFound", revision=COMMIT)


def error_of(address: str) -> str:
    with pytest.raises(InputError) as caught:
        hub_file(address)
    line = str(caught.value)
    assert line.isprintable()
    return line


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("hf://owner/repository/a.pth", HubAddress("owner/repository", "a.pth")),
        ("hf://owner/repository/folder/a.pth", HubAddress("owner/repository", "folder/a.pth")),
        ("hf://owner/repository/a.pth@v1.0", HubAddress("owner/repository", "a.pth", "v1.0")),
        ("hf://owner/repository/a.pth@refs/pr/1", HubAddress("owner/repository", "a.pth", "refs/pr/1")),
        ("hf://owner/repository@v1.0/a.pth", HubAddress("owner/repository", "a.pth", "v1.0")),
        ("hf://owner/repository", HubAddress("owner/repository", "model.safetensors")),
        ("hf://owner/repository@v1.0", HubAddress("owner/repository", "model.safetensors", "v1.0")),
    ],
)
def test_an_address_has_a_repository_a_file_and_perhaps_a_revision(text: str, address: HubAddress) -> None:
    assert hub_address(text) == address
    assert hub_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "hf://",
        "hf://owner",
        "hf://owner/",
        "hf:///repository/a.pth",
        "hf://owner/repository//a.pth",
        "hf://owner/repository/../a.pth",
        "hf://owner/repository/folder/",
        "hf://owner/repository/a.pth@",
        "hf://owner/repository@v1/a.pth@v2",
        "hf://owner/repository/a b.pth",
        "hf://owner/repository/a.pth?download=true",
        "hf://owner/repository/a\x1b.pth",
    ],
)
def test_an_address_of_another_form_is_one_line(text: str) -> None:
    assert "not understood; the form is hf://owner/repository/" in error_of(text)


def test_a_data_set_is_no_place_for_weights() -> None:
    assert "only model repositories" in error_of("hf://datasets/owner/repository/a.pth")


def test_a_file_is_fetched_once_and_then_only_asked_after(hub: Server) -> None:
    serve(hub, "folder/a.pth")
    path = hub_file("hf://owner/repository/folder/a.pth")
    assert path.read_bytes() == CONTENT
    assert path.parts[-3:] == (COMMIT, "folder", "a.pth")
    assert hub_file("hf://owner/repository/folder/a.pth") == path
    assert [method for method, _, _ in hub.requests].count("GET") == 1


def test_a_revision_is_asked_for(hub: Server) -> None:
    serve(hub, "a.pth", revision="v1.0")
    assert hub_file("hf://owner/repository/a.pth@v1.0").read_bytes() == CONTENT


def test_a_commit_that_is_in_the_cache_is_not_asked_after(hub: Server) -> None:
    serve(hub, "a.pth")
    hub_file("hf://owner/repository/a.pth")
    asked = len(hub.requests)
    assert hub_file(f"hf://owner/repository/a.pth@{COMMIT}").read_bytes() == CONTENT
    assert len(hub.requests) == asked


@pytest.mark.parametrize("name", ["best.json", "config.json"])
def test_the_description_of_safetensors_comes_to_lie_beside_them(hub: Server, name: str) -> None:
    serve(hub, "folder/best.safetensors")
    serve_absent(hub, "folder/best.json", "folder/config.json")
    serve(hub, f"folder/{name}", b"{}", large=False)
    path = hub_file("hf://owner/repository/folder/best.safetensors")
    assert path.with_name(name).read_bytes() == b"{}"


def test_the_description_is_of_the_commit_that_the_weights_are_of(hub: Server) -> None:
    serve(hub, "model.safetensors")
    serve_absent(hub, "config.json")
    serve(hub, "model.json", b"new", large=False, commit=MOVED)
    serve(hub, "model.json", b"old", large=False, revision=COMMIT)
    path = hub_file("hf://owner/repository")
    assert path.with_name("model.json").read_bytes() == b"old"


def test_safetensors_without_a_description_are_taken_and_it_is_asked_for_once(hub: Server) -> None:
    serve(hub, "model.safetensors")
    serve_absent(hub, "model.json", "config.json")
    path = hub_file("hf://owner/repository")
    assert path.read_bytes() == CONTENT
    hub_file("hf://owner/repository")
    assert [asked.rpartition("/")[2] for _, asked, _ in hub.requests].count("config.json") == 1


def test_a_damaged_file_in_the_cache_is_noticed_and_fetched_anew(
    hub: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(hub, "a.pth")
    path = hub_file("hf://owner/repository/a.pth")
    path.resolve().write_bytes(CONTENT[:-1] + b"!")
    assert hub_file("hf://owner/repository/a.pth").read_bytes() == CONTENT
    assert f"{path}: is damaged" in capsys.readouterr().err


def test_a_file_that_comes_damaged_twice_is_one_line(hub: Server) -> None:
    headers = {"X-Repo-Commit": COMMIT}
    hub.serve("/owner/repository/resolve/main/a.pth", Page(b"other", etag=f'"{SHA256}"', headers=headers))
    assert "what came does not have the sha256 that the hub states" in error_of("hf://owner/repository/a.pth")


def test_a_file_that_is_not_in_the_repository_is_one_line(hub: Server) -> None:
    serve_nothing(hub, "b.pth", "EntryNotFound")
    line = error_of("hf://owner/repository/b.pth")
    assert line.startswith("hf://owner/repository/b.pth: the repository has no such file; ")


def test_a_revision_that_is_not_in_the_repository_is_one_line(hub: Server) -> None:
    serve_nothing(hub, "a.pth", "RevisionNotFound", revision="v9")
    assert "no such revision" in error_of("hf://owner/repository/a.pth@v9")


def test_a_repository_that_does_not_exist_is_one_line(hub: Server) -> None:
    serve_nothing(hub, "a.pth", "RepoNotFound", status=401)
    assert "no such repository, or a private one" in error_of("hf://owner/repository/a.pth")


def test_a_gated_repository_is_one_line(hub: Server) -> None:
    serve_nothing(hub, "a.pth", "GatedRepo", status=403)
    assert "its owner gives access on request only" in error_of("hf://owner/repository/a.pth")


def test_a_name_that_no_repository_can_have_is_one_line() -> None:
    assert error_of("hf://-owner-/repository/a.pth").startswith("hf://-owner-/repository/a.pth: ")


def test_a_hub_that_is_broken_is_one_line(hub: Server) -> None:
    hub.serve("/owner/repository/resolve/main/a.pth", Page(status=503))
    assert "not in the cache, and the hub answers HTTP 503" in error_of("hf://owner/repository/a.pth")


def test_a_hub_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    line = error_of("hf://owner/repository/a.pth")
    assert "not in the cache, and the hub cannot be reached (ConnectError); check network" in line


def test_a_hub_that_is_not_there_is_not_missed_where_the_cache_has_the_file(
    hub: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(hub, "a.pth")
    path = hub_file("hf://owner/repository/a.pth")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert hub_file("hf://owner/repository/a.pth") == path


def test_offline_the_cache_is_used_and_nothing_is_asked_for(hub: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(hub, "best.safetensors")
    serve_absent(hub, "config.json")
    serve(hub, "best.json", b"{}", large=False)
    path = hub_file("hf://owner/repository/best.safetensors")
    asked = len(hub.requests)
    monkeypatch.setenv("UNIFORMER_POSE_OFFLINE", "1")
    assert hub_file("hf://owner/repository/best.safetensors") == path
    assert "not in the cache, and UNIFORMER_POSE_OFFLINE forbids" in error_of("hf://owner/repository/other.pth")
    path.resolve().write_bytes(b"!")
    assert "is damaged, and UNIFORMER_POSE_OFFLINE forbids" in error_of("hf://owner/repository/best.safetensors")
    assert len(hub.requests) == asked


def test_offline_safetensors_without_a_description_are_taken(hub: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(hub, "model.safetensors")
    serve_absent(hub, "model.json", "config.json")
    path = hub_file("hf://owner/repository")
    monkeypatch.setenv("UNIFORMER_POSE_OFFLINE", "1")
    assert hub_file("hf://owner/repository") == path


def test_a_cache_that_cannot_be_written_is_one_line(hub: Server, tmp_path: Path) -> None:
    serve(hub, "a.pth")
    (tmp_path / "hub").write_text("")
    assert "the cache of huggingface_hub (HF_HOME) cannot be used" in error_of("hf://owner/repository/a.pth")


def test_the_hub_and_its_cache_are_those_of_the_environment(hub: Server, tmp_path: Path) -> None:
    serve(hub, "a.pth")
    variables = {"HF_ENDPOINT": hub.origin, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1"}
    program = "import sys; from uniformer_pose.weights.hub_file import hub_file; print(hub_file(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", program, "hf://owner/repository/a.pth"],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    path = Path(done.stdout.strip())
    assert path.is_relative_to(tmp_path / "home")
    assert path.read_bytes() == CONTENT
    assert "hf://owner/repository/a.pth: downloading" in done.stderr
