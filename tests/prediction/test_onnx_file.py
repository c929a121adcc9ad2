"""What an ONNX file holds is read without a runtime, and what would reach beyond it is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_graphs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

from uniformer_pose.errors import InputError
from uniformer_pose.prediction.onnx_file import read_onnx_file


def field(number: int, content: bytes) -> bytes:
    """A field of a protocol-buffers message that has a length."""
    length, size = len(content), b""
    while length >= 128:
        size += bytes([length % 128 | 128])
        length //= 128
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


def error_of(path: str | Path) -> str:
    with pytest.raises(InputError) as caught:
        read_onnx_file(path)
    line = str(caught.value)
    assert line.startswith(("no ONNX file", str(path)))
    assert line.isprintable()
    return line


def test_operators_parameters_and_the_first_convolution_are_what_onnx_itself_reads(tmp_path: Path) -> None:
    path = onnx_graphs.convolution(tmp_path / "a.onnx", 12)
    graph = onnx.load(path).graph
    file = read_onnx_file(path)
    assert file.operators == {node.op_type for node in graph.node}
    assert file.parameter_names == tuple(tensor.name for tensor in graph.initializer)
    assert file.first_convolution_channels == 12


@pytest.mark.parametrize("dimensions", [b"\x08\x08\x08\x8c\x02\x08\x01\x08\x01", b"\x0a\x05\x08\x8c\x02\x01\x01"])
def test_shapes_are_read_in_both_encodings_of_repeated_numbers(tmp_path: Path, dimensions: bytes) -> None:
    node = field(1, b"images") + field(1, b"weights") + field(4, b"Conv")
    path = tmp_path / "a.onnx"
    path.write_bytes(field(7, field(1, node) + field(5, dimensions + field(8, b"weights"))))
    assert read_onnx_file(path).first_convolution_channels == 268


def test_a_graph_without_a_convolution_has_no_channels(tmp_path: Path) -> None:
    file = read_onnx_file(onnx_graphs.yolox(tmp_path / "a.onnx", np.zeros((126, 6))))
    assert file.first_convolution_channels is None
    assert {"ReduceSum", "Mul", "Add", "Identity"} == file.operators


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "0 bytes, which no ONNX file has"),
        (b"<!DOCTYPE html><html>not found</html>", "not a"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "not a"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a"),
        (b"\x08\x08", "not an ONNX file, or one without a graph"),
        (b"\x3a\x00", "not an ONNX file, or one without a graph"),
    ],
)
def test_another_file_is_one_line(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(content)
    assert said in error_of(path)


def test_a_missing_file_and_a_folder_are_one_line(tmp_path: Path) -> None:
    assert error_of(tmp_path / "a.onnx").endswith("give the path of an exported YOLOX or RTMDet")
    assert "no ONNX file at" in error_of(tmp_path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(end=st.integers(0, 1000), place=st.integers(0, 1000), byte=st.integers(0, 255))
def test_a_cut_or_damaged_file_is_read_or_refused_in_one_line(tmp_path: Path, end: int, place: int, byte: int) -> None:
    path = tmp_path / "a.onnx"
    onnx_graphs.convolution(path, 3)
    content = bytearray(path.read_bytes())
    content[place % len(content)] = byte
    path.write_bytes(content[: len(content) * end // 1000])
    said = ""
    try:
        read_onnx_file(path)
    except InputError as error:
        said = str(error)
    assert said.isprintable()


def test_graphs_nested_without_end_are_refused(tmp_path: Path) -> None:
    graph = b""
    for _ in range(300):
        graph = field(1, field(5, field(6, graph)))  # a node with an attribute with a graph
    path = tmp_path / "a.onnx"
    path.write_bytes(field(7, graph))
    assert "not a whole ONNX file" in error_of(path)


# -- what would reach beyond the file ---------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["initializer", "constant", "branch", "sparse"])
@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "below/../../secret.bin", "a\0b"])
def test_weights_outside_the_folder_are_refused(tmp_path: Path, location: str, place: str) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    (tmp_path / "model").mkdir()
    path = onnx_graphs.with_external_weights(tmp_path / "model" / "a.onnx", location, place=place)
    assert "which is not below its folder; it is not loaded" in error_of(path)


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.bin").symlink_to(tmp_path / "secret.bin")
    path = onnx_graphs.with_external_weights(tmp_path / "model" / "a.onnx", "weights.bin")
    assert "wants weights from weights.bin, which is not below its folder" in error_of(path)


def test_weights_beside_the_file_are_allowed_and_missed(tmp_path: Path) -> None:
    path = onnx_graphs.with_external_weights(tmp_path / "a.onnx", "a.onnx.data")
    assert "its weights lie in a.onnx.data beside it, which is missing" in error_of(path)
    (tmp_path / "a.onnx.data").write_bytes(bytes(16))
    assert "outside" in read_onnx_file(path).parameter_names


def test_an_address_in_memory_is_no_file(tmp_path: Path) -> None:
    path = onnx_graphs.with_external_weights(tmp_path / "a.onnx", "*/_ORT_MEM_ADDR_/*")
    assert "which is missing" in error_of(path)


@pytest.mark.parametrize(
    ("domain", "name"), [("mmdeploy", "TRTBatchedNMS"), ("ai.onnx.contrib", "PyOp"), ("com.microsoft", "EPContext")]
)
def test_operators_of_other_libraries_are_refused(tmp_path: Path, domain: str, name: str) -> None:
    node = helper.make_node(name, ["images"], ["output"], domain=domain)
    path = onnx_graphs.save(tmp_path / "a.onnx", [node], {"output": (1, [1])}, {}, domains=(domain,))
    assert f"needs the operator {domain}:{name}, which is not ONNX's and would take foreign code" in error_of(path)


def test_an_operator_that_the_file_defines_itself_is_allowed_and_what_it_uses_is_read(tmp_path: Path) -> None:
    imports = [helper.make_opsetid("", 17)]
    body = [helper.make_node("Exp", ["x"], ["y"])]
    function = helper.make_function("own", "Twice", ["x"], ["y"], body, imports)
    node = helper.make_node("Twice", ["images"], ["output"], domain="own")
    arguments = {"domains": ("own",), "functions": (function,)}
    file = read_onnx_file(onnx_graphs.save(tmp_path / "a.onnx", [node], {"output": (1, [1])}, {}, **arguments))
    assert file.operators == {"Exp", "Twice"}
