"""The check of the decoding process: whether it starts, and how well it is confined."""

from collections.abc import Iterator
from typing import Final

from daemon.findings import Check

_MISSING: Final = {
    "landlock": "Landlock (Linux 5.13 or newer, `lsm=` of the boot line naming landlock)",
    "seccomp": "seccomp (Linux 3.17 or newer on x86_64 or aarch64)",
}


def examine_decoder() -> Iterator[Check]:
    """Start a decoding process as the daemon would, and ask it which limits hold for it."""
    from daemon.ingest.decode_process import ChildFailedError, DecodeChild
    from daemon.ingest.sandbox import KERNEL_LIMITS
    from daemon.settings import IngestSettings

    child = DecodeChild(IngestSettings())
    try:
        held = child.confinement()
    except ChildFailedError:
        yield Check(
            "decode_child",
            "fail",
            "The decoding process does not start.",
            "Install stillwatch again: `make install`.",
        )
        return
    finally:
        child.close()
    missing = [name for name in KERNEL_LIMITS if name not in held]
    if not missing:
        yield Check(
            "decode_child",
            "ok",
            "The decoding process starts; memory, time, files, network and system calls are"
            f" limited ({', '.join(held)}).",
        )
        return
    yield Check(
        "decode_child",
        "warn",
        "The decoding process starts; memory, time and descriptors are limited, but this kernel"
        f" lacks {' and '.join(missing)}.",
        f"A picture made to attack a decoder can do more here. Use a kernel with"
        f" {' and '.join(_MISSING[name] for name in missing)}.",
    )
