"""The settings as text: a commented example file, and name-value pairs. Made from the model."""

import json
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from daemon.settings import CameraSettings, Settings

EXAMPLES: Final[dict[str, object]] = {
    "camera.root": "/srv/camera/yard",
    "camera.name": "yard",
    "camera.kind": "fixed",
    "camera.timezone": "Europe/Berlin",
    "camera.pattern": "cam-%Y%m%d-%H%M%S.jpg",
    "camera.quiet_found": 0.8,
    "cameras.timezone": "Europe/Berlin",
    "cameras.kind": "fixed",
    "backup.folder": "/srv/backups/stillwatch",
    "encoder.cache": "/var/cache/stillwatch",
    "dedup.quiet_found": 0.9,
    "prune.keep_free_gb": 50.0,
    "prune.keep_free_percent": 10.0,
    "prune.max_gb": 500.0,
}
"""Values shown for settings that have no default."""


def sections() -> Iterator[tuple[str, type[BaseModel]]]:
    """Every table of the settings file with its model; `camera` is repeatable and comes first."""
    yield "camera", CameraSettings
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield name, field.annotation


def example_toml() -> str:
    """A settings file in which every setting stands as a comment with its default."""
    lines = [
        "# Settings of stillwatch. Every line that begins with `# name =` shows a default;",
        "# take the `# ` away to change it. Unknown names are refused.",
    ]
    for section, model in sections():
        lines += ["", "# [[camera]]" if section == "camera" else f"[{section}]"]
        if section == "camera":
            lines.insert(-1, "# One such table for each camera that needs it:")
        for name, field in model.model_fields.items():
            lines.append(f"#   {field.description}")
            lines.append(f"# {name} = {_toml(_shown(section, name, field))}{_remark(field)}")
    return "\n".join(lines) + "\n"


def _shown(section: str, name: str, field: FieldInfo) -> object:
    if field.is_required() or field.default is None:
        return EXAMPLES[f"{section}.{name}"]
    return field.default


def _remark(field: FieldInfo) -> str:
    if field.is_required():
        return "  # example; required"
    return "  # example; not set by default" if field.default is None else ""


def _toml(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(_toml(item) for item in value)}]"
    # A TOML basic string, number and boolean are written as in JSON.
    return json.dumps(str(value) if isinstance(value, PurePath) else value)


def flat_settings(settings: Settings) -> dict[str, str]:
    """All settings as `section.name` -> value as TOML writes it; empty where nothing is set."""
    flat = {}
    data: dict[str, Any] = settings.model_dump(mode="json")
    for section, content in data.items():
        tables = content if isinstance(content, list) else [content]
        for position, table in enumerate(tables):
            prefix = f"{section}[{position}]" if isinstance(content, list) else section
            for name, value in table.items():
                flat[f"{prefix}.{name}"] = "" if value is None else _toml(value)
    return flat
