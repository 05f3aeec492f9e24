"""The file of the database: its name, its log, and the SQLite that opens it.

Light, so that the fast commands may import it; nothing here opens a database.
"""

from pathlib import Path
from types import ModuleType
from typing import Final

DATABASE_NAME: Final = "stillwatch.db"
WAL_SAFE_VERSION: Final = (3, 51, 3)


def sqlite_driver() -> ModuleType:
    """The DB-API module: pysqlite3 (a recent SQLite) where it is installed, else the stdlib's."""
    try:
        import pysqlite3.dbapi2 as driver
    except ImportError:
        import sqlite3 as driver
    module: ModuleType = driver
    return module


def wal_is_safe() -> bool:
    """Whether this SQLite has the fix of the WAL-reset bug."""
    version: tuple[int, ...] = sqlite_driver().sqlite_version_info
    return version >= WAL_SAFE_VERSION


def log_of(path: Path) -> Path:
    """Where the write-ahead log of a database lies."""
    return path.with_name(f"{DATABASE_NAME}-wal")


def file_identity(path: Path) -> tuple[int, int] | None:
    """(device, inode) of a file; None where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return (status.st_dev, status.st_ino)


def has_content(path: Path) -> bool:
    """Whether a file is there and not empty."""
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False
