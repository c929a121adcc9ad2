"""Small ONNX graphs that answer as exported detectors do, and hostile ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    outputs: dict[str, tuple[int, list[Any]]],
    constants: dict[str, Array],
    *,
    input_shape: tuple[Any, ...] = (1, 3, 64, 96),
    input_type: int = TensorProto.FLOAT,
    domains: tuple[str, ...] = (),
    functions: tuple[onnx.FunctionProto, ...] = (),
) -> str:
    """Writes a graph with the input ``images``; its path. ``outputs``: element type and shape by name."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("images", input_type, list(input_shape))],
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in outputs.items()],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    imports = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8, functions=functions)
    path.write_bytes(model.SerializeToString())
    return str(path)


def yolox(path: Path, rows: Array, *, decoded: bool = False, stride_rows: int | None = None, **arguments: Any) -> str:
    """YOLOX as its own project exports it: ``output`` (1, N, 5 + C) is ``rows`` whatever the picture.

    ``decoded`` puts the exponential of the decoding into the graph, where it changes nothing.
    """
    values = rows[None].astype(np.float32)
    constants = {"rows": values, "zero": np.zeros(1, np.float32)}
    nodes = [
        helper.make_node("ReduceSum", ["images"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
        helper.make_node("Add", ["rows", "nothing"], ["moved"]),
    ]
    if decoded:
        nodes += [helper.make_node("Exp", ["nothing"], ["one"]), helper.make_node("Mul", ["moved", "one"], ["output"])]
    else:
        nodes.append(helper.make_node("Identity", ["moved"], ["output"]))
    shape = list(values.shape) if stride_rows is None else [1, "rows", values.shape[2]]
    return save(path, nodes, {"output": (TensorProto.FLOAT, shape)}, constants, **arguments)


def mmdeploy(
    path: Path, dets: Array, labels: Array, *, parameter: str = "bbox_head.rtm_cls.0.weight", **arguments: Any
) -> str:
    """YOLOX or RTMDet as MMDeploy exports them: ``dets`` (1, N, 5) and ``labels`` (1, N), whatever the picture."""
    constants = {
        "dets_rows": dets[None].astype(np.float32),
        "labels_rows": labels[None].astype(np.int64),
        parameter: np.zeros(1, np.float32),
    }
    nodes = [
        helper.make_node("ReduceSum", ["images"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", parameter], ["nothing"]),
        helper.make_node("Add", ["dets_rows", "nothing"], ["dets"]),
        helper.make_node("Identity", ["labels_rows"], ["labels"]),
    ]
    outputs = {
        "dets": (TensorProto.FLOAT, [1, "num_dets", 5]),
        "labels": (TensorProto.INT64, [1, "num_dets"]),
    }
    return save(path, nodes, outputs, constants, **arguments)


def mirror_of_input(path: Path, *, kind: str, **arguments: Any) -> str:
    """A detector whose one box says what arrived: the pixel in the upper left and the lower right corner.

    Of ``kind`` ``yolox`` (decoded rows) or ``mmdeploy``: the scores are 1, and the box's corners are
    (blue, green, 1000 + red, 1000 + blue of the last pixel).
    """
    pick = {
        "blue0": np.array([[0, 0, 0, 0]]),
        "green0": np.array([[0, 1, 0, 0]]),
        "red0": np.array([[0, 2, 0, 0]]),
        "blue1": np.array([[0, 0, -1, -1]]),
        "thousand": np.array([1000], np.float32),
        "score": np.ones((1, 1, 1), np.float32),
        "labels_rows": np.zeros((1, 1), np.int64),
        "row": np.array([1, 1, 4]),
        "bbox_head.rtm_cls.0.weight" if kind == "rtmdet" else "bbox_head.multi_level_conv_cls.0.weight": np.zeros(1),
    }
    nodes = [helper.make_node("GatherND", ["images", name], [f"{name}_value"]) for name in pick if name[-1] in "01"]
    nodes += [
        helper.make_node("Add", ["red0_value", "thousand"], ["x2"]),
        helper.make_node("Add", ["blue1_value", "thousand"], ["y2"]),
        helper.make_node("Concat", ["blue0_value", "green0_value", "x2", "y2"], ["corners"], axis=0),
        helper.make_node("Reshape", ["corners", "row"], ["box"]),
        helper.make_node("Concat", ["box", "score"], ["dets"], axis=2),
        helper.make_node("Identity", ["labels_rows"], ["labels"]),
    ]
    outputs = {"dets": (TensorProto.FLOAT, [1, 1, 5]), "labels": (TensorProto.INT64, [1, 1])}
    return save(path, nodes, outputs, pick, **arguments)


def convolution(path: Path, channels: int, *, exponential: bool = False) -> str:
    """``dets`` and ``labels`` behind a first convolution of so many channels, with names that tell nothing."""
    constants: dict[str, Array] = {
        "w": np.zeros((5, channels, 1, 1), np.float32),
        "labels_rows": np.zeros((1, 1), np.int64),
        "row": np.array([1, 1, 5]),
        "repeats": np.array([1, channels // 3, 1, 1]),
    }
    nodes = [
        helper.make_node("Tile", ["images", "repeats"], ["many"]),
        helper.make_node("Conv", ["many", "w"], ["features"]),
        helper.make_node("Exp" if exponential else "Relu", ["features"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
        helper.make_node("Reshape", ["pooled", "row"], ["dets"]),
        helper.make_node("Identity", ["labels_rows"], ["labels"]),
    ]
    outputs = {"dets": (TensorProto.FLOAT, [1, 1, 5]), "labels": (TensorProto.INT64, [1, 1])}
    return save(path, nodes, outputs, constants)


def with_external_weights(path: Path, location: str, *, place: str = "initializer") -> str:
    """A graph with a tensor whose numbers lie in another file: an initializer, a constant, or within an If."""
    tensor = numpy_helper.from_array(np.arange(4, dtype=np.float32), "outside")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    constant = helper.make_node("Constant", [], ["constant"], value=tensor)
    nodes, initializers, sparse = [helper.make_node("Identity", ["images"], ["output"])], [], []
    if place == "initializer":
        initializers = [tensor]
    elif place == "constant":
        nodes.append(constant)
    elif place == "sparse":
        sparse = [helper.make_sparse_tensor(tensor, numpy_helper.from_array(np.arange(4), "indices"), [4])]
    else:
        branch = helper.make_graph([constant], "branch", [], [helper.make_tensor_value_info("constant", 1, [4])])
        initializers = [numpy_helper.from_array(np.array(True), "condition")]
        nodes.append(helper.make_node("If", ["condition"], ["chosen"], then_branch=branch, else_branch=branch))
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("images", 1, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("output", 1, [1, 3, 32, 32])],
        initializers,
        sparse_initializer=sparse,
    )
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    return str(path)
