"""The rendered units, judged by systemd's own tools."""

import os
import pwd
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.unit_files import UnitOptions, install, next_commands, render_unit, show, uninstall
from daemon.unit_template import render_sysusers, render_tmpfiles, template_folder
from storage.errors import (
    ConflictError,
    DiskFullError,
    FolderError,
    LockedError,
    NewerSchemaError,
    NoStateError,
    SettingsError,
    UsageError,
)

ANALYZE = shutil.which("systemd-analyze")
with_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
PROGRAM = Path("/usr/bin/true")
SYSTEM = UnitOptions(folders=(Path("/srv/photos"),), executable=PROGRAM)
USER = replace(SYSTEM, user_mode=True, state_dir=Path("/srv/state"))
HARD_NAME = Path('/srv/a "b" 100% c:\\d;e $HOME ü')


def analyze(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    assert ANALYZE is not None
    return subprocess.run(
        [ANALYZE, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


def written(folder: Path, options: UnitOptions) -> Path:
    unit = folder / "stillwatch.service"
    unit.write_text(render_unit(options), encoding="utf-8")
    return unit


VARIANTS = {
    "plain": SYSTEM,
    "home": replace(SYSTEM, folders=(Path("/home/ann/cam"), Path("/srv/photos"))),
    "everything": replace(
        SYSTEM,
        folders=(HARD_NAME,),
        state_dir=Path("/data/state of cam"),
        config=Path("/home/ann/my settings.toml"),
        user="daemon",
        file=True,
    ),
}


@with_systemd
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_systemd_accepts_the_system_unit(options: UnitOptions, tmp_path: Path) -> None:
    verdict = analyze("verify", "--recursive-errors=yes", str(written(tmp_path, options)))
    assert verdict.returncode == 0, verdict.stderr


@with_systemd
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_the_system_unit_is_hardened(options: UnitOptions, tmp_path: Path) -> None:
    unit = str(written(tmp_path, options))
    verdict = analyze("security", "--offline=true", "--threshold=15", unit)
    assert verdict.returncode == 0, verdict.stdout
    found = re.search(r"exposure level for \S+: ([\d.]+)", verdict.stdout)
    assert found is not None
    print(f"exposure {found[1]}")


@with_systemd
def test_the_hardening_test_can_fail(tmp_path: Path) -> None:
    unit = written(tmp_path, SYSTEM)
    bare = [line for line in unit.read_text().splitlines() if not line.startswith("Protect")]
    unit.write_text("\n".join(bare))
    assert analyze("security", "--offline=true", "--threshold=15", str(unit)).returncode != 0
    unit.write_text("[Service]\nExecStart=/usr/bin/true\nNoSuchKey=1\n")
    assert analyze("verify", "--recursive-errors=yes", str(unit)).returncode != 0


@with_systemd
def test_systemd_accepts_the_user_unit(tmp_path: Path) -> None:
    unit = written(tmp_path, replace(USER, folders=(HARD_NAME,)))
    runtime = {"XDG_RUNTIME_DIR": str(tmp_path)}
    verdict = analyze("--user", "verify", "--recursive-errors=yes", str(unit), **runtime)
    assert verdict.returncode == 0, verdict.stderr


@with_systemd
def test_systemd_reads_hard_paths_as_they_are(tmp_path: Path) -> None:
    unit = str(written(tmp_path, replace(SYSTEM, folders=(HARD_NAME,))))
    # At this log level verify prints what it understood of the unit.
    dump = analyze("verify", unit, SYSTEMD_LOG_LEVEL="debug").stdout
    assert f"ReadWritePaths: {HARD_NAME}\n" in dump
    assert f"RequiresMountsFor: {HARD_NAME} " in dump
    unit = str(written(tmp_path, replace(SYSTEM, folders=(Path("/home/ann/x y:z"),))))
    dump = analyze("verify", unit, SYSTEMD_LOG_LEVEL="debug").stdout
    assert "BindPaths: /home/ann/x y:z:/home/ann/x y:z:" in dump
    assert "ProtectHome: tmpfs" in dump


def test_only_what_is_named_can_be_written() -> None:
    text = render_unit(replace(SYSTEM, folders=(Path("/srv/one"), Path("/srv/two"))))
    assert re.findall(r"^ReadWritePaths=(.*)$", text, re.M) == ["/srv/one", "/srv/two"]
    assert re.findall(r"^RequiresMountsFor=(.*)$", text, re.M) == [
        "/var/lib/stillwatch",
        "/srv/one",
        "/srv/two",
    ]
    assert "ProtectSystem=strict" in text
    assert "\nMemoryDenyWriteExecute=" not in text
    assert "StateDirectoryMode=2770" in text
    assert "UMask=0007" in text
    assert "OOMPolicy=continue" in text


def test_what_trying_again_cannot_mend_is_no_crash_loop() -> None:
    """Exit codes of the contract: usage, no state, a second daemon, a newer database."""
    for options in (SYSTEM, USER):
        text = render_unit(options)
        assert "\nRestart=on-failure\n" in text
        assert "\nRestartPreventExitStatus=2 10 11 13\n" in text
        assert "\nExecReload=/bin/kill -HUP $MAINPID\n" in text
        assert "\nType=notify\n" in text
        assert "\nLimitCORE=0\n" in text
    permanent = (SettingsError, FolderError, NoStateError, LockedError, NewerSchemaError)
    assert {error.exit_code for error in permanent} == {2, 10, 11, 13}
    assert DiskFullError.exit_code not in {error.exit_code for error in permanent}


def test_a_folder_below_home_is_bound_into_an_empty_home() -> None:
    text = render_unit(replace(SYSTEM, folders=(Path("/home/ann/cam"),)))
    assert "\nProtectHome=tmpfs\nBindPaths=/home/ann/cam\n" in text
    assert "\nProtectHome=yes" not in text
    assert "\nReadWritePaths=/home/ann/cam\n" in text


def test_another_state_folder_is_writable_and_made_by_tmpfiles() -> None:
    options = replace(SYSTEM, state_dir=Path("/data/state"), user="ann")
    text = render_unit(options)
    assert "StateDirectory" not in text
    assert "\nReadWritePaths=/data/state\n" in text
    assert "d /data/state 2770 ann stillwatch - -" in render_tmpfiles(options)
    assert "\nu " not in render_sysusers(options)
    assert "m ann stillwatch" in render_sysusers(options)


def test_the_command_line_in_the_unit() -> None:
    text = render_unit(
        replace(SYSTEM, folders=(Path("/srv/my cam"),), file=True, config=Path("/etc/sw.toml"))
    )
    assert (
        "\nExecStart=/usr/bin/true --state /var/lib/stillwatch --config /etc/sw.toml"
        ' run --file "/srv/my cam"\n'
    ) in text


def test_the_user_unit_has_no_directive_that_needs_the_superuser() -> None:
    text = render_unit(USER)
    keys = set(re.findall(r"^([A-Z]\w+)=", text, re.M))
    assert not keys & {
        "User",
        "ProtectSystem",
        "ProtectHome",
        "CapabilityBoundingSet",
        "PrivateTmp",
    }
    assert {"NoNewPrivileges", "SystemCallFilter", "WatchdogSec", "LockPersonality"} <= keys
    assert "WantedBy=default.target" in text


@pytest.mark.parametrize(
    "folder",
    ["/srv/a\nExecStartPre=/bin/sh", "/srv/a\tb", "relative", "/srv/../etc", "/srv/\udcff"],
)
def test_paths_that_a_unit_cannot_hold_are_refused(folder: str) -> None:
    with pytest.raises(UsageError, match="cannot name"):
        render_unit(replace(SYSTEM, folders=(Path(folder),)))


def test_folders_that_the_service_would_not_see_are_refused() -> None:
    with pytest.raises(FolderError, match="own /tmp"):
        render_unit(replace(SYSTEM, folders=(Path("/tmp/cam"),)))
    with pytest.raises(FolderError, match="at least one"):
        render_unit(replace(SYSTEM, folders=()))
    with pytest.raises(UsageError, match="not the name"):
        render_unit(replace(SYSTEM, user="ann\nUser=root"))
    with pytest.raises(UsageError, match="quotes, backslashes"):
        render_unit(replace(SYSTEM, executable=Path("/opt/a'b/stillwatch")))


def installable(folder: Path) -> UnitOptions:
    """Options whose folder exists where a system service may look for it."""
    assert folder.is_dir()
    return replace(SYSTEM, folders=(Path("/srv"),))


def test_install_show_uninstall(tmp_path: Path) -> None:
    options = installable(tmp_path)
    assert [place.condition for place in show(root=tmp_path)] == ["absent"] * 3
    files = install(options, root=tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in files] == [
        "etc/systemd/system/stillwatch.service",
        "etc/sysusers.d/stillwatch.conf",
        "etc/tmpfiles.d/stillwatch.conf",
    ]
    assert [place.condition for place in show(root=tmp_path)] == ["ours"] * 3
    assert files[0].read_text().endswith(render_unit(options))
    assert files[0].stat().st_mode & 0o777 == 0o644
    install(replace(options, file=True), root=tmp_path)
    assert "run --file" in files[0].read_text()
    assert uninstall(root=tmp_path) == files
    assert not any(path.exists() for path in files)
    assert uninstall(root=tmp_path) == []


def test_an_edited_unit_is_kept_unless_forced(tmp_path: Path) -> None:
    options = installable(tmp_path)
    unit, *_ = install(options, root=tmp_path)
    unit.write_text(unit.read_text() + "\n# mine\n")
    assert show(root=tmp_path)[0].condition == "edited"
    with pytest.raises(ConflictError, match="edited by hand"):
        install(options, root=tmp_path)
    with pytest.raises(ConflictError, match="edited by hand"):
        uninstall(root=tmp_path)
    assert "# mine" in unit.read_text()
    install(options, root=tmp_path, force=True)
    assert "# mine" not in unit.read_text()


def test_a_foreign_file_is_never_touched_and_nothing_else_is_written(tmp_path: Path) -> None:
    foreign = tmp_path / "etc/tmpfiles.d/stillwatch.conf"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("d /somewhere\n")
    with pytest.raises(ConflictError, match="not written by stillwatch"):
        install(installable(tmp_path), root=tmp_path, force=True)
    with pytest.raises(ConflictError, match="not written by stillwatch"):
        uninstall(root=tmp_path, force=True)
    assert foreign.read_text() == "d /somewhere\n"
    assert not (tmp_path / "etc/systemd").exists()


def test_install_for_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    # A program below a home is fine here: it is the user's own service.
    options = replace(USER, folders=(tmp_path,), executable=Path("/home/ann/.venv/bin/stillwatch"))
    files = install(options)
    assert files == [tmp_path / "config/systemd/user/stillwatch.service"]
    assert "/home/ann/.venv/bin/stillwatch" in files[0].read_text()
    assert uninstall(user_mode=True) == files


def test_an_absent_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="no folder"):
        install(replace(SYSTEM, folders=(Path("/srv/none/there"),)), root=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("program", ["/home/ann/bin/stillwatch", "/root/x", "/tmp/x", "/opt/no/x"])
def test_an_unreachable_program_is_refused(program: str, tmp_path: Path) -> None:
    options = replace(installable(tmp_path), executable=Path(program))
    with pytest.raises(UsageError, match=f"stillwatch cannot start {program}"):
        install(options, root=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to write below /var to be out of /tmp")
@pytest.mark.root
def test_a_script_whose_interpreter_is_out_of_reach_is_refused(tmp_path: Path) -> None:
    place = Path("/var/lib/stillwatch-test-program")
    place.mkdir(mode=0o755)
    try:
        script = place / "stillwatch"
        script.write_text("#!/root/python/bin/python\n")
        script.chmod(0o755)
        options = replace(installable(tmp_path), executable=script)
        with pytest.raises(UsageError, match="/root/python/bin/python: the service does not see"):
            install(options, root=tmp_path)
        script.write_text(f"#!{PROGRAM}\n")
        assert len(install(options, root=tmp_path)) == 3
        place.chmod(0o700)
        with pytest.raises(UsageError, match="is closed to it"):
            install(options, root=tmp_path)
        owner = pwd.getpwuid(0).pw_name
        assert len(install(replace(options, user=owner), root=tmp_path)) == 3
    finally:
        shutil.rmtree(place)


def test_the_next_commands_name_the_unit() -> None:
    assert next_commands()[-1] == "sudo systemctl enable --now stillwatch.service"
    assert "loginctl enable-linger" in next_commands(user_mode=True)
    assert next_commands(removed=True)[0].endswith("disable --now stillwatch.service")


def test_the_template_is_found_in_both_install_modes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = template_folder()
    assert (checkout / "stillwatch.tmpfiles").is_file()
    monkeypatch.setattr("daemon.unit_template.__file__", str(tmp_path / "lib/daemon/x.py"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(UsageError, match="packaged systemd files"):
        template_folder()
    shared = tmp_path / "share" / "stillwatch" / "systemd"
    shutil.copytree(checkout, shared)
    assert template_folder() == shared


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="systemd-sysusers is absent")
def test_systemd_reads_the_account_files(tmp_path: Path) -> None:
    account = tmp_path / "sysusers.conf"
    account.write_text(render_sysusers(SYSTEM))
    verdict = subprocess.run(
        ["systemd-sysusers", "--dry-run", str(account)], capture_output=True, text=True, timeout=60
    )
    assert verdict.returncode == 0, verdict.stderr
    state = tmp_path / "tmpfiles.conf"
    options = replace(SYSTEM, state_dir=Path("/state of it"), user="root")
    text = render_tmpfiles(options).replace(" stillwatch - -", " root - -")
    state.write_text(text)
    verdict = subprocess.run(
        ["systemd-tmpfiles", "--create", f"--root={tmp_path}", str(state)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert verdict.returncode == 0, verdict.stderr
    assert (tmp_path / "state of it").stat().st_mode & 0o7777 == 0o2770
