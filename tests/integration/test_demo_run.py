"""The demo's own conduct around the daemon, with the real daemon process."""

from pathlib import Path

from daemon.demo import run_demo


def test_a_daemon_that_does_not_start_is_reported_with_its_reason(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.toml"
    damaged.write_text("[ingest]\nsettle_second = 1\n")
    lines: list[str] = []
    code = run_demo(tmp_path / "state", None, damaged, seconds=5, report=lines.append)
    assert code == 1
    told = "\n".join(lines)
    assert "did not start" in told
    assert "daemon.log" in told
    assert "settle_second" in (tmp_path / "state" / "daemon.log").read_text()
    assert list((tmp_path / "state" / "pictures").iterdir()) == []


def test_an_earlier_demo_is_left_alone(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.toml"
    damaged.write_text("no toml [")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "stillwatch.db").write_bytes(b"of an earlier demo")
    run_demo(tmp_path / "state", None, damaged, seconds=5, report=lambda _line: None)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["stillwatch.db"]
    assert (tmp_path / "state-2" / "pictures").is_dir()
