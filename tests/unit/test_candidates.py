"""Which names are candidates (contract, section 1)."""

import os

import pytest

from daemon.ingest.candidates import Kind, classify, is_upload_name, is_watched_folder
from daemon.settings import IngestSettings

IGNORED = frozenset(os.fsencode(name) for name in IngestSettings().ignore)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (b"a.jpg", "candidate"),
        (b"no-extension", "candidate"),
        (b"2026/11/a.xyz", "candidate"),
        (b"bad\xff\nname.jpg", "candidate"),
        (b"stillwatch", "candidate"),  # a file of that name; our folder is a folder
        (b"sub/stillwatch/a.jpg", "candidate"),  # only the one directly in FOLDER is ours
        (b"stillwatch.jpg", "candidate"),
        (b"partial.jpg", "candidate"),
        (b"a.part.jpg", "candidate"),
        (b"list.csv", "ignored"),
        (b"sub/clip.MP4", "ignored"),
        (b"Thumbs.db", "ignored"),
        (b"stillwatch/clusters/a.jpg", "skipped"),
        (b"stillwatch/x.csv", "skipped"),
        (b".hidden.jpg", "skipped"),
        (b".in.a.jpg", "skipped"),
        (b".a.jpg.Xy12Zq", "skipped"),
        (b".cache/a.jpg", "skipped"),
        (b"sub/.git/a.jpg", "skipped"),
        (b"a.jpg.part", "skipped"),
        (b"a.jpg.filepart", "skipped"),
        (b"a.TMP", "skipped"),
        (b".table.csv", "skipped"),
    ],
)
def test_names(path: bytes, kind: Kind) -> None:
    assert classify(path, IGNORED) == kind


@pytest.mark.parametrize("name", IngestSettings().ignore)
def test_every_default_extension_is_ignored(name: str) -> None:
    assert classify(b"sub/file." + name.encode(), IGNORED) == "ignored"


@pytest.mark.parametrize(
    ("path", "watched"),
    [
        (b"2026", True),
        (b"2026/11", True),
        (b"a/stillwatch", True),
        (b"stillwatch", False),
        (b"stillwatch/clusters", False),
        (b".git", False),
        (b"a/.git/b", False),
    ],
)
def test_folders(path: bytes, watched: bool) -> None:
    assert is_watched_folder(path) is watched


@pytest.mark.parametrize(
    ("name", "upload"),
    [
        (b"a.jpg.part", True),
        (b"a.FILEPART", True),
        (b"a.tmp", True),
        (b".in.a.jpg.", True),
        (b".a.jpg.Xy12Zq", True),
        (b".two\nlines.jpg.Xy12Zq", True),
        (b"a.jpg", False),
        (b".hidden.jpg", False),
        (b".config", False),
        (b".git.backup", False),
    ],
)
def test_names_of_uploads(name: bytes, upload: bool) -> None:
    assert is_upload_name(name) is upload
