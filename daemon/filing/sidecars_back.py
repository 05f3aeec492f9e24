"""The way back of sidecar files, when the operation on their picture is taken back."""

from collections.abc import Mapping, Sequence
from typing import Any

from daemon.filing.sidecars import SidecarFinder
from daemon.filing.target_names import available_name, join
from storage.engine import Database
from storage.errors import FilingError
from storage.file_facts import examine, exists, split
from storage.journal import Intent, Sidecar
from storage.names import printable_path
from storage.root_guard import GuardedRoot


def sidecars_back(
    db: Database,
    root: GuardedRoot,
    intent: Intent,
    row: Mapping[str, Any],
    followers: Sequence[Mapping[str, Any]],
) -> tuple[list[Sidecar], list[str]]:
    """What goes back with a picture, and what stays or is no longer as it was, in words.

    Links and copies that filing made of sidecar files are removed like the picture's own. Else
    all that lies beside the picture now goes along, also what was written there after the filing.

    Args:
        db: The database.
        root: The camera's root.
        intent: What takes the picture back.
        row: The journal row that is taken back.
        followers: The rows of the sidecar files that followed the picture then.

    Raises:
        RootOfflineError: The root is absent or another one.
    """
    if intent.operation == "remove_link":
        links = [
            Sidecar(source=r["source"], target=r["target"], sha256=r["sha256"], undoes=r["id"])
            for r in followers
        ]
        return links, []
    known = {bytes(r["target"]): r for r in followers}
    found = SidecarFinder(db).companions(root, intent.source, intent.target)
    left = list(found.left)
    along = []
    with root.opened() as fd:
        for sidecar in found.sidecars:
            then = known.pop(sidecar.source, None)
            target = sidecar.target
            if then is not None and intent.target == row["source"]:
                target = bytes(then["source"])
            if then is not None and _edited(fd, sidecar.source, then["sha256"]):
                left.append(f"{_shown(sidecar.source)} was edited since; it went back as it is")
            free = _free(fd, target)
            if free != target:
                left.append(f"{_shown(sidecar.source)} was restored beside, as {_shown(free)}")
            undoes = None if then is None else then["id"]
            along.append(Sidecar(source=sidecar.source, target=free, undoes=undoes))
        left += [f"{_shown(place)} is gone" for place in known if not exists(fd, place)]
    return along, left


def _edited(fd: int, path: bytes, sha256: bytes) -> bool:
    try:
        facts = examine(fd, path)
    except (OSError, FilingError):
        return False  # taking it along is refused, with the reason
    return facts is not None and facts.sha256 != sha256


def _free(fd: int, path: bytes) -> bytes:
    folder, name = split(path)
    return join(folder, available_name(name, lambda other: exists(fd, join(folder, other))))


def _shown(path: bytes) -> str:
    return printable_path(split(path)[1])
