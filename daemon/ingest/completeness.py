"""Whether a picture file goes on to its end, by the marks that its format puts there.

Some decoders are content once they have the pixels of the first picture: they take a PNG without
its end, or an animation of which a broken transfer brought a third. Such a file is no copy of the
whole one and must not be judged like it. What follows the end does not matter.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Final

_QOI_END: Final = bytes(7) + b"\x01"
_TIFF_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_TIFF_LONG_SIZES: Final = {13: 4, 16: 8, 17: 8, 18: 8}
_TIFF_NUMBERS: Final = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
"""Bytes of a value of each type, and how numbers are written (TIFF 6.0; BigTIFF from 16 on)."""
_OFFSETS_AND_COUNTS: Final = ((273, 279), (324, 325))
"""Tags of strips and of tiles: where each begins, how many bytes it has."""


def is_complete(data: bytes, form: str) -> bool:
    """Whether nothing of the file is missing; True for formats whose decoders see to it.

    Args:
        data: The whole file, which was decoded.
        form: Its format, as Pillow names it.
    """
    check = _CHECKS.get(form)
    try:
        return check is None or check(data)
    except (struct.error, IndexError):  # a number or a mark lies beyond the end
        return False


def _png(data: bytes) -> bool:
    place = 8
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        kind = data[place + 4 : place + 8]
        place += 12 + length
        if kind == b"IEND":
            return int(place) <= len(data)
    return False


def _gif(data: bytes) -> bool:
    place = 13 + _gif_colours(data[10])
    while (mark := data[place]) != 0x3B:
        if mark == 0x2C:  # a frame: descriptor, colours, code size, blocks
            place += 11 + _gif_colours(data[place + 9])
        elif mark == 0x21:  # an extension: label, blocks
            place += 2
        else:
            return False
        while length := data[place]:
            place += 1 + length
        place += 1
    return True


def _gif_colours(flags: int) -> int:
    """Bytes of the table of colours that the flags announce."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _qoi(data: bytes) -> bool:
    return _QOI_END in data[14:]  # never within pixels: an encoder writes a run in their place


def _ico(data: bytes) -> bool:
    (count,) = struct.unpack_from("<H", data, 4)
    for number in range(count):
        size, start = struct.unpack_from("<II", data, 6 + 16 * number + 8)
        if start + size > len(data):
            return False
    return True


def _tiff(data: bytes) -> bool:
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    pointer = order + ("Q" if big else "I")
    (place,) = struct.unpack_from(pointer, data, 8 if big else 4)
    seen: set[int] = set()
    while place and place not in seen:
        seen.add(place)
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, place)
        first, size = place + (8 if big else 2), 20 if big else 12
        (place,) = struct.unpack_from(pointer, data, first + size * count)
        entries = range(first, first + size * count, size)
        values = dict(_tiff_values(data, order, big, entries))
        for offsets, counts in _OFFSETS_AND_COUNTS:
            ends = map(sum, zip(values.get(offsets, ()), values.get(counts, ()), strict=False))
            if max(ends, default=0) > len(data):
                return False
    return True


def _tiff_values(
    data: bytes, order: str, big: bool, entries: range
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Tag and numbers of those entries that say where pixels are; the others must only be there."""
    wanted = {tag for pair in _OFFSETS_AND_COUNTS for tag in pair}
    sizes = _TIFF_SIZES | _TIFF_LONG_SIZES
    for entry in entries:
        tag, kind, count = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, entry)
        start, inside = (entry + 12, 8) if big else (entry + 8, 4)
        size = sizes.get(kind, 0) * count
        if size > inside:
            (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, start)
        if start + size > len(data):
            raise IndexError("a value lies beyond the end")
        if tag in wanted and kind in _TIFF_NUMBERS:
            yield tag, struct.unpack_from(f"{order}{count}{_TIFF_NUMBERS[kind]}", data, start)


_CHECKS: Final[Mapping[str, Callable[[bytes], bool]]] = {
    "PNG": _png,
    "GIF": _gif,
    "QOI": _qoi,
    "ICO": _ico,
    "TIFF": _tiff,
}
