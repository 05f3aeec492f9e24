"""The file operations themselves, on real folders and filesystems."""

import os
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import beneath, file_moves
from storage.errors import ChangedFileError, FilingError, TargetExistsError
from storage.file_facts import FileFacts, examine, exists
from tests.tools.filing_world import MTIME_NS
from tests.tools.memory_disk import memory_disk

TEMPORARY = b".stillwatch-1.part"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def deliver(folder: Path, name: str, content: bytes = b"bytes") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o604)
    os.utime(path, ns=(MTIME_NS, MTIME_NS))
    return path


def facts_of(root: int, name: bytes) -> FileFacts:
    facts = examine(root, name)
    assert facts is not None
    return facts


def test_move_keeps_inode_time_and_mode(tmp_path: Path, root: int) -> None:
    deliver(tmp_path, "a.jpg")
    facts = facts_of(root, b"a.jpg")
    file_moves.move(root, b"a.jpg", b"x/y/a.jpg", facts, TEMPORARY)
    after = (tmp_path / "x/y/a.jpg").stat()
    assert (after.st_ino, after.st_mtime_ns) == (facts.inode, MTIME_NS)
    assert stat.S_IMODE(after.st_mode) == 0o604
    assert not (tmp_path / "a.jpg").exists()


@pytest.mark.parametrize("fallback", [False, True])
def test_a_taken_name_is_never_overwritten(
    tmp_path: Path, root: int, monkeypatch: pytest.MonkeyPatch, fallback: bool
) -> None:
    deliver(tmp_path, "a.jpg", b"one")
    deliver(tmp_path, "b.jpg", b"two")
    rename = file_moves.rename_by_link if fallback else file_moves.rename_noreplace
    with pytest.raises(TargetExistsError):
        rename(root, b"a.jpg", root, b"b.jpg")
    facts = facts_of(root, b"a.jpg")
    for act in (file_moves.move, file_moves.copy):
        with pytest.raises(TargetExistsError):
            act(root, b"a.jpg", b"b.jpg", facts, TEMPORARY)
    with pytest.raises(TargetExistsError):
        file_moves.link(root, b"a.jpg", b"b.jpg", facts)
    assert (tmp_path / "b.jpg").read_bytes() == b"two"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "b.jpg"]
    rename(root, b"a.jpg", root, b"c.jpg")
    assert (tmp_path / "c.jpg").read_bytes() == b"one"
    assert not (tmp_path / "a.jpg").exists()


@pytest.mark.parametrize(
    "path",
    [b"", b"/etc/passwd", b"../a", b"x/../../a", b"./a", b"a//b", b"a/", b"a\0b", b"n" * 256],
)
def test_paths_that_could_leave_the_root_are_refused(root: int, path: bytes) -> None:
    with pytest.raises(FilingError):
        exists(root, path)


@pytest.mark.parametrize("fallback", [False, True])
def test_symbolic_links_are_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fallback: bool
) -> None:
    if fallback:
        monkeypatch.setattr("storage.beneath._OPENAT2", 999_999)  # no such call: ENOSYS
    camera, outside = tmp_path / "cam", tmp_path / "outside"
    deliver(outside, "secret.jpg")
    deliver(outside, "inner/secret.jpg")
    deliver(camera, "a.jpg")
    (camera / "door").symlink_to(outside)
    (camera / "link.jpg").symlink_to(camera / "a.jpg")
    fd = os.open(camera, os.O_RDONLY)
    facts = facts_of(fd, b"a.jpg")
    for path in (b"door/secret.jpg", b"door/inner/secret.jpg"):
        with pytest.raises(FilingError, match="symbolic link"):
            examine(fd, path)
    with pytest.raises(FilingError, match="symbolic link"):
        file_moves.move(fd, b"a.jpg", b"door/inner/a.jpg", facts, TEMPORARY)
    with pytest.raises(FilingError, match="symbolic link"):
        file_moves.move(fd, b"a.jpg", b"door/a.jpg", facts, TEMPORARY)
    with pytest.raises(FilingError, match="symbolic link"):
        file_moves.move(fd, b"a.jpg", b"door/deep/a.jpg", facts, TEMPORARY)
    with pytest.raises(ChangedFileError, match="regular"):
        examine(fd, b"link.jpg")
    file_moves.move(fd, b"a.jpg", b"new/deep/a.jpg", facts, TEMPORARY)
    os.close(fd)
    found = sorted(str(path.relative_to(outside)) for path in outside.rglob("*"))
    assert found == ["inner", "inner/secret.jpg", "secret.jpg"]
    assert (camera / "new/deep/a.jpg").exists()


def test_pipes_and_folders_are_no_files(tmp_path: Path, root: int) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    for name in (b"pipe.jpg", b"folder.jpg"):
        with pytest.raises(ChangedFileError, match="regular"):
            examine(root, name)


def test_a_file_that_changed_after_the_decision_stays(tmp_path: Path, root: int) -> None:
    path = deliver(tmp_path, "a.jpg")
    facts = facts_of(root, b"a.jpg")
    path.write_bytes(b"longer than before")
    with pytest.raises(ChangedFileError):
        file_moves.move(root, b"a.jpg", b"b.jpg", facts, TEMPORARY)
    path.unlink()
    with pytest.raises(ChangedFileError, match="gone"):
        file_moves.move(root, b"a.jpg", b"b.jpg", facts, TEMPORARY)
    assert not (tmp_path / "b.jpg").exists()


def test_a_file_swapped_in_at_the_last_moment_goes_back(
    tmp_path: Path, root: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(tmp_path, "a.jpg", b"old")
    facts = facts_of(root, b"a.jpg")
    real = file_moves.rename_noreplace
    calls: list[tuple[object, ...]] = []

    def after_the_camera(*arguments: object) -> None:
        if not calls:
            deliver(tmp_path, "next.jpg", b"new").rename(tmp_path / "a.jpg")
        calls.append(arguments)
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(file_moves, "rename_noreplace", after_the_camera)
    with pytest.raises(ChangedFileError, match="replaced"):
        file_moves.move(root, b"a.jpg", b"b.jpg", facts, TEMPORARY)
    assert (tmp_path / "a.jpg").read_bytes() == b"new"
    assert not (tmp_path / "b.jpg").exists()


TRASHED = b"stillwatch/trash/a.jpg"
DOOMED = b"stillwatch/trash/.deleting/f1.jpg"


def test_only_what_lies_in_the_trash_is_deleted(tmp_path: Path, root: int) -> None:
    outside = deliver(tmp_path, "a.jpg")
    with pytest.raises(FilingError, match="Only files in the trash"):
        file_moves.delete(root, b"a.jpg", DOOMED, facts_of(root, b"a.jpg"))
    assert outside.exists()
    trashed = deliver(tmp_path, TRASHED.decode())
    with pytest.raises(FilingError, match="Only files in the trash"):
        file_moves.delete(root, TRASHED, b"doomed.jpg", facts_of(root, TRASHED))
    assert trashed.exists()
    file_moves.delete(root, TRASHED, DOOMED, facts_of(root, TRASHED))
    assert not trashed.exists()
    assert stat.S_IMODE((tmp_path / DOOMED.decode()).parent.stat().st_mode) == 0o700


def test_other_bytes_under_the_same_name_time_and_size_are_not_deleted(
    tmp_path: Path, root: int
) -> None:
    path = deliver(tmp_path, TRASHED.decode(), b"seen")
    facts = facts_of(root, TRASHED)
    with path.open("r+b") as file:
        file.write(b"new!")
    os.utime(path, ns=(MTIME_NS, MTIME_NS))
    with pytest.raises(ChangedFileError, match="other bytes"):
        file_moves.delete(root, TRASHED, DOOMED, facts)
    assert path.read_bytes() == b"new!"


def test_a_file_swapped_in_before_a_deletion_goes_back(
    tmp_path: Path, root: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = deliver(tmp_path, TRASHED.decode(), b"old")
    facts = facts_of(root, TRASHED)
    real = file_moves.rename_noreplace
    calls: list[tuple[object, ...]] = []

    def after_somebody(*arguments: object) -> None:
        if not calls:
            deliver(tmp_path, "next.jpg", b"new").rename(path)
        calls.append(arguments)
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(file_moves, "rename_noreplace", after_somebody)
    with pytest.raises(ChangedFileError, match="replaced"):
        file_moves.delete(root, TRASHED, DOOMED, facts)
    assert path.read_bytes() == b"new"
    assert list((tmp_path / DOOMED.decode()).parent.iterdir()) == []


def test_a_parent_swapped_for_a_symbolic_link_again_and_again(tmp_path: Path) -> None:
    camera, outside = tmp_path / "cam", tmp_path / "outside"
    outside.mkdir()
    deliver(camera, "in/keep.jpg")
    (camera / "evil").symlink_to(outside)
    stop = threading.Event()

    def swap() -> None:
        names = [os.fsencode(camera / name) for name in ("in", "evil")]
        while not stop.is_set():
            # RENAME_EXCHANGE: at every moment `in` is either the folder or the link.
            beneath.libc.renameat2(-100, names[0], -100, names[1], 2)

    thread = threading.Thread(target=swap)
    thread.start()
    fd = os.open(camera, os.O_RDONLY)
    moved = 0
    try:
        for number in range(300):
            name = f"{number}.jpg".encode()
            deliver(camera, name.decode())
            try:
                facts = facts_of(fd, name)
                file_moves.move(fd, name, b"in/" + name, facts, TEMPORARY)
                moved += 1
            except FilingError:
                assert (camera / name.decode()).exists()
    finally:
        stop.set()
        thread.join()
        os.close(fd)
    assert list(outside.iterdir()) == []
    assert moved > 0
    real = camera / ("evil" if (camera / "in").is_symlink() else "in")
    assert len(list(real.iterdir())) == moved + 1


def test_an_extra_name_goes_only_while_the_original_is_whole(tmp_path: Path, root: int) -> None:
    original = deliver(tmp_path, "a.jpg")
    digest = facts_of(root, b"a.jpg").sha256
    deliver(tmp_path, "own/a.jpg")
    deliver(tmp_path, "own/edited.jpg", b"edited")
    with pytest.raises(ChangedFileError):
        file_moves.remove_extra(root, b"own/edited.jpg", b"a.jpg", digest)
    with pytest.raises(ChangedFileError):
        file_moves.remove_extra(root, b"a.jpg", b"a.jpg", digest)
    original.write_bytes(b"changed")
    with pytest.raises(ChangedFileError):
        file_moves.remove_extra(root, b"own/a.jpg", b"a.jpg", digest)
    original.unlink()
    with pytest.raises(ChangedFileError):
        file_moves.remove_extra(root, b"own/a.jpg", b"a.jpg", digest)
    deliver(tmp_path, "a.jpg")
    file_moves.remove_extra(root, b"own/a.jpg", b"a.jpg", digest)
    assert sorted(path.name for path in (tmp_path / "own").iterdir()) == ["edited.jpg"]


def test_only_own_empty_folders_are_removed(tmp_path: Path, root: int) -> None:
    for folder in ("stillwatch/novel/day", "stillwatch/clusters/c1/day", "users/empty"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "stillwatch/clusters/keep.txt").write_text("mine")
    file_moves.remove_empty_folders(root, b"stillwatch/novel/day/a.jpg")
    file_moves.remove_empty_folders(root, b"stillwatch/clusters/c1/day/a.jpg")
    file_moves.remove_empty_folders(root, b"users/empty/a.jpg")
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert found == [
        "stillwatch",
        "stillwatch/clusters",
        "stillwatch/clusters/keep.txt",
        "users",
        "users/empty",
    ]


@pytest.fixture
def second_filesystem(tmp_path: Path) -> Iterator[Path]:
    """`other/`, 1 MB on a filesystem of its own."""
    with memory_disk(tmp_path / "other", "1m") as other:
        yield other


@pytest.mark.root
def test_across_filesystems_everything_is_kept(
    tmp_path: Path, root: int, second_filesystem: Path
) -> None:
    path = deliver(tmp_path, "a.jpg", b"x" * 100_000)
    os.chown(path, 65534, 65534)
    os.setxattr(path, "user.note", b"hello")
    facts = facts_of(root, b"a.jpg")
    with pytest.raises(OSError, match="cross-device"):
        file_moves.link(root, b"a.jpg", b"other/a.jpg", facts)
    file_moves.move(root, b"a.jpg", b"other/x/a.jpg", facts, TEMPORARY)
    target = second_filesystem / "x/a.jpg"
    after = target.stat()
    assert facts_of(root, b"other/x/a.jpg").sha256 == facts.sha256
    assert (after.st_mtime_ns, after.st_uid, stat.S_IMODE(after.st_mode)) == (
        MTIME_NS,
        65534,
        0o604,
    )
    assert [file.name for file in target.parent.iterdir()] == ["a.jpg"]
    assert not path.exists()


@pytest.mark.root
def test_a_full_disk_leaves_the_source_and_no_part(
    tmp_path: Path, root: int, second_filesystem: Path
) -> None:
    path = deliver(tmp_path, "a.jpg", b"x" * 2_000_000)
    with pytest.raises(OSError, match="No space left"):
        file_moves.move(root, b"a.jpg", b"other/a.jpg", facts_of(root, b"a.jpg"), TEMPORARY)
    assert path.stat().st_size == 2_000_000
    assert list(second_filesystem.iterdir()) == []


@pytest.mark.root
def test_an_immutable_file_is_left_alone(tmp_path: Path, root: int) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may make a file immutable")
    path = deliver(tmp_path, "a.jpg")
    fixed = subprocess.run(["chattr", "+i", str(path)], capture_output=True, check=False)
    if fixed.returncode != 0:
        pytest.skip("this filesystem knows no immutable files")
    try:
        with pytest.raises(PermissionError):
            file_moves.move(root, b"a.jpg", b"b.jpg", facts_of(root, b"a.jpg"), TEMPORARY)
        assert path.exists()
        assert not (tmp_path / "b.jpg").exists()
    finally:
        subprocess.run(["chattr", "-i", str(path)], check=True)
