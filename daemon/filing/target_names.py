"""Names of filed files and their folders: pure functions over bytes."""

import re
from collections.abc import Callable
from typing import Final

from storage.beneath import NAME_MAX

FOLDER_NAME_MAX: Final = 80
"""Longest cleaned name of a folder, in bytes (contract, section 6)."""
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f/\\\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def clean_name(text: str, fallback: str) -> bytes:
    """A name safe as one path component: what people type becomes a folder of that name.

    Valid UTF-8, at most 80 bytes, no separator or control character, no leading dot or dash, no
    blank or dot at the end; `fallback` where nothing is left.
    """
    whole = _UNSAFE.sub("_", text.encode("utf-8", "replace").decode("utf-8"))
    cut = cut_utf8(whole.strip().lstrip(".-").lstrip().encode(), FOLDER_NAME_MAX)
    return cut.rstrip(b". ").lstrip(b".- ") or fallback.encode()


def folder_stem(name: bytes, identifier: str) -> bytes:
    """The folder of a keeper's duplicates: `<keeper stem>-<keeper id>`, at most 80 bytes."""
    stem = split_extension(name)[0].decode("utf-8", "replace").replace("\ufffd", "_")
    suffix = b"-" + identifier.encode()
    return cut_utf8(clean_name(stem, "frame"), FOLDER_NAME_MAX - len(suffix)) + suffix


def file_name(name: bytes) -> bytes:
    """The delivered name, kept byte for byte unless it is hidden or looks like an option."""
    return name.lstrip(b".-") or b"frame"


def suffixed_name(name: bytes, suffix: bytes) -> bytes:
    """`suffix` put before the extension; at most 255 bytes, no UTF-8 sequence cut in two."""
    stem, extension = split_extension(name)
    room = NAME_MAX - len(suffix) - len(extension)
    if room < 1:  # an "extension" that is nearly the whole name is none
        stem, extension, room = name, b"", NAME_MAX - len(suffix)
    return cut_utf8(stem, room) + suffix + extension


def available_name(name: bytes, taken: Callable[[bytes], bool]) -> bytes:
    """`name`, or the first of `stem (2).ext`, `stem (3).ext`, ... that is not taken."""
    number = 1
    candidate = name
    while taken(candidate):
        number += 1
        candidate = suffixed_name(name, b" (%d)" % number)
    return candidate


def split_extension(name: bytes) -> tuple[bytes, bytes]:
    """Stem and extension (with its dot); a leading dot starts no extension."""
    stem, dot, extension = name.rpartition(b".")
    return (stem, dot + extension) if stem.strip(b".") else (name, b"")


def cut_utf8(text: bytes, limit: int) -> bytes:
    """The first `limit` bytes, fewer where that would cut a UTF-8 sequence in two."""
    if len(text) <= limit:
        return text
    while limit > 0 and text[limit] & 0xC0 == 0x80:
        limit -= 1
    return text[:limit]


def join(*parts: bytes) -> bytes:
    """The parts as one relative path; empty parts are left out."""
    return b"/".join(part for part in parts if part)
