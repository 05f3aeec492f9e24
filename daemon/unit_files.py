"""Writes, shows and removes the systemd files of this installation. Never calls systemctl.

Every file that is written here begins with a marker that holds the hash of its text. So a file
of somebody else is never overwritten or removed, and one that was edited by hand only if forced.
"""

import grp
import hashlib
import os
import pwd
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from daemon.unit_template import (
    HOMES,
    PRIVATE,
    UnitOptions,
    below,
    render_sysusers,
    render_tmpfiles,
    render_unit,
)
from storage.errors import ConflictError, FolderError, UsageError

__all__ = [
    "InstalledFile",
    "UnitOptions",
    "install",
    "next_commands",
    "render_unit",
    "show",
    "uninstall",
]

UNIT_NAME: Final = "stillwatch.service"
_MARKER: Final = "# Written by `stillwatch service install`; sha256="
_SYSTEM_FILES: Final = (
    Path("/etc/systemd/system") / UNIT_NAME,
    Path("/etc/sysusers.d/stillwatch.conf"),
    Path("/etc/tmpfiles.d/stillwatch.conf"),
)


@dataclass(frozen=True, slots=True)
class InstalledFile:
    """A place where the service's files go, and what is there now.

    `condition`: `ours` as written, `edited` by hand since, `foreign`, or `absent`.
    """

    path: Path
    condition: Literal["ours", "edited", "foreign", "absent"]
    text: str


def install(options: UnitOptions, *, force: bool = False, root: Path = Path("/")) -> list[Path]:
    """Write the unit and, for the system service, its sysusers.d and tmpfiles.d entries.

    Args:
        options: What the service shall watch, and as whom.
        force: Replace files that were edited by hand; foreign ones are kept all the same.
        root: Write below this folder, as package builders do.

    Returns:
        The files written, the unit first; `next_commands` says how to start it.

    Raises:
        FolderError: A folder is absent, or one the service would not see.
        UsageError: The service could not start this program, or a path cannot be named.
        ConflictError: A file is there that is not ours, or was edited. Nothing was written.
    """
    for folder in options.folders:
        if not folder.is_dir():
            raise FolderError(f"There is no folder {folder}.", path=str(folder))
    texts = [render_unit(options)]
    if not options.user_mode:
        texts += [render_sysusers(options), render_tmpfiles(options)]
        _check_program(options)
    places = show(user_mode=options.user_mode, root=root)
    for place in places:
        _check_replaceable(place, force=force)
    for place, text in zip(places, texts, strict=True):
        _write(place.path, text)
    return [place.path for place in places]


def uninstall(
    *, user_mode: bool = False, force: bool = False, root: Path = Path("/")
) -> list[Path]:
    """Remove what `install` wrote; pictures, database and account stay.

    Returns:
        The files removed; absent ones are passed over.

    Raises:
        ConflictError: A file is foreign, or edited and not forced. Nothing was removed.
    """
    places = [place for place in show(user_mode=user_mode, root=root) if place.text]
    for place in places:
        _check_replaceable(place, force=force)
    for place in places:
        place.path.unlink()
    return [place.path for place in places]


def show(*, user_mode: bool = False, root: Path = Path("/")) -> list[InstalledFile]:
    """What is installed now, the unit first; reads only."""
    return [_inspect(path) for path in _places(user_mode, root)]


def next_commands(*, user_mode: bool = False, removed: bool = False) -> list[str]:
    """The commands that the owner runs next, in their order, after `install` or `uninstall`."""
    systemctl = "systemctl --user" if user_mode else "sudo systemctl"
    if removed:
        return [f"{systemctl} disable --now {UNIT_NAME}", f"{systemctl} daemon-reload"]
    start = [f"{systemctl} daemon-reload", f"{systemctl} enable --now {UNIT_NAME}"]
    if user_mode:
        # Without lingering, a user's services end with the last session.
        return [*start, "loginctl enable-linger"]
    return [
        "sudo systemd-sysusers stillwatch.conf",
        "sudo systemd-tmpfiles --create stillwatch.conf",
        *start,
    ]


def _places(user_mode: bool, root: Path) -> list[Path]:
    if user_mode:
        base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
        return [Path(base) / "systemd" / "user" / UNIT_NAME]
    return [root / path.relative_to("/") for path in _SYSTEM_FILES]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _inspect(path: Path) -> InstalledFile:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return InstalledFile(path, "absent", "")
    first, _, rest = text.partition("\n")
    if not first.startswith(_MARKER):
        return InstalledFile(path, "foreign", text)
    whole = first.removeprefix(_MARKER) == _digest(rest)
    return InstalledFile(path, "ours" if whole else "edited", text)


def _check_replaceable(place: InstalledFile, *, force: bool) -> None:
    if place.condition == "foreign":
        raise ConflictError(
            f"{place.path} was not written by stillwatch; it is left alone.",
            hint="Move it away first.",
            path=str(place.path),
        )
    if place.condition == "edited" and not force:
        raise ConflictError(
            f"{place.path} was edited by hand; it is left alone.",
            hint="Keep your changes in a drop-in (`systemctl edit`), or use --force.",
            path=str(place.path),
        )


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(f"{_MARKER}{_digest(text)}\n{text}", encoding="utf-8")
        fresh.chmod(0o644)
        fresh.replace(path)
    except PermissionError as exc:
        raise UsageError(
            f"{path} cannot be written: {exc.strerror}.",
            hint="Run it as root, or use --user.",
            path=str(path),
        ) from exc


def _check_program(options: UnitOptions) -> None:
    """Refuse a program that the service's user could not start under the unit's hardening."""
    identity = _identity(options.user)
    for program in _programs(options.executable):
        for path in dict.fromkeys((program, program.resolve())):
            hidden = below(path, (*HOMES, *PRIVATE))
            if hidden is not None:
                raise _unreachable(options.user, path, f"the service does not see {hidden}")
            for part in (*reversed(path.parents), path):
                if not _may_execute(part, identity):
                    raise _unreachable(options.user, path, f"{part} is closed to it or absent")


def _unreachable(user: str, path: Path, reason: str) -> UsageError:
    return UsageError(
        f"The service user {user} cannot start {path}: {reason}.",
        hint="Install stillwatch with a system-wide Python, for instance below /opt, "
        "or use `service install --user`.",
        path=str(path),
    )


def _programs(executable: Path) -> Iterable[Path]:
    """The console script and the interpreter that its first line names."""
    yield executable
    with suppress(OSError), executable.open("rb") as script:
        words = script.readline(4096).removeprefix(b"#!").split()
        if words and words[0].startswith(b"/"):
            yield Path(os.fsdecode(words[0]))


def _identity(user: str) -> tuple[int, frozenset[int]]:
    """User id and group ids; an account that does not exist yet has only what all have."""
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        return -1, frozenset()
    groups = {account.pw_gid, *os.getgrouplist(user, account.pw_gid)}
    with suppress(KeyError):
        groups.add(grp.getgrnam("stillwatch").gr_gid)
    return account.pw_uid, frozenset(groups)


def _may_execute(path: Path, identity: tuple[int, frozenset[int]]) -> bool:
    """Whether the mode bits let this identity enter a folder or run a program."""
    try:
        found = path.stat()
    except OSError:
        return False
    user, groups = identity
    if user == 0:
        return True
    if found.st_uid == user:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid in groups:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)
