r"""Identifiers and paths as other programs see them.

Ids are strings with a one-letter prefix (`f12`, `c3`, `r7`, `q1`). Paths are bytes below the
camera's root; text form escapes what is not UTF-8 as ``\xNN`` and control characters too, so a
file name can never forge a line of a log or a terminal.
"""

import base64
import re
from typing import Final

FRAME: Final = "f"
CLUSTER: Final = "c"
RUN: Final = "r"
REQUEST: Final = "q"

_CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e"
    r"\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    r"\U000e0001-\U000e007f]"
)
"""Every control, format and separator character of Unicode: none prints, some steer."""


def format_id(kind: str, number: int | None) -> str | None:
    """`format_id("f", 12)` is ``"f12"``; nothing stays nothing."""
    return None if number is None else f"{kind}{number}"


def is_utf8(path: bytes) -> bool:
    """Whether the path can be shown as it is."""
    try:
        path.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def display_path(path: bytes) -> str:
    r"""The path as text for JSON: bytes that are not UTF-8 become ``\xNN``."""
    return path.decode("utf-8", "backslashreplace")


def printable_path(path: bytes) -> str:
    r"""The path for a terminal or a log line: control characters escaped as well."""
    return _CONTROL.sub(lambda m: f"\\x{ord(m.group()):02x}", display_path(path))


def path_fields(path: bytes, key: str = "path") -> dict[str, str]:
    """The JSON fields of a path: text, and base64 of the bytes where text loses something."""
    fields = {key: display_path(path)}
    if not is_utf8(path):
        fields[f"{key}_b64"] = base64.b64encode(path).decode("ascii")
    return fields


def natural_key(name: bytes) -> tuple[tuple[int, int, bytes], ...]:
    """Sort key that puts `img2` before `img10`; total over any bytes."""
    parts = re.split(rb"(\d+)", name)
    return tuple((1, int(p), p) if i % 2 else (0, 0, p) for i, p in enumerate(parts))
