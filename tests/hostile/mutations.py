"""Sound documents and files, broken at random in the ways that carelessness and malice break them."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

_NUMBERS = [-1, 0, 1, 0.5, -1e308, 1e308, 10**400, -(2**63), 2**63, 2**31, *map(float, ("nan", "inf", "-inf"))]
_TEXTS = ["", "17", "nan", "../../outside.png", "/etc/passwd", "a\0b", "line\nline", "\x1b[31mred\x1b[0m"]
_TEXTS += ["\u202etxt.exe", "\ud800", "x" * 5000, "$(touch MARKER)", "${oc.env:HOME}"]
_CONTAINERS: list[Any] = [[], [[]], [None], [1, [2, [3]]], {}, {"id": 1}]
HOSTILE_VALUES: list[Any] = [None, True, False, *_NUMBERS, *_TEXTS, *_CONTAINERS]
HOSTILE_VALUES.append({"_target_": "os.system", "command": "touch MARKER"})


def broken_value(document: Any, chance: random.Random) -> tuple[Any, str]:
    """A copy of a document of dicts, lists and values with one to three places changed, and what was done to them."""
    document = copy.deepcopy(document)
    done = [_break_one_place(document, chance) for _ in range(chance.choice([1, 1, 1, 2, 3]))]
    return document, "; ".join(done)


def broken_bytes(data: bytes, chance: random.Random) -> tuple[bytes, str]:
    """A copy of a file cut short, lengthened, or with some bytes exchanged, and what was done to it."""
    position, length = chance.randrange(len(data)), chance.randrange(1, 200)
    before, after = data[:position], data[position:]
    start = chance.randrange(min(len(data), 64))
    flips = {chance.randrange(len(data)): chance.randrange(256) for _ in range(chance.choice([1, 1, 1, 20]))}
    kinds = {
        "cut": before,
        "exchanged": bytes(flips.get(place, byte) for place, byte in enumerate(data)),
        "bit": before + bytes([after[0] ^ 1 << chance.randrange(8)]) + after[1:],
        "zeros": before + bytes(min(length, len(after))) + after[length:],
        "insert": before + chance.randbytes(chance.randrange(1, 50)) + after,
        "head": data[:start] + (number := chance.choice([b"\xff", b"\0"]) * 4) + data[start + len(number) :],  # a size
    }
    kind = chance.choice(["bit", "bit", *kinds])
    return kinds[kind], f"{kind} at {position} of {len(data)} bytes"


def broken_json(document: Any, chance: random.Random) -> tuple[bytes, str]:
    """A JSON text of the document with something wrong in its structure or in its letters, and what was done."""
    if chance.random() < 0.75:
        document, what = broken_value(document, chance)
        return json.dumps(document).encode(), what
    text = json.dumps(document)
    changes = {
        "byte order mark": b"\xef\xbb\xbf" + text.encode(),
        "UTF-16": text.encode("utf-16"),
        "nested too deeply": b"[" * 100_000,
        "two documents": (text + text).encode(),
        "a key twice": text.replace('"id": ', '"id": 7, "id": ', 1).encode(),
        "a number of many digits": text.replace(": 1", f": {'9' * 5000}", 1).encode(),
        "an exponent": text.replace(": 1", ": 1e999", 1).encode(),
        "null": b"null",
        "a web page": b"<!DOCTYPE html><html><body>404</body></html>",
    }
    if chance.random() < 0.4:
        return broken_bytes(text.encode(), chance)
    what = chance.choice(list(changes))
    return changes[what], what


def _break_one_place(document: Any, chance: random.Random) -> str:
    place, key = chance.choice(_places(document) or [({"": document}, "")])
    where = f"{key!r}"
    kind = chance.choice(["replace", "replace", "replace", "remove", "repeat", "exchange", "add"])
    if kind == "remove":
        del place[key]
    elif kind == "repeat" and isinstance(place, list):
        place.insert(key, copy.deepcopy(place[key]))
    elif kind == "exchange":
        other = chance.choice(list(range(len(place))) if isinstance(place, list) else list(place))
        place[key], place[other] = place[other], place[key]
    elif kind == "add" and isinstance(place, dict):
        value = copy.deepcopy(chance.choice(HOSTILE_VALUES))
        place[chance.choice(["_target_", "extra", "", "__class__", "\x1b[2J", "segmentation"])] = value
    else:
        place[key] = value = copy.deepcopy(chance.choice(HOSTILE_VALUES))
        return f"{where} = {value!r:.40}"
    return f"{kind} {where}"


def _places(document: Any) -> list[tuple[Any, Any]]:
    """Every container of the document with each of its keys; of long lists of numbers only the ends."""
    keys: list[Any] = []
    if isinstance(document, dict):
        keys = list(document)
    elif isinstance(document, list):
        keys = list(range(len(document)))
        keys = keys[:3] + keys[-3:] if len(keys) > 8 else keys
    return [place for key in keys for place in ((document, key), *_places(document[key]))]
