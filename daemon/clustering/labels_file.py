"""The file of labels that `stillwatch cluster --out` writes: whole or not at all."""

import errno
import os
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from storage.errors import DiskFullError, StillwatchError, UsageError

NO_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What link(2) says on a filesystem without hard links."""


def check_target(out: Path, source: Path, *, force: bool) -> None:
    """Refuse a target before hours of work go into it.

    Args:
        out: The file to write.
        source: The file of the vectors, never to be replaced.
        force: Another file that is there may be replaced.

    Raises:
        UsageError: With what is in the way.
    """
    where = str(out)
    if not out.parent.is_dir():
        raise UsageError(f"There is no folder {out.parent}.", hint="Make it first.", path=where)
    if out.is_dir():
        raise UsageError(f"This is a folder: {out}.", hint="Name a file in it.", path=where)
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise UsageError(f"The folder {out.parent} may not be written.", path=where)
    if not os.path.lexists(out):
        return
    if out.exists() and source.exists() and out.samefile(source):
        raise UsageError(
            f"--out names the file of the vectors: {out}.", hint="Name another one.", path=where
        )
    if out.exists() and not out.is_file():
        raise UsageError(f"This is no regular file: {out}.", hint="Name a file.", path=where)
    if not force:
        raise _taken(out)


def _taken(out: Path) -> UsageError:
    return UsageError(
        f"There is a file already: {out}.", hint="Replace it with --force.", path=str(out)
    )


def write_labels(out: Path, labels: NDArray[np.int64], *, force: bool) -> None:
    """Write labels (n,) int64 as .npy, under exactly this name; there is never half a file.

    Raises:
        UsageError: Meanwhile there is a file, and `force` is not set.
        DiskFullError: No room.
        StillwatchError: Any other trouble of the folder or disk.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".stillwatch-", dir=out.parent) as folder:
            fresh = Path(folder) / "labels.npy"
            with fresh.open("wb") as file:
                np.save(file, labels.astype("<i8"), allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            if force:
                fresh.replace(out)
            else:
                _link(fresh, out)
    except FileExistsError:
        raise _taken(out) from None
    except OSError as exc:
        summary = f"The labels cannot be written to {out}: {exc.strerror}."
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(summary, path=str(out)) from exc
        raise StillwatchError(summary, hint="Name another --out.", path=str(out)) from exc


def _link(fresh: Path, out: Path) -> None:
    """Give the file its name; unlike a rename this never replaces another."""
    try:
        out.hardlink_to(fresh)
    except OSError as exc:
        if exc.errno not in NO_LINKS:
            raise
        if os.path.lexists(out):
            raise FileExistsError(errno.EEXIST, "there is a file", str(out)) from None
        fresh.replace(out)
