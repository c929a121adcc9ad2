"""A JPEG to the same picture with a restart marker every few blocks, so that any window of it can be decoded alone.

Nothing is compressed again: the AC coefficients' bits are copied, the DC values, which tie a block to the one before
it, are written anew, in full at the start of each interval, which ends on a whole byte and a restart marker (ITU-T
T.81, sections E.1.4 and F.1.2). Every decoder reads the result as it reads the source. The DC codes are those of
T.81's tables K.3 and K.4: a quarter of COCO's files have tables of their own, without a code for a DC value in full.

To cut it into intervals the scan has to be walked through symbol by symbol. What a symbol at a bit would mean is looked
up for all bits at once; only the steps from one to the next are Python's (30 to 60 ms for a picture of 640x480).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

TABLE_NAME = b"person-crop intervals\x00"
"""What the application segment begins with that holds the intervals' lengths."""

TABLE_LAYOUT = struct.Struct("<HHHHHHH")
"""MCU width and height in pixels, MCUs an interval, intervals a row, rows, byte of the frame's height, blank length."""

_APPLICATION_9 = 0xE9
_MOST_SCAN_BYTES = 8_000_000  # half a gigabyte of lookups
_MOST_INTERVALS = 30_000  # one segment holds their lengths
_WANTED_MCUS = 4  # an interval; fewer cost bytes (1: +12 %, 4: +3 % of COCO's files), more are decoded needlessly

_DC_CODES_BY_LENGTH = (bytes([0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]), bytes([0, 3, *[1] * 9, 0, 0, 0, 0, 0]))
_DC_SIZES = bytes(range(12))

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]


class NotDivisible(ValueError):  # noqa: N818, it is an answer rather than an error
    """This JPEG cannot be cut into intervals; the message says why. It has to be stored whole."""


@dataclass(frozen=True)
class DividedJpeg:
    """``data``: the new file, its table of intervals at byte ``table_start``, its picture data at ``scan_start``."""

    data: bytes
    table_start: int
    scan_start: int


@dataclass(frozen=True)
class _Component:
    """One colour channel: its sampling, and its tables in the source. ``new_dc_table``: that in the result."""

    identifier: int
    new_dc_table: int
    horizontal: int
    vertical: int
    dc_table: int
    ac_table: int


@dataclass(frozen=True)
class _Frame:
    """What stands before the picture data. ``kept``: the segments that the result takes over."""

    height: int
    width: int
    components: list[_Component]
    tables: dict[tuple[int, int], _HuffmanTable]
    kept: bytes
    height_position: int
    scan: bytes

    @property
    def mcu_size(self) -> tuple[int, int]:
        """Height and width in pixels of the smallest unit that holds whole blocks of each component."""
        if len(self.components) == 1:
            return 8, 8
        return 8 * max(c.vertical for c in self.components), 8 * max(c.horizontal for c in self.components)


class _HuffmanTable:
    """A Huffman table for lookups by the 16 bits that follow; code length 0: no code begins so."""

    def __init__(self, counts: bytes, symbols: bytes) -> None:
        self.definition = counts + symbols
        self.code_length = np.zeros(65536, dtype=np.uint8)
        self.symbol = np.zeros(65536, dtype=np.uint8)
        self.codes: dict[int, tuple[int, int]] = {}
        code, position = 0, 0
        for length, count in enumerate(counts, start=1):
            for symbol in symbols[position : position + count]:
                if code >= 1 << length:
                    raise NotDivisible("a Huffman table with too many codes")
                first, last = code << (16 - length), (code + 1) << (16 - length)
                self.code_length[first:last] = length
                self.symbol[first:last] = symbol
                self.codes[symbol] = (code, length)
                code += 1
            position += count
            code <<= 1

    def code(self, symbol: int) -> tuple[int, int]:
        """Code and its length in bits."""
        try:
            return self.codes[symbol]
        except KeyError:
            raise NotDivisible("a Huffman table without a code that intervals need") from None


def divide_jpeg(data: bytes) -> DividedJpeg:
    """The same picture in intervals; metadata that do not change the pixels (EXIF, comments, profiles) are left out.

    Raises ``NotDivisible`` for what is no baseline JPEG of one scan without restart markers. Who stores the result
    should decode both and compare: of damaged data that decoders forgive, not every kind is noticed here.
    """
    try:
        return _divided(_read_frame(data))
    except (IndexError, struct.error, KeyError, ValueError) as error:
        if isinstance(error, NotDivisible):
            raise
        raise NotDivisible("a damaged JPEG") from error


def _read_frame(data: bytes) -> _Frame:
    if data[:2] != b"\xff\xd8":
        raise NotDivisible("no JPEG")
    position, kept, height_position = 2, b"", 0
    height = width = 0
    sampling: dict[int, tuple[int, int]] = {}
    tables: dict[tuple[int, int], _HuffmanTable] = {}
    while True:
        if data[position] != 0xFF:
            raise NotDivisible("a damaged JPEG")
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        segment, content = data[position : position + 2 + length], data[position + 4 : position + 2 + length]
        if len(content) != length - 2:
            raise NotDivisible("a damaged JPEG")
        position += 2 + length
        if marker == 0xDA:
            return _Frame(
                height,
                width,
                _scan_components(content, sampling),
                tables,
                kept,
                height_position,
                _only_scan(data, position),
            )
        if marker == 0xC0 and not sampling:
            precision, height, width, count = struct.unpack_from(">BHHB", content)
            if precision != 8 or height == 0 or width == 0 or len(content) != 6 + 3 * count:
                raise NotDivisible("a JPEG that is not of 8 bits, or without a size")
            sampling = {content[i]: (content[i + 1] >> 4, content[i + 1] & 15) for i in range(6, len(content), 3)}
            height_position = 2 + len(kept) + 5
        elif marker == 0xC4:
            tables.update(_huffman_tables(content))
            continue
        elif marker == 0xDD:
            if content != b"\x00\x00":
                raise NotDivisible("a JPEG with restart markers")
            continue
        elif marker not in (0xDB, 0xE0, 0xEE):  # quantisation; JFIF and Adobe decide how colours are stored
            if 0xE0 <= marker <= 0xEF or marker == 0xFE:
                continue
            raise NotDivisible("not a baseline JPEG")  # progressive, arithmetic, lossless
        kept += segment


def _huffman_tables(content: bytes) -> dict[tuple[int, int], _HuffmanTable]:
    """Tables by (0 for DC or 1 for AC, number)."""
    tables, position = {}, 0
    while position < len(content):
        counts = content[position + 1 : position + 17]
        size = sum(counts)
        symbols = content[position + 17 : position + 17 + size]
        if len(symbols) != size:
            raise NotDivisible("a damaged JPEG")
        tables[content[position] >> 4, content[position] & 15] = _HuffmanTable(counts, symbols)
        position += 17 + size
    return tables


def _scan_components(content: bytes, sampling: dict[int, tuple[int, int]]) -> list[_Component]:
    count = content[0]
    if count != len(sampling) or len(content) != 4 + 2 * count or content[-3:] != b"\x00\x3f\x00":
        raise NotDivisible("a JPEG of several scans")
    components = []
    for index in range(count):
        identifier, numbers = content[1 + 2 * index], content[2 + 2 * index]
        components.append(_Component(identifier, min(index, 1), *sampling[identifier], numbers >> 4, numbers & 15))
    if any(not (1 <= c.horizontal <= 4 and 1 <= c.vertical <= 4) for c in components):
        raise NotDivisible("a damaged JPEG")
    if len({c.identifier for c in components}) != count:
        raise NotDivisible("a damaged JPEG")
    return components


def _only_scan(data: bytes, start: int) -> bytes:
    """The picture data without stuffed zeros, if nothing but the end marker follows them."""
    if len(data) - start > _MOST_SCAN_BYTES:
        raise NotDivisible("a JPEG of more than 8 MB")
    end = start
    while True:
        end = data.index(b"\xff", end)
        if data[end + 1] != 0:
            break
        end += 2
    if data[end + 1] != 0xD9:
        raise NotDivisible("a JPEG of several scans")
    return data[start:end].replace(b"\xff\x00", b"\xff")


def _divided(frame: _Frame) -> DividedJpeg:
    mcu_height, mcu_width = frame.mcu_size
    mcus_a_row, rows = -(-frame.width // mcu_width), -(-frame.height // mcu_height)
    mcus = _mcus_an_interval(mcus_a_row)
    if mcus_a_row // mcus * rows > _MOST_INTERVALS:
        raise NotDivisible("a picture of too many intervals")
    blank = _blank_interval(frame, mcus)
    scan, lengths = _scan_in_intervals(frame, mcus, mcus_a_row * rows)
    if lengths.max() > 65535:
        raise NotDivisible("an interval of more than 64 kB")
    start = b"\xff\xd8" + frame.kept + _new_tables(frame) + _segment(0xDD, struct.pack(">H", mcus))
    numbers = TABLE_LAYOUT.pack(
        mcu_width, mcu_height, mcus, mcus_a_row // mcus, rows, frame.height_position, len(blank)
    )
    table = TABLE_NAME + numbers + blank + lengths.astype("<u2").tobytes()
    head = start + _segment(_APPLICATION_9, table) + _scan_header(frame)
    return DividedJpeg(head + scan, table_start=len(start), scan_start=len(head))


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content


def _new_tables(frame: _Frame) -> bytes:
    """The Huffman tables of the result: DC tables of its own, the source's AC tables."""
    content = b"".join(bytes([i]) + counts + _DC_SIZES for i, counts in enumerate(_DC_CODES_BY_LENGTH))
    for number in sorted({component.ac_table for component in frame.components}):
        content += bytes([1 << 4 | number]) + frame.tables[1, number].definition
    return _segment(0xC4, content)


def _scan_header(frame: _Frame) -> bytes:
    content = bytes([len(frame.components)])
    for component in frame.components:
        content += bytes([component.identifier, component.new_dc_table << 4 | component.ac_table])
    return _segment(0xDA, content + b"\x00\x3f\x00")


def _mcus_an_interval(mcus_a_row: int) -> int:
    """A divisor of ``mcus_a_row`` near the wanted number, so that no interval goes on in the next row."""
    divisors = [n for n in range(1, 4 * _WANTED_MCUS + 1) if mcus_a_row % n == 0]
    return min(divisors, key=lambda n: abs(np.log(n / _WANTED_MCUS)))


def _blocks_of_mcu(frame: _Frame) -> list[int]:
    """The component, by its place in the scan, of each block of an MCU."""
    if len(frame.components) == 1:
        return [0]
    return [i for i, c in enumerate(frame.components) for _ in range(c.horizontal * c.vertical)]


def _blank_interval(frame: _Frame, mcus: int) -> bytes:
    """An interval whose blocks are all grey, with a restart marker of no valid number behind it."""
    bits, dc_tables = "", _new_dc_tables()
    for index in _blocks_of_mcu(frame) * mcus:
        component = frame.components[index]
        for table in (dc_tables[component.new_dc_table], frame.tables[1, component.ac_table]):
            code, length = table.code(0)
            bits += format(code, f"0{length}b")
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00") + b"\xff\xd0"


def _scan_in_intervals(frame: _Frame, mcus: int, num_mcus: int) -> tuple[bytes, Integers]:
    """The picture data with a marker after each interval (the end marker after the last), and the lengths with it."""
    source = np.frombuffer(frame.scan + b"\xff" * 8, dtype=np.uint8)
    pattern = _blocks_of_mcu(frame)
    starts, end = _block_starts(frame, source, pattern, num_mcus)
    if not 0 <= len(frame.scan) * 8 - end < 8:
        raise NotDivisible("a damaged JPEG")
    dc_lengths, dc_values = _dc_values(frame, source, starts, pattern)

    # Pieces of bits, interval by interval: for each block a new DC code, then the AC codes; last, ones up to a byte.
    blocks_an_interval = mcus * len(pattern)
    new_codes, new_lengths = _dc_codes(frame, dc_values, pattern, blocks_an_interval)
    copied_from = starts + dc_lengths
    copied_lengths = np.append(starts[1:], end) - copied_from
    source_bits = np.unpackbits(source)
    code_bits = np.unpackbits(new_codes.astype(">u4").view(np.uint8))
    pool = np.concatenate([source_bits, code_bits, np.ones(8, dtype=np.uint8)])
    code_starts = len(source_bits) + 32 * np.arange(1, len(new_codes) + 1) - new_lengths
    piece_starts = np.stack([code_starts, copied_from], axis=1).reshape(-1, 2 * blocks_an_interval)
    piece_lengths = np.stack([new_lengths, copied_lengths], axis=1).reshape(-1, 2 * blocks_an_interval)
    fill = -piece_lengths.sum(axis=1, keepdims=True) % 8
    piece_starts = np.append(piece_starts, np.full_like(fill, len(pool) - 8), axis=1)
    piece_lengths = np.append(piece_lengths, fill, axis=1)
    packed = np.packbits(pool[_ranges(piece_starts.reshape(-1), piece_lengths.reshape(-1))])
    return _with_markers(packed, piece_lengths.sum(axis=1) // 8)


def _block_starts(frame: _Frame, source: Bytes, pattern: Sequence[int], num_mcus: int) -> tuple[Integers, int]:
    """At which bit each block begins, and the bit behind the last."""
    three = source[:-2].astype(np.uint32) << 16 | source[1:-1].astype(np.uint32) << 8 | source[2:]
    following = ((three[:, None] >> np.arange(8, 0, -1, dtype=np.uint32)) & 0xFFFF).astype(np.uint16).reshape(-1)
    dc_steps, ac_steps = {}, {}
    for component in frame.components:
        if component.dc_table not in dc_steps:
            table = frame.tables[0, component.dc_table]
            dc_steps[component.dc_table] = (table.code_length + table.symbol)[following].tobytes()
        if component.ac_table not in ac_steps:
            table = frame.tables[1, component.ac_table]
            run, size = table.symbol >> 4, table.symbol & 15
            # A symbol of size 0 ends the block, but for 0xF0: sixteen zeros. So does what is no code.
            coefficients = np.where((size == 0) & (run != 15) | (table.code_length == 0), 64, run + 1)
            ac_steps[component.ac_table] = (
                (table.code_length + size)[following].tobytes(),
                coefficients.astype(np.uint8)[following].tobytes(),
            )
    steps = [(dc_steps[frame.components[i].dc_table], *ac_steps[frame.components[i].ac_table]) for i in pattern]
    starts: list[int] = []
    position = 0
    for _ in range(num_mcus):
        for dc_bits, ac_bits, ac_coefficients in steps:
            starts.append(position)
            position += dc_bits[position]
            coefficient = 1
            while coefficient < 64:
                coefficient += ac_coefficients[position]
                position += ac_bits[position]
    return np.array(starts, dtype=np.int64), position


def _dc_values(frame: _Frame, source: Bytes, starts: Integers, pattern: Sequence[int]) -> tuple[Integers, Integers]:
    """The length in bits of each block's DC difference, and the DC value itself."""
    component_of_block = np.tile(pattern, len(starts) // len(pattern))
    lengths, values = np.zeros_like(starts), np.zeros_like(starts)
    for index, component in enumerate(frame.components):
        own = component_of_block == index
        table = frame.tables[0, component.dc_table]
        begin = starts[own]
        window = _bits(source, begin, np.full_like(begin, 16))
        code_length, size = table.code_length[window].astype(np.int64), table.symbol[window].astype(np.int64)
        if (code_length == 0).any() or size.max() > 15:
            raise NotDivisible("a damaged JPEG")
        extra = _bits(source, begin + code_length, size)
        difference = np.where(extra < (1 << size) >> 1, extra - (1 << size) + 1, extra)
        lengths[own], values[own] = code_length + size, np.cumsum(difference)
    return lengths, values


def _dc_codes(
    frame: _Frame, values: Integers, pattern: Sequence[int], blocks_an_interval: int
) -> tuple[Integers, Integers]:
    """The bits that say each block's DC value, counted from 0 at the start of an interval, and how many they are."""
    codes, lengths = np.zeros_like(values), np.zeros_like(values)
    component_of_block = np.tile(pattern, len(values) // len(pattern))
    tables = _new_dc_tables()
    for index, component in enumerate(frame.components):
        own = component_of_block == index
        by_interval = values[own].reshape(-1, blocks_an_interval * pattern.count(index) // len(pattern))
        value = np.diff(by_interval, axis=1, prepend=0).reshape(-1)
        if np.abs(value).max() >= 1 << len(_DC_SIZES) - 1:
            raise NotDivisible("a damaged JPEG")
        size = np.ceil(np.log2(np.abs(value) + 1)).astype(np.int64)
        extra = np.where(value < 0, value + (1 << size) - 1, value)
        table = tables[component.new_dc_table]
        by_size = np.array([table.code(symbol) for symbol in _DC_SIZES])
        codes[own], lengths[own] = (by_size[size, 0] << size) | extra, by_size[size, 1] + size
    return codes, lengths


@cache
def _new_dc_tables() -> tuple[_HuffmanTable, ...]:
    return tuple(_HuffmanTable(counts, _DC_SIZES) for counts in _DC_CODES_BY_LENGTH)


def _bits(source: Bytes, positions: Integers, lengths: Integers) -> Integers:
    """The numbers that stand at bit ``positions``, of up to 16 bits each."""
    byte = positions >> 3
    three = source[byte].astype(np.int64) << 16 | source[byte + 1].astype(np.int64) << 8 | source[byte + 2]
    numbers: Integers = (three >> (24 - (positions & 7) - lengths)) & ((1 << lengths) - 1)
    return numbers


def _ranges(starts: Integers, lengths: Integers) -> Integers:
    """``starts[0], starts[0] + 1, ...``, as many as ``lengths[0]``, then those of the next."""
    ends = np.cumsum(lengths)
    indices: Integers = np.arange(ends[-1]) + np.repeat(starts - (ends - lengths), lengths)
    return indices


def _with_markers(packed: Bytes, lengths: Integers) -> tuple[bytes, Integers]:
    """The bytes of all intervals with zeros stuffed after 0xFF and a marker after each; and the lengths with both."""
    ends = np.cumsum(lengths)
    full = np.flatnonzero(packed == 0xFF)
    stuffed_before = np.searchsorted(full, ends)
    stuffed_ends = ends + stuffed_before
    stuffed = np.insert(packed, full + 1, 0)
    markers = np.stack([np.full(len(ends), 0xFF), 0xD0 + np.arange(len(ends)) % 8], axis=1).astype(np.uint8)
    markers[-1, 1] = 0xD9
    marked = np.insert(stuffed, np.repeat(stuffed_ends, 2), markers.reshape(-1))
    return marked.tobytes(), np.diff(stuffed_ends, prepend=0) + 2
