"""Every operation that changes files, by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.faults.database_operations import DATABASE_OPERATIONS
from tests.faults.file_operations import FILE_OPERATIONS
from tests.faults.publications import PUBLICATIONS

OPERATIONS: Final[dict[str, Callable[[Path], Any]]] = {
    **FILE_OPERATIONS,
    **DATABASE_OPERATIONS,
    **PUBLICATIONS,
}
