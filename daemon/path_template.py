"""Templates of the folders below FOLDER/stillwatch/: checked when the settings are read.

A template is a relative path with fields in braces, e.g. `clusters/{cluster}/{date}`. Whatever is
filled in is a cleaned name already (daemon/filing/target_names.py), so a field can never add a
level, leave the folder or hide a file.
"""

import string
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from storage.beneath import NAME_MAX

CLUSTER_PATH: Final = "clusters/{cluster}/{date}"
NOVEL_PATH: Final = "novel/{date}"
DUPLICATE_PATH: Final = "duplicates/{keeper}"
TRASH: Final = "trash"
"""First folder name that no template may use."""

_ALWAYS: Final = {
    "date": 10,
    "year": 4,
    "month": 2,
    "day": 2,
    "hour": 2,
    "camera": 80,
    "state": 15,
}
"""Fields that every frame can fill in, with the most bytes each takes."""
_CLUSTER: Final = {"cluster": 80, "cluster_id": 20}
_KEEPER: Final = {"keeper": 80}

Piece = tuple[str, str | None]
"""Text, and the field that follows it."""


class TemplateError(ValueError):
    """A template that cannot be used, and why in words."""


@dataclass(frozen=True, slots=True)
class FolderTemplate:
    """A checked template: for each folder level its pieces."""

    levels: tuple[tuple[Piece, ...], ...]

    @property
    def first_text(self) -> str | None:
        """The name of the first folder where it is plain text."""
        return None if _has_field(self.levels[0]) else _text(self.levels[0])

    def folder(self, values: Mapping[str, bytes], reserved: Collection[bytes] = ()) -> bytes:
        """The folder for one frame.

        Args:
            values: A cleaned name for each field of the template.
            reserved: First folder names (lower case) that belong to other templates; a field
                that gives one of them gets an underscore.
        """
        names = [
            b"".join(text.encode() + (values[field] if field else b"") for text, field in level)
            for level in self.levels
        ]
        if self.first_text is None and names[0].lower() in reserved:
            names[0] += b"_"
        return b"/".join(names)


def _has_field(level: tuple[Piece, ...]) -> bool:
    return any(field for _, field in level)


def _text(level: tuple[Piece, ...]) -> str:
    return "".join(text for text, _ in level)


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderTemplates:
    """The three templates of `[filing]`."""

    cluster: FolderTemplate
    novel: FolderTemplate
    duplicate: FolderTemplate

    def reserved_for(self, own: FolderTemplate) -> frozenset[bytes]:
        """First folder names that `own` must not give, in lower case."""
        others = (t.first_text for t in (self.cluster, self.novel, self.duplicate) if t is not own)
        return frozenset(name.lower().encode() for name in (*others, TRASH) if name)


def parse_cluster_path(text: str) -> FolderTemplate:
    """The template of frames in clusters; each cluster must get a folder of its own.

    Raises:
        TemplateError: It cannot be used.
    """
    return _parse(text, _ALWAYS | _CLUSTER, required=_CLUSTER)


def parse_novel_path(text: str) -> FolderTemplate:
    """The template of novel frames.

    Raises:
        TemplateError: It cannot be used.
    """
    return _parse(text, _ALWAYS, required={})


def parse_duplicate_path(text: str) -> FolderTemplate:
    """The template of duplicates; each keeper must get a folder of its own.

    Raises:
        TemplateError: It cannot be used.
    """
    return _parse(text, _ALWAYS | _KEEPER, required=_KEEPER)


def parse_templates(cluster: str, novel: str, duplicate: str) -> FolderTemplates:
    """All three; no two of them may ever give the same folder.

    Raises:
        TemplateError: One cannot be used, or two would share folders.
    """
    named = {
        "cluster_path": parse_cluster_path(cluster),
        "novel_path": parse_novel_path(novel),
        "duplicate_path": parse_duplicate_path(duplicate),
    }
    for one, other in (
        ("cluster_path", "novel_path"),
        ("cluster_path", "duplicate_path"),
        ("novel_path", "duplicate_path"),
    ):
        if not _apart(named[one], named[other]):
            raise TemplateError(
                f"{one} and {other} could give the same folder; begin them with different names"
            )
    return FolderTemplates(
        cluster=named["cluster_path"],
        novel=named["novel_path"],
        duplicate=named["duplicate_path"],
    )


def _apart(one: FolderTemplate, other: FolderTemplate) -> bool:
    """Whether the first level where they differ keeps them apart."""
    for depth, (a, b) in enumerate(zip(one.levels, other.levels, strict=False)):
        fields = _has_field(a) + _has_field(b)
        if fields == 0 and _text(a).lower() != _text(b).lower():
            return True
        if fields and a != b:
            return fields == 1 and depth == 0  # `reserved_for` sees to that
    return False


def _parse(text: str, allowed: Mapping[str, int], *, required: Collection[str]) -> FolderTemplate:
    if text.startswith("/"):
        raise TemplateError("it must be a path below FOLDER/stillwatch/, without a leading /")
    template = FolderTemplate(tuple(_level(part, allowed) for part in text.split("/")))
    used = {field for level in template.levels for _, field in level}
    if required and not used & set(required):
        words = " or ".join(f"{{{field}}}" for field in required)
        raise TemplateError(f"it needs {words}, or different groups would share a folder")
    if (template.first_text or "").lower() == TRASH:
        raise TemplateError(f"{TRASH} is stillwatch's own folder")
    return template


def _level(part: str, allowed: Mapping[str, int]) -> tuple[Piece, ...]:
    try:
        parsed = list(string.Formatter().parse(part))
    except ValueError as exc:
        raise TemplateError(f"{part!r} has a brace without its partner; write {{date}}") from exc
    pieces: list[Piece] = []
    for literal, field, form, conversion in parsed:
        if field is not None and (field not in allowed or form or conversion):
            known = ", ".join(f"{{{name}}}" for name in sorted(allowed))
            raise TemplateError(f"{{{field}}} is no field that can be used here; there are {known}")
        pieces.append((literal, field))
    example = "".join(literal + ("x" if field else "") for literal, field in pieces)
    _check_name(example)
    room = sum(len(text.encode()) + (allowed[field] if field else 0) for text, field in pieces)
    if room >= NAME_MAX:  # one byte is left for the underscore of `FolderTemplate.folder`
        raise TemplateError(f"{part!r} could become longer than a name on disk may be")
    return tuple(pieces)


def _check_name(name: str) -> None:
    """Refuse what would be no folder of that very name."""
    if not name:
        raise TemplateError("it has an empty part; parts are separated by one /")
    if name in (".", ".."):
        raise TemplateError(f"{name!r} would leave the folder")
    if name[0] in ".- " or name[-1] in ". " or not name.isprintable() or "\\" in name:
        raise TemplateError(
            f"{name!r} is no good name of a folder: no leading dot or dash, no blank or dot at"
            " the end, no backslash"
        )


DEFAULT_TEMPLATES: Final = parse_templates(CLUSTER_PATH, NOVEL_PATH, DUPLICATE_PATH)
