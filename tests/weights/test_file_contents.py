"""A file is read whole, as data, or refused in one line that says what it is."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from uniformer_pose.errors import InputError
from uniformer_pose.saved_model import RECORD_KEY
from uniformer_pose.weights.file_contents import WEIGHTS_DIGEST_KEY, read_weight_file

TENSORS = {"layer.weight": torch.arange(600.0).reshape(20, 30), "layer.bias": torch.ones(20)}


def torch_archive(folder: Path) -> Path:
    torch.save({"state_dict": TENSORS, "meta": {"epoch": 3}}, folder / "weights.pth")
    return folder / "weights.pth"


def old_torch_file(folder: Path) -> Path:
    torch.save({"state_dict": TENSORS, "meta": {}}, folder / "old.pth", _use_new_zipfile_serialization=False)
    return folder / "old.pth"


def safetensors_file(folder: Path) -> Path:
    path = folder / "model.safetensors"
    save_file(TENSORS, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "config.json").write_text(json.dumps({WEIGHTS_DIGEST_KEY: digest, RECORD_KEY: {"note": "mine"}}))
    return path


WRITERS = [torch_archive, old_torch_file, safetensors_file]


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as raised:
        read_weight_file(path)
    message = str(raised.value)
    assert "\n" not in message
    assert str(path.parent) in message
    return message


@pytest.mark.parametrize("write", WRITERS)
def test_each_container_gives_its_tensors_and_whether_damage_would_be_told(
    tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    path = write(tmp_path)
    held = read_weight_file(path)
    assert held.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    for name, tensor in TENSORS.items():
        assert torch.equal(held.contents["state_dict"][name], tensor)
    assert held.is_checked == (write is not old_torch_file)
    if write is old_torch_file:
        assert read_weight_file(path.rename(tmp_path / f"x-{held.sha256[:8]}_20230724.pth")).is_checked


@pytest.mark.parametrize("text", ['{"model": {"depth": 3}, "state_dict": {}}', "[]"])
def test_a_json_of_another_program_beside_the_weights_is_nothing_to_us(tmp_path: Path, text: str) -> None:
    path = safetensors_file(tmp_path)
    path.with_suffix(".json").write_text(text)  # ours is config.json
    assert set(read_weight_file(path).contents) == {"state_dict", RECORD_KEY}
    (tmp_path / "config.json").write_text(text)
    held = read_weight_file(path)
    assert (set(held.contents), held.is_checked) == ({"state_dict"}, False)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("kept", [0.02, 0.999])
def test_a_file_cut_short_is_refused(tmp_path: Path, write: Callable[[Path], Path], kept: float) -> None:
    path = write(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    assert "not a whole" in refusal(path) or "not a weight file" in refusal(path) or "damaged" in refusal(path)


@pytest.mark.parametrize("write", [torch_archive, safetensors_file])
def test_a_flipped_byte_in_the_weights_is_refused(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    path = write(tmp_path)
    whole = path.read_bytes()
    position = whole.index(TENSORS["layer.weight"].numpy().tobytes()) + 1000
    path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
    assert "damaged" in refusal(path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html>404 not found</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (pickle.dumps({"state_dict": {}}), "not a weight file"),
        (b"\x89PNG\r\n\x1a\n\0\0", "something else"),
    ],
)
def test_another_kind_of_file_is_named_for_what_it_is(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    assert found in refusal(path)


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", compression=zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", b"\0" * 10_000_000)
    assert path.stat().st_size < 100_000
    assert "a compressed zip archive" in refusal(path)


def test_a_file_that_claims_more_tensors_than_it_has_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "claims.pth"
    torch.save({"state_dict": {"weight": torch.zeros(1).expand(1_000_000, 1_000_000)}}, path)
    assert "claims 4000000000000 bytes of tensors in a file of" in refusal(path)


@pytest.mark.parametrize("text", ["{", "[" * 100_000])
def test_a_json_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    path = safetensors_file(tmp_path)
    (tmp_path / "config.json").write_text(text)
    assert "config.json" in refusal(path)
