"""The owner's settings file: defaults of the contract, and messages that name the key."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from daemon.settings import Settings, default_path, load_settings
from storage.errors import SettingsError


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "stillwatch.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = load_settings(None)
    assert settings == Settings()
    ingest, clustering = settings.ingest, settings.clustering
    assert (ingest.settle_seconds, ingest.max_settle_seconds) == (2.0, 60.0)
    assert (ingest.rescan_seconds, ingest.full_rescan_seconds) == (300.0, 3600.0)
    assert set(ingest.ignore) == {
        "csv",
        "txt",
        "json",
        "xml",
        "xmp",
        "md",
        "log",
        "mp4",
        "avi",
        "db",
    }
    assert ingest.decode_children == 2
    assert (clustering.first_at_frames, clustering.first_after_seconds) == (100, 600.0)
    assert (clustering.growth_share, clustering.novel_frames) == (0.1, 200)
    assert (clustering.min_cluster_size, clustering.min_samples) == (15, 1)
    assert clustering.collapse_distance == 0.0018
    assert clustering.false_novel_rate == 0.01
    assert (settings.dedup.every_seconds, settings.dedup.delay_seconds) == (3600.0, 60.0)
    assert settings.dedup.keepers_compared == 6
    assert (settings.filing.enabled, settings.filing.mode) == (False, "move")
    assert (settings.filing.brake_share, settings.filing.brake_files) == (0.2, 1000)
    assert settings.encoder.batch == 8


def test_values_of_the_file(tmp_path: Path) -> None:
    text = """
    [ingest]
    settle_seconds = 0.5
    ignore = ["csv"]
    [[camera]]
    root = "/pictures/gate"
    kind = "archive"
    timezone = "Europe/Berlin"
    """
    settings = load_settings(write(tmp_path, text), required=True)
    assert settings.ingest.settle_seconds == 0.5
    assert settings.ingest.ignore == ("csv",)
    assert settings.camera[0].root == Path("/pictures/gate")
    assert settings.camera[0].kind == "archive"
    assert settings.dedup == Settings().dedup


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[ingest]\nsettle_second = 2", "ingest.settle_second"),
        ("[ingets]\n", "ingets"),
        ("[ingest]\nsettle_seconds = -1", "ingest.settle_seconds"),
        ("[ingest]\nsettle_seconds = 'soon'", "ingest.settle_seconds"),
        ("[ingest]\nsettle_seconds = nan", "ingest.settle_seconds"),
        ("[ingest]\nmax_settle_seconds = inf", "ingest.max_settle_seconds"),
        ("[dedup]\nevery_seconds = 1e300", "dedup.every_seconds"),
        ("[ingest]\ndecode_children = 0", "ingest.decode_children"),
        ("[ingest]\nignore = 'csv'", "ingest.ignore"),
        ("[encoder]\nbatch = 32", "encoder.batch"),
        ("[clustering]\nnightly_at = '25:00'", "clustering.nightly_at"),
        ("[filing]\nmode = 'steal'", "filing.mode"),
        ("[filing]\nenabled = 3", "filing.enabled"),
        ("[[camera]]\nname = 'gate'", "camera.0.root"),
        ("[[camera]]\nroot = '/x'\nkind = 'still'", "camera.0.kind"),
        ("[[camera]]\nroot = '/x'\n[[camera]]\nroot = '/y'\ntz = 'UTC'", "camera.1.tz"),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path: Path, text: str, key: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    assert f"setting {key} is wrong" in caught.value.summary
    assert "\n" not in caught.value.summary
    assert (caught.value.exit_code, caught.value.path) == (2, str(path))
    assert "config example" in caught.value.hint


def test_text_that_is_no_toml_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"not valid TOML.*line 2"):
        load_settings(write(tmp_path, "[ingest]\nsettle_seconds = = 2\n"))
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="not valid TOML"):
        load_settings(binary)


def test_an_absent_file_counts_only_when_it_was_asked_for(tmp_path: Path) -> None:
    path = default_path(tmp_path)
    assert load_settings(path) == Settings()
    with pytest.raises(SettingsError, match="There is no settings file") as caught:
        load_settings(path, required=True)
    assert caught.value.exit_code == 2


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 20_000,
        "a = " + "{b = " * 5_000,
        "[ingest]\nsettle_seconds = " + "9" * 5_000,
        "[ingest]\nsettle_seconds = 1e999",
        "[ingest]\nsettle_seconds = nan",
        "a." * 3_000 + "b = 1",
        "[ingest]\nignore = ['\\u0000', 3]",
        '[ingest]\nignore = "!!python/object/apply:os.system [id]"',
        "\x00",
        "# " + "x" * 1_000_001,
    ],
    ids=range(10),
)
def test_a_poisoned_file_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(write(tmp_path, text))
    assert len(caught.value.summary) < 1000 and "\n" not in caught.value.summary
    assert caught.value.hint


def test_a_pipe_or_device_is_neither_waited_for_nor_read_for_ever(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(SettingsError, match="no regular file"):
            load_settings(path)


@pytest.mark.parametrize("name", ["settle_seconds", "ignore"])
def test_settings_cannot_be_changed(name: str) -> None:
    with pytest.raises(ValidationError):
        setattr(Settings().ingest, name, 1.0)


@pytest.mark.parametrize(
    ("text", "named", "reason"),
    [
        ('cluster_path = "a/{nonsense}"', "filing.cluster_path", "no field"),
        ('cluster_path = "a/{date:%Y}/{cluster}"', "filing.cluster_path", "no field"),
        ('cluster_path = "/a/{cluster}"', "filing.cluster_path", "leading /"),
        ('cluster_path = "../{cluster}"', "filing.cluster_path", "leave the folder"),
        ('cluster_path = "a//{cluster}"', "filing.cluster_path", "empty part"),
        ('cluster_path = "{cluster}/"', "filing.cluster_path", "empty part"),
        ('cluster_path = "a/{date}"', "filing.cluster_path", "needs {cluster} or {cluster_id}"),
        ('cluster_path = "a/{cluster"', "filing.cluster_path", "brace"),
        ('cluster_path = ".a/{cluster}"', "filing.cluster_path", "leading dot"),
        ('cluster_path = "trash/{cluster}"', "filing.cluster_path", "stillwatch's own"),
        ('cluster_path = "{cluster}{camera}{cluster}{camera}"', "filing.cluster_path", "longer"),
        ('novel_path = "n/{cluster}"', "filing.novel_path", "no field"),
        ('duplicate_path = "d/{date}"', "filing.duplicate_path", "needs {keeper}"),
        ('novel_path = "clusters/{date}"', "filing", "cluster_path and novel_path"),
        ('novel_path = "Duplicates"', "filing", "novel_path and duplicate_path"),
        (
            'cluster_path = "{cluster}"\nduplicate_path = "{keeper}"',
            "filing",
            "cluster_path and duplicate_path",
        ),
    ],
)
def test_a_template_that_cannot_be_used_is_named(
    tmp_path: Path, text: str, named: str, reason: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(write(tmp_path, f"[filing]\n{text}"), required=True)
    assert f"The setting {named} is wrong" in caught.value.summary
    assert reason in caught.value.summary


def test_a_cluster_cannot_take_the_folder_of_another_template() -> None:
    templates = Settings.model_validate(
        {"filing": {"cluster_path": "{cluster}/{year}"}}
    ).filing.templates
    reserved = templates.reserved_for(templates.cluster)
    for name, folder in {
        "cats": b"cats/2024",
        "Novel": b"Novel_/2024",
        "trash": b"trash_/2024",
    }.items():
        values = {"cluster": name.encode(), "year": b"2024"}
        assert templates.cluster.folder(values, reserved) == folder
