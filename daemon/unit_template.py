"""Turns the packaged systemd unit into the unit of one installation: pure text, no side effects.

The template `systemd/stillwatch.service` is a complete unit. Rendering replaces the lines that
depend on the installation and drops those that a service manager without the rights of the
superuser cannot apply; everything else, comments included, stays as packaged.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from storage.errors import FolderError, UsageError

SYSTEM_STATE_DIR: Final = Path("/var/lib/stillwatch")
"""The state folder of the system service."""

HOMES: Final = (Path("/home"), Path("/root"), Path("/run/user"))
"""What ProtectHome= hides."""
PRIVATE: Final = (Path("/tmp"), Path("/var/tmp"), Path("/dev"))  # noqa: S108 - names, not used
"""What PrivateTmp= and PrivateDevices= replace."""

# Needs mount namespaces, capabilities, another user or device rules, which a user's own service
# manager does not have (systemd.exec(5), "SANDBOXING"). What is left works through seccomp.
_SYSTEM_ONLY: Final = frozenset(
    {
        "User",
        "Group",
        "StateDirectory",
        "StateDirectoryMode",
        "ProtectSystem",
        "ReadWritePaths",
        "ProtectHome",
        "PrivateTmp",
        "PrivateDevices",
        "DevicePolicy",
        "PrivateMounts",
        "PrivateIPC",
        "RemoveIPC",
        "PrivateNetwork",
        "IPAddressDeny",
        "CapabilityBoundingSet",
        "AmbientCapabilities",
        "ProtectKernelTunables",
        "ProtectKernelModules",
        "ProtectKernelLogs",
        "ProtectControlGroups",
        "ProtectClock",
        "ProtectHostname",
        "ProtectProc",
        "KeyringMode",
        "RequiresMountsFor",
        "UMask",
    }
)
_ACCOUNT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,30}")


def console_script() -> Path:
    """The `stillwatch` command of the environment that runs this program."""
    return Path(sys.prefix) / "bin" / "stillwatch"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitOptions:
    """What a unit depends on; all paths absolute.

    `user` is the account of the system service and ignored with `user_mode`, which makes a unit
    for the user's own service manager. `file` switches filing on.
    """

    folders: tuple[Path, ...]
    state_dir: Path = SYSTEM_STATE_DIR
    executable: Path = field(default_factory=console_script)
    user: str = "stillwatch"
    config: Path | None = None
    user_mode: bool = False
    file: bool = False


def template_folder() -> Path:
    """Where the packaged units lie: beside the packages (checkout) or below the prefix (wheel).

    Raises:
        UsageError: Neither place has them; the installation is incomplete.
    """
    places = (
        Path(__file__).resolve().parents[1] / "systemd",
        Path(sys.prefix) / "share" / "stillwatch" / "systemd",
    )
    for place in places:
        if (place / "stillwatch.service").is_file():
            return place
    raise UsageError(
        "The packaged systemd files are not there.",
        hint="Install stillwatch again; they belong to it.",
        path=str(places[-1]),
    )


def render_unit(options: UnitOptions) -> str:
    """The unit file of one installation, without the marker line of `unit_files`.

    Raises:
        UsageError: A path that a unit file cannot hold (control characters, not UTF-8, relative).
        FolderError: No folder, or one below a path that the unit hides from the daemon.
    """
    if not options.folders:
        raise FolderError("A service needs at least one folder to watch.")
    if not _ACCOUNT.fullmatch(options.user):
        raise UsageError(f"{options.user!r} is not the name of an account.")
    template = (template_folder() / "stillwatch.service").read_text(encoding="utf-8")
    replaced = {
        "ExecStart": [f"ExecStart={_command(options)}"],
        "WantedBy": [f"WantedBy={'default' if options.user_mode else 'multi-user'}.target"],
    }
    if options.user_mode:
        replaced.update({key: [] for key in _SYSTEM_ONLY})
    else:
        replaced.update(_access(options))
    return _edit(template, replaced)


def render_tmpfiles(options: UnitOptions) -> str:
    """The tmpfiles.d entry that makes the state folder before the first start."""
    template = (template_folder() / "stillwatch.tmpfiles").read_text(encoding="utf-8")
    line = f"d {_value(options.state_dir)} 2770 {options.user} stillwatch - -"
    comments = [row for row in template.splitlines() if row.startswith("#")]
    return "\n".join([*comments, line, ""])


def render_sysusers(options: UnitOptions) -> str:
    """The sysusers.d entry: the group, and the account unless another one was named."""
    text = (template_folder() / "stillwatch.sysusers").read_text(encoding="utf-8")
    if options.user == "stillwatch":
        return text.replace(str(SYSTEM_STATE_DIR), _value(options.state_dir))
    kept = [row for row in text.splitlines() if not row.startswith("u ")]
    return "\n".join([*kept, f"m {options.user} stillwatch", ""])


def below(path: Path, places: Sequence[Path]) -> Path | None:
    """The one of `places` that holds `path` (or is it), or None."""
    return next((place for place in places if path.is_relative_to(place)), None)


def _access(options: UnitOptions) -> dict[str, list[str]]:
    """The lines of a system unit that give access to the folders, and to nothing else."""
    places = [options.state_dir, *options.folders]
    for path in (*places, *([options.config] if options.config else [])):
        hidden = below(path, PRIVATE)
        if hidden is not None:
            raise FolderError(
                f"A system service has its own {hidden} and would not see {path}.",
                hint="Use a folder elsewhere, or `service install --user`.",
                path=str(path),
            )
    binds = [f"BindPaths={_value(path)}" for path in places if below(path, HOMES)]
    if options.config is not None and below(options.config, HOMES):
        binds.append(f"BindReadOnlyPaths={_value(options.config)}")
    lines = {
        "RequiresMountsFor": [f"RequiresMountsFor={_value(path)}" for path in places],
        "User": [f"User={options.user}"],
        "ReadWritePaths": [f"ReadWritePaths={_value(path)}" for path in options.folders],
        "ProtectHome": ["ProtectHome=tmpfs", *binds] if binds else ["ProtectHome=yes"],
    }
    if options.state_dir != SYSTEM_STATE_DIR:
        lines["StateDirectory"] = lines["StateDirectoryMode"] = []
        lines["ReadWritePaths"].insert(0, f"ReadWritePaths={_value(options.state_dir)}")
    return lines


def _command(options: UnitOptions) -> str:
    if set("\"'\\$") & set(str(options.executable)):
        raise UsageError(
            "systemd cannot start a program whose path has quotes, backslashes or dollar signs.",
            hint="Install stillwatch in a folder with a plain name.",
            path=str(options.executable),
        )
    words = [_value(options.executable), "--state", _argument(options.state_dir)]
    if options.config is not None:
        words += ["--config", _argument(options.config)]
    words += ["run", *(["--file"] if options.file else [])]
    return " ".join([*words, *(_argument(folder) for folder in options.folders)])


def _value(path: Path) -> str:
    """`path` as a value of a unit file: specifiers escaped, quoted when needed (systemd.syntax)."""
    text = str(path)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = ascii(text)
        raise UsageError(
            f"A unit file cannot name {text}: it is not UTF-8.",
            hint="Rename the folder, or watch it through a mount with another name.",
        ) from None
    if not text.isprintable() or not path.is_absolute() or ".." in path.parts:
        raise UsageError(
            f"A unit file cannot name {text!r}: an absolute path without line breaks is needed.",
            hint="Rename the folder, or watch it through a mount with another name.",
            path=text,
        )
    text = text.replace("%", "%%")
    if set(" \"'\\;:") & set(text) or not text.isascii():
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return text


def _argument(path: Path) -> str:
    """`path` as an argument of ExecStart, where a dollar sign would name a variable."""
    return _value(path).replace("$", "$$")


def _edit(template: str, replaced: Mapping[str, Sequence[str]]) -> str:
    """Replace whole directives; a paragraph that loses them all loses its comment too."""
    paragraphs = []
    for paragraph in template.split("\n\n"):
        lines: list[str] = []
        before = after = 0
        for line in paragraph.splitlines():
            key = line.partition("=")[0]
            is_directive = not line.startswith(("#", "["))
            new = list(replaced[key]) if is_directive and key in replaced else [line]
            before += is_directive
            after += len(new) if is_directive else 0
            lines += new
        if before and not after:
            lines = [line for line in lines if line.startswith("[")]
        if lines:
            paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs) + "\n"
