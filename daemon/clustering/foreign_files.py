"""What a file is that holds no plain NumPy array, and how to make one of it.

Told by content; only where the content says nothing does the extension speak. Nothing is opened
by the library that made it: a pickle runs the code in it when it is opened.
"""

import pickletools
from pathlib import Path
from typing import Final

from storage.errors import UsageError

PICKLE_REASON: Final = "it would run whatever code is in it when opened, so it is not opened"
SAVE: Final = "numpy.save('vectors.npy', numpy.asarray(vectors, dtype='float32'))"
_TRUSTED: Final = "If you trust its origin, convert it yourself in Python: "
PICKLE_HINT: Final = f"{_TRUSTED}vectors = pickle.load(open(FILE, 'rb')); {SAVE}"
JOBLIB_HINT: Final = f"{_TRUSTED}vectors = joblib.load(FILE); {SAVE}"
TORCH_HINT: Final = f"In Python: vectors = torch.load(FILE, weights_only=True).numpy(); {SAVE}"
OBJECTS_HINT: Final = (
    f"{_TRUSTED}vectors = numpy.stack(numpy.load(FILE, allow_pickle=True)); {SAVE}"
)
HDF5_HINT: Final = f"In Python: vectors = h5py.File(FILE)['NAME'][:]; {SAVE}"
_TEXT_HINT: Final = f"In Python: vectors = numpy.loadtxt(FILE, delimiter=','); {SAVE}"
_RAW_HINT: Final = (
    f"Raw numbers, in Python: vectors = numpy.fromfile(FILE, 'float32').reshape(-1, DIM); {SAVE}"
)
_UNPACK_HINT: Final = "Unpack it first, then name the .npy file that was in it."
_TABLE_HINT: Final = f"In Python: vectors = table[columns].to_numpy(); {SAVE}"
_MATLAB_HINT: Final = f"In Python: vectors = scipy.io.loadmat(FILE)['NAME']; {SAVE}"
_PICTURE_HINT: Final = "Pictures are clustered by `stillwatch run FOLDER --once`."
_SAFETENSORS_HINT: Final = f"In Python: vectors = safetensors.numpy.load_file(FILE)['NAME']; {SAVE}"

SIGNATURES: Final[tuple[tuple[bytes, str, str], ...]] = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", HDF5_HINT),
    (b"\x1f\x8b", "compressed with gzip", _UNPACK_HINT),
    (b"BZh", "compressed with bzip2", _UNPACK_HINT),
    (b"\xfd7zXZ\x00", "compressed with xz", _UNPACK_HINT),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", _UNPACK_HINT),
    (b"PAR1", "a Parquet table", _TABLE_HINT),
    (b"ARROW1", "an Arrow table", _TABLE_HINT),
    (b"MATLAB 5.0", "a MATLAB file", _MATLAB_HINT),
    (b"SQLite format 3\x00", "an SQLite database", f"Read its vectors in Python; then {SAVE}"),
    (b"\xff\xd8\xff", "a JPEG picture", _PICTURE_HINT),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture", _PICTURE_HINT),
)
"""First bytes, what such a file is, and the way to plain numbers."""
PICKLE_SUFFIXES: Final = {
    ".pkl": PICKLE_HINT,
    ".pickle": PICKLE_HINT,
    ".joblib": JOBLIB_HINT,
    ".pt": TORCH_HINT,
    ".pth": TORCH_HINT,
}
HEAD_BYTES: Final = 4096
"""What is looked at to tell a kind."""


def refusal(path: Path, head: bytes) -> UsageError:
    """The error for a file that is neither .npy nor .npz.

    Args:
        path: The file; its extension is the last thing asked.
        head: Its first `HEAD_BYTES` bytes, not empty.
    """
    kind, hint = _kind(path, head)
    return UsageError(
        f"This is {kind}, not a NumPy array (.npy, .npz): {path}.",
        hint=hint.replace("FILE", repr(path.name)),
        path=str(path),
    )


def _kind(path: Path, head: bytes) -> tuple[str, str]:
    for signature, kind, hint in SIGNATURES:
        if head.startswith(signature) and path.suffix not in PICKLE_SUFFIXES:
            return kind, hint
    if path.suffix in PICKLE_SUFFIXES or _is_pickle(head):
        return f"a pickle ({PICKLE_REASON})", PICKLE_SUFFIXES.get(path.suffix, PICKLE_HINT)
    # a length of eight bytes, then JSON
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 100_000_000:
        return "a safetensors file", _SAFETENSORS_HINT
    if _is_text(head):
        return "text", _TEXT_HINT
    return "a file of unknown kind", _RAW_HINT


def _is_pickle(head: bytes) -> bool:
    """Whether the bytes are the beginning of a pickle; they are only read, never run."""
    if head[0] == 0x80 and len(head) > 1 and head[1] in (2, 3, 4, 5):
        return True
    # The oldest protocols have no mark of their own: their first words must be such words.
    if head[:1] not in (b"(", b"c", b"]", b"}"):
        return False
    read = 0
    try:
        for _ in pickletools.genops(head):
            read += 1
    except ValueError:
        return read > 4  # the head ends in the middle of a long one
    return True


def _is_text(head: bytes) -> bool:
    if b"\x00" in head:
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as exc:
        # the head may end within a character
        return exc.start >= len(head) - 3 and len(head) == HEAD_BYTES
    return True
