"""The restrictions of the packaged unit without systemd: namespaces, an account, system calls.

What systemd does with the lines of systemd/stillwatch.service is done here with unshare, mount,
setpriv and a seccomp filter (unit_sandbox.c), so that the whole program can be tried under them on
a machine where systemd is not process 1.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.end_to_end.process import ROOT

NOBODY = 65534
UNIT = ROOT / "systemd" / "stillwatch.service"
NEEDED = ("gcc", "unshare", "setpriv", "mount", "systemd-analyze")


def missing() -> str | None:
    """Why it cannot be done here, None where it can."""
    if os.geteuid() != 0:
        return "only root may make namespaces with mounts"
    absent = [name for name in NEEDED if shutil.which(name) is None]
    return f"{', '.join(absent)} is not installed" if absent else None


def allowed_calls(unit: Path = UNIT) -> set[str]:
    """Names of the system calls that the unit's SystemCallFilter= lines allow, groups expanded."""
    listed = subprocess.run(
        ["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True
    ).stdout
    groups: dict[str, list[str]] = {}
    for line in re.sub(r"\x1b\[[0-9;]*m", "", listed).splitlines():
        if line.startswith("@"):
            members = groups.setdefault(line.strip(), [])
        elif line.startswith(" ") and not line.strip().startswith("#"):
            members.append(line.strip())

    def expand(name: str) -> set[str]:
        if not name.startswith("@"):
            return {name}
        return {call for member in groups[name] for call in expand(member)}

    lines = re.findall(r"^SystemCallFilter=(.*)$", unit.read_text(), re.M)
    # systemd adds @default to every allow list by itself
    return {call for line in (*lines, "@default") for name in line.split() for call in expand(name)}


def build(folder: Path) -> tuple[Path, Path]:
    """Compile the helper and write the numbers of the allowed calls of this architecture."""
    helper, numbers = folder / "unit_sandbox", folder / "allowed"
    source = Path(__file__).with_suffix(".c")
    subprocess.run(["gcc", "-O1", "-Wall", "-Werror", "-o", str(helper), str(source)], check=True)
    probe = "\n".join(
        f"#ifdef __NR_{name}\n{name} __NR_{name}\n#endif" for name in sorted(allowed_calls())
    )
    found = subprocess.run(
        ["gcc", "-E", "-P", "-include", "sys/syscall.h", "-"],
        input=probe,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    wanted = [line.split()[1] for line in found.splitlines() if re.fullmatch(r"\w+ \d+", line)]
    numbers.write_text("\n".join(wanted) + "\n")
    return helper, numbers


def command(base: Path, arguments: Sequence[str], writable: Sequence[Path]) -> list[str]:
    """A command line that runs `arguments` as the unit would.

    Args:
        base: A folder of the test; helper files are put there.
        arguments: The program and its arguments.
        writable: The folders that may be written; they are given to the account.
    """
    helper, numbers = build(base)
    base.chmod(0o755)
    needed = {Path(sys.base_prefix), Path(sys.prefix), ROOT, base}
    shown = [path for path in needed if not needed & set(path.parents)]
    script = base / "sandbox.sh"
    script.write_text(_script(shown, writable, [str(helper), str(numbers), *arguments]))
    for folder in writable:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    namespaces = ["--mount", "--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child"]
    return ["unshare", *namespaces, "bash", str(script)]


def _script(shown: Sequence[Path], writable: Sequence[Path], arguments: Sequence[str]) -> str:
    """Mounts of a private namespace (ProtectSystem, ProtectHome, PrivateTmp, PrivateDevices)."""
    lines = ["set -eu", "mount --make-rprivate /", "mount -t tmpfs tmpfs /mnt"]
    for number, path in enumerate(shown):
        lines += [f"mkdir /mnt/{number}", f"mount --rbind {shlex.quote(str(path))} /mnt/{number}"]
    # everything else below homes and folders for temporary files is hidden
    lines += [f"mount -t tmpfs -o mode=755 tmpfs {hidden}" for hidden in ("/root", "/home", "/tmp")]
    for number, path in enumerate(shown):
        where = shlex.quote(str(path))
        lines += [f"mkdir -p {where}", f"mount --rbind /mnt/{number} {where}"]
    lines += ["umount -R -l /mnt", "chmod 1777 /tmp"]
    lines += ["mount -t proc proc /proc", "mount -o remount,bind,ro /"]
    for path in shown:
        lines.append(f"mount -o remount,bind,ro {shlex.quote(str(path))}")
    for path in writable:
        where = shlex.quote(str(path))
        lines += [f"mount --bind {where} {where}", f"mount -o remount,bind,rw {where}"]
    account = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    rights = ["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
    lines.append("umask 0007; ulimit -c 0; ulimit -u 256")
    lines.append(f"cd / && exec setpriv {shlex.join([*account, *rights, '--', *arguments])}")
    return "\n".join(lines) + "\n"
