"""Small files that ask for much memory or time: refused before either is spent."""

from __future__ import annotations

import resource
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile_programs import small_checkpoint

from uniformer_pose.data.images import read_photo
from uniformer_pose.errors import InputError
from uniformer_pose.saved_model import RECORD_KEY
from uniformer_pose.weights.loading import load_model

MOST_MEGABYTES = 300
MOST_SECONDS = 2.0


def refused_cheaply(read: Any) -> str:
    """The one line with which something is refused, soon and without memory."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(InputError) as caught:
        read()
    assert time.process_time() - started < MOST_SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MOST_MEGABYTES
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"embed_dims": [8, 8, 8, 80_000]},
        {"depths": [1, 1, 1, 10**9]},
        {"deconv_channels": [4] * 5_000},
        {"num_keypoints": 10**8},
        {"mlp_ratio": 1e300},
    ],
    ids=repr,
)
def test_a_checkpoint_that_describes_a_giant_is_refused_before_it_is_built(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    contents = small_checkpoint()
    contents[RECORD_KEY]["network"].update(change)
    torch.save(contents, tmp_path / "giant.ckpt")
    assert "giant.ckpt" in refused_cheaply(lambda: load_model(tmp_path / "giant.ckpt"))


@pytest.fixture
def large_png(tmp_path: Path) -> Path:
    """400 million pixels in 50 kB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    side = 20_000
    packer = zlib.compressobj(9)
    rows = b"\0" * (1 + side // 8) * 100
    pixels = b"".join(packer.compress(rows) for _ in range(side // 100)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    (tmp_path / "large.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return tmp_path / "large.png"


def test_a_picture_of_hundreds_of_millions_of_pixels_is_not_decoded(large_png: Path) -> None:
    assert "large.png" in refused_cheaply(lambda: read_photo(large_png))
    # Training in a process of its own: OpenCV reads its limit when it is loaded, and other tests load it before us.
    program = (
        "import pathlib, re, sys; from uniformer_pose.data.images import decode_image\n"
        "from uniformer_pose.errors import InputError\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "try: decode_image(path, path.read_bytes(), height=480, width=640)\n"
        "except InputError as error: print(error)\n"
        "status = pathlib.Path('/proc/self/status').read_text()\n"  # getrusage counts the parent's memory too
        "print(int(re.search(r'VmHWM:\\s*(\\d+)', status)[1]) // 1024)\n"
    )
    command = [sys.executable, "-c", program, str(large_png)]
    line, megabytes = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "large.png" in line
    assert int(megabytes) < MOST_MEGABYTES
