"""An ONNX file -> what its graph is made of, read without a runtime and before one may open it.

An ONNX file is one protocol-buffers message. Its few fields that matter here are read by their numbers (onnx.proto3 of
the ONNX project) and all others, weights above all, are stepped over: nothing of the file is run or unpacked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from uniformer_pose.errors import InputError

# Operators of ONNX itself, and those that ONNX Runtime adds to them; none of them reads files or runs foreign code, but
# one, which hands a file to an accelerator's driver.
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
_REFUSED = frozenset({"EPContext"})
_MOST_BYTES = 2**31 - 1  # of any protocol-buffers message
_DEEPEST = 20  # graphs within graphs; detectors nest two or three

_LENGTH_DELIMITED = 2
_FIXED_SIZE = {1: 8, 5: 4}


@dataclass(frozen=True)
class OnnxFile:
    """The kinds of operators of a graph, the names of its parameters, and how many channels its first convolution
    takes (None where there is no convolution or its weights are not in the file as such).
    """

    path: Path
    operators: frozenset[str]
    parameter_names: tuple[str, ...]
    first_convolution_channels: int | None


class _MalformedError(Exception):
    pass


class _Graph:
    """What is gathered on the way through the message."""

    def __init__(self) -> None:
        self.operators: dict[tuple[str, str], None] = {}  # domain and name, in order
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.first_convolution_weights: str | None = None
        self.local_domains: set[str] = set()
        self.external_files: dict[str, None] = {}


def read_onnx_file(path: str | Path) -> OnnxFile:
    """The facts about the ONNX file at ``path``.

    Raises InputError, naming the file, where it is missing, no ONNX file or cut short, where it needs operators of
    other libraries (such code is never loaded), and where it takes weights from files that are not below its folder.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"no ONNX file at {path}; give the path of an exported YOLOX or RTMDet")
    graph = _Graph()
    try:
        size = path.stat().st_size
        if not 0 < size <= _MOST_BYTES:
            raise InputError(f"{path}: {size} bytes, which no ONNX file has; fetch or export it again")
        has_graph = _read_model(memoryview(path.read_bytes()), graph)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    except (_MalformedError, UnicodeDecodeError, RecursionError):
        raise InputError(f"{path}: not a whole ONNX file; fetch or export it again") from None
    if not has_graph or not graph.operators:
        raise InputError(f"{path}: not an ONNX file, or one without a graph; give an exported YOLOX or RTMDet")
    _refuse_foreign_operators(path, graph)
    for location in graph.external_files:
        _refuse_outside(path, location)
    shape = graph.shapes.get(graph.first_convolution_weights or "", ())
    return OnnxFile(
        path=path,
        operators=frozenset(name for _, name in graph.operators),
        parameter_names=tuple(graph.shapes),
        first_convolution_channels=shape[1] if len(shape) == 4 else None,
    )


def _refuse_foreign_operators(path: Path, graph: _Graph) -> None:
    for domain, name in graph.operators:
        known = domain in _DOMAINS and name not in _REFUSED
        if not known and domain not in graph.local_domains:
            shown = "".join(character if character.isprintable() else "?" for character in f"{domain}:{name}"[:80])
            raise InputError(
                f"{path}: needs the operator {shown}, which is not ONNX's and would take foreign code; export the "
                "model for ONNX Runtime, with standard operators"
            )


def _refuse_outside(path: Path, location: str) -> None:
    """InputError unless the location is a file below the folder of the ONNX file, links followed."""
    folder = path.parent.resolve()
    shown = "".join(character if character.isprintable() else "?" for character in location[:80])
    try:
        target = (folder / location).resolve()
        inside = not Path(location).is_absolute() and target.is_relative_to(folder)
        found = target.is_file()
    except (OSError, ValueError, RuntimeError):  # a null byte, a name too long, links in a circle
        inside = found = False
    if not inside:
        raise InputError(
            f"{path}: wants weights from {shown}, which is not below its folder; it is not loaded, get one from a "
            "source you trust"
        )
    if not found:
        raise InputError(f"{path}: its weights lie in {shown} beside it, which is missing; fetch or copy both files")


# -- the message, by its field numbers --------------------------------------------------------------------------------


def _read_model(message: memoryview, graph: _Graph) -> bool:
    has_graph = False
    for number, content in _messages(message):
        if number == 7:
            has_graph = True
            _read_graph(content, graph, depth=0)
        elif number == 25:  # functions: operators that the file itself defines by others
            for inner, value in _messages(content):
                if inner == 7:
                    _read_node(value, graph, depth=0)
                elif inner == 10:
                    graph.local_domains.add(_text(value))
        elif number == 20:  # graphs for training
            for inner, value in _messages(content):
                if inner in (1, 2):
                    _read_graph(value, graph, depth=0)
    return has_graph


def _read_graph(message: memoryview, graph: _Graph, depth: int) -> None:
    if depth > _DEEPEST:
        raise _MalformedError
    for number, content in _messages(message):
        if number == 1:
            _read_node(content, graph, depth)
        elif number == 5:
            _read_tensor(content, graph)
        elif number == 15:
            _read_sparse_tensor(content, graph)


def _read_node(message: memoryview, graph: _Graph, depth: int) -> None:
    inputs: list[str] = []
    domain = name = ""
    for number, content in _messages(message):
        if number == 1:
            inputs.append(_text(content))
        elif number == 4:
            name = _text(content)
        elif number == 7:
            domain = _text(content)
        elif number == 5:
            for inner, value in _messages(content):
                if inner in (5, 10):
                    _read_tensor(value, graph)
                elif inner in (6, 11):
                    _read_graph(value, graph, depth + 1)
                elif inner in (22, 23):
                    _read_sparse_tensor(value, graph)
    graph.operators[domain, name] = None
    if name == "Conv" and len(inputs) > 1 and graph.first_convolution_weights is None:
        graph.first_convolution_weights = inputs[1]


def _read_sparse_tensor(message: memoryview, graph: _Graph) -> None:
    for number, content in _messages(message):
        if number in (1, 2):
            _read_tensor(content, graph)


def _read_tensor(message: memoryview, graph: _Graph) -> None:
    name = ""
    shape: list[int] = []
    for number, wire_type, value, content in _fields(message):
        if number == 1:
            shape += [value] if wire_type == 0 else _packed(content)
        elif number == 8 and wire_type == _LENGTH_DELIMITED:
            name = _text(content)
        elif number == 13 and wire_type == _LENGTH_DELIMITED:
            entry = {inner: _text(value) for inner, value in _messages(content)}
            if entry.get(1) == "location":
                graph.external_files[entry.get(2, "")] = None
    if name:
        graph.shapes[name] = tuple(shape)


def _messages(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of the fields that have a length: messages, texts, bytes."""
    for number, wire_type, _, content in _fields(message):
        if wire_type == _LENGTH_DELIMITED:
            yield number, content


def _fields(message: memoryview) -> Iterator[tuple[int, int, int, memoryview]]:
    """Number, wire type, value of a varint, and content of each field of a message."""
    position, end = 0, len(message)
    while position < end:
        tag, position = _varint(message, position)
        number, wire_type = tag >> 3, tag & 7
        value, start = 0, position
        if wire_type == 0:
            value, position = _varint(message, position)
        elif wire_type == _LENGTH_DELIMITED:
            length, start = _varint(message, position)
            position = start + length
        elif wire_type in _FIXED_SIZE:
            position += _FIXED_SIZE[wire_type]
        else:
            raise _MalformedError
        if number == 0 or position > end:
            raise _MalformedError
        yield number, wire_type, value, message[start:position]


def _packed(content: memoryview) -> list[int]:
    numbers, position = [], 0
    while position < len(content):
        number, position = _varint(content, position)
        numbers.append(number)
    return numbers


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise _MalformedError
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _MalformedError


def _text(content: memoryview) -> str:
    return str(content, "utf-8")
