"""Which files below a camera's folder are candidates (contract, section 1)."""

import os
import re
from collections.abc import Collection
from typing import Final, Literal

OWN_FOLDER: Final = b"stillwatch"
"""Folder below FOLDER that stillwatch owns; nothing in it is ever ingested."""

_TEMPORARY = re.compile(rb"(\.part|\.filepart|\.tmp)\Z", re.IGNORECASE)
_HIDDEN_UPLOAD = re.compile(rb"\.in\..|\..+\..+\.[A-Za-z0-9]{6}\Z", re.DOTALL)


Kind = Literal["candidate", "ignored", "skipped"]


def is_upload_name(name: bytes) -> bool:
    """Whether a file's own name is one that a transfer gives until it is complete.

    rsync: `.NAME.XXXXXX`; ProFTPD: `.in.NAME.`; WinSCP: `NAME.filepart`; others: `.part`, `.tmp`.
    """
    return bool(_TEMPORARY.search(name) or _HIDDEN_UPLOAD.match(name))


def classify(path: bytes, ignored_extensions: Collection[bytes]) -> Kind:
    """Judge a path below the camera's root by its name alone; content decides later.

    Hidden names cover the temporary names of rsync (`.NAME.XXXXXX`) and of servers (`.in.NAME`).
    `ignored` files are counted for the owner; `skipped` ones are hidden, temporary or our own.
    """
    parts = path.split(b"/")
    if parts[0] == OWN_FOLDER and len(parts) > 1:
        return "skipped"
    if any(part.startswith(b".") for part in parts) or is_upload_name(parts[-1]):
        return "skipped"
    extension = os.path.splitext(parts[-1])[1][1:].lower()
    return "ignored" if extension in ignored_extensions else "candidate"


def is_watched_folder(path: bytes) -> bool:
    """Whether a directory below the root may hold candidates."""
    parts = path.split(b"/")
    return parts[0] != OWN_FOLDER and not any(part.startswith(b".") for part in parts)
