"""Models on the hub, served from this machine, and folders of the same form."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import huggingface_hub.utils._http
import pytest
from small_networks import assert_same, trained_model

from loopback_server import Page, Server
from uniformer_pose.errors import InputError
from uniformer_pose.weights.fetch import local_file
from uniformer_pose.weights.hub import from_pretrained, push_to_hub

CONTENT = b"weights" * 1000
COMMIT = "0123456789abcdef0123456789abcdef01234567"


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


def serve(hub: Server, files: dict[str, bytes], *, revision: str = "main", etag: str | None = None) -> None:
    answers = {
        f"revision/{revision}": {"id": "owner/repository", "sha": COMMIT, "siblings": []},
        f"tree/{COMMIT}": [{"type": "file", "path": n, "size": len(c), "oid": "0" * 40} for n, c in files.items()],
    }
    for path, answer in answers.items():
        page = Page(json.dumps(answer).encode(), headers={"Content-Type": "application/json"})
        hub.serve(f"/api/models/owner/repository/{path}", page)
    for name, content in files.items():
        tag = etag or hashlib.sha256(content).hexdigest()
        page = Page(content, etag=f'"{tag}"', headers={"X-Repo-Commit": COMMIT})
        hub.serve(f"/owner/repository/resolve/{COMMIT}/{name}", page)


def error_of(address: str) -> str:
    with pytest.raises(InputError) as caught:
        local_file(address)
    line = str(caught.value)
    assert line.isprintable()
    assert line.startswith(address.split("\x1b")[0]) or "hub" in line
    return line


@pytest.mark.parametrize(
    ("address", "file", "revision"),
    [
        ("HF://owner/repository/folder/a.pth", "folder/a.pth", "main"),
        ("hf://owner/repository@v1.0/a.pth", "a.pth", "v1.0"),
        ("hf://owner/repository", "model.safetensors", "main"),
    ],
)
def test_an_address_has_a_repository_a_file_and_perhaps_a_revision(
    hub: Server, address: str, file: str, revision: str
) -> None:
    serve(hub, {file: CONTENT}, revision=revision)
    path = local_file(address)
    assert path.read_bytes() == CONTENT
    assert local_file(address) == path
    assert [method for method, asked in hub.requests if "/resolve/" in asked].count("GET") == 1


@pytest.mark.parametrize(
    "text",
    [
        "hf://owner",
        "hf://owner/repository/../a.pth",
        "hf://owner/repository/*.pth",
    ],
)
def test_an_address_of_another_form_is_one_line(text: str) -> None:
    assert "not understood; the form is hf://owner/repository" in error_of(text)


@pytest.mark.parametrize("name", ["best.json", "config.json"])
def test_the_description_of_safetensors_comes_to_lie_beside_them_and_nothing_else(hub: Server, name: str) -> None:
    serve(hub, {"folder/best.safetensors": CONTENT, f"folder/{name}": b"{}", "folder/other.pth": b"large"})
    path = local_file("hf://owner/repository/folder/best.safetensors")
    assert {file.name for file in path.parent.iterdir()} == {"best.safetensors", name}


def test_a_damaged_file_in_the_cache_is_one_line_with_what_to_delete(hub: Server) -> None:
    serve(hub, {"a.pth": CONTENT})
    kept = local_file("hf://owner/repository/a.pth").resolve()
    kept.write_bytes(CONTENT[:-1] + b"!")
    assert error_of("hf://owner/repository/a.pth").startswith(f"{kept}: damaged")
    kept.unlink()
    assert local_file("hf://owner/repository/a.pth").read_bytes() == CONTENT


@pytest.mark.parametrize(("code", "status"), [("RevisionNotFound", 404), ("GatedRepo", 403), ("", 503)])
def test_a_hub_that_refuses_is_one_line(hub: Server, code: str, status: int) -> None:
    page = Page(status=status, headers={"X-Error-Code": code})
    hub.serve("/api/models/owner/repository/revision/main", page)
    assert "neither on the hub nor in the cache" in error_of("hf://owner/repository/a.pth")


def test_without_the_hub_or_offline_the_cache_is_used(hub: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(hub, {"model.safetensors": CONTENT, "config.json": b"{}"})
    assert "no such file in the repository" in error_of("hf://owner/repository/other.pth")
    path = local_file("hf://owner/repository")
    with monkeypatch.context() as patched:
        patched.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        assert local_file("hf://owner/repository") == path
        assert "neither on the hub nor in the cache" in error_of("hf://owner/other/a.pth")
    asked = len(hub.requests)
    monkeypatch.setenv("UNIFORMER_POSE_OFFLINE", "1")
    assert local_file("hf://owner/repository") == path
    assert "offline in the cache" in error_of("hf://owner/repository/other.pth")
    assert "neither on the hub nor in the cache" in error_of("hf://owner/other/a.pth")
    assert len(hub.requests) == asked


# -- folders, and uploading -------------------------------------------------------------------------------------------


def test_neither_a_folder_nor_a_repository_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a/b/c: neither a folder nor the name of a hub repository, owner/name"):
        from_pretrained("a/b/c")


def test_uploading_makes_the_repository_and_sends_weights_config_and_card_in_one_commit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, sent = trained_model(), {}

    class Made(str):
        repo_id = "me/pose"

    class Hub:
        def __init__(self, token: str | None) -> None:
            self.token = token

        def create_repo(self, repo_id: str, **settings: Any) -> Any:
            if self.token == "refused":
                raise ConnectionError("no\nroute")
            sent.update(repo_id=repo_id, **settings)
            return Made("https://hub.example/me/pose")

        def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> None:
            sent["files"] = sorted(path.name for path in Path(folder_path).iterdir())
            sent["card"] = (Path(folder_path) / "README.md").read_text()
            assert_same(from_pretrained(folder_path), model)

    monkeypatch.setattr("uniformer_pose.weights.hub.HfApi", Hub)
    with pytest.raises(InputError, match=r"me/pose: not uploaded \(ConnectionError: no route\); log in"):
        push_to_hub(model, "me/pose", token="refused")
    assert push_to_hub(model, "me/pose", private=True) == "https://hub.example/me/pose"
    card = sent.pop("card")
    assert 'from_pretrained("me/pose")' in card
    assert "\nlicense: apache-2.0\n" in card
    files = ["README.md", "config.json", "model.safetensors"]
    assert sent == {"repo_id": "me/pose", "private": True, "exist_ok": True, "files": files}
