"""Writing FAISS files so that a disk that is full or failing is met as an OSError.

FAISS's own writer raises RuntimeError, and says nothing at all but a line on standard error when
the last bytes fail at closing (faiss/impl/io.cpp, FileIOWriter).
"""

from pathlib import Path
from typing import Any, Final

_CHUNK_BYTES: Final = 1 << 20


def write_faiss(index: Any, path: Path) -> None:
    """Write an index to a new file.

    Raises:
        OSError: It cannot be written, or not to its end.
    """
    import faiss

    library: Any = faiss  # its stubs leave the writer out
    with path.open("wb") as file:
        library.write_index(index, library.PyCallbackIOWriter(file.write, _CHUNK_BYTES))
