"""Writes docs/settings.md from the settings model: `python -m tests.tools.make_settings_page`."""

from pathlib import Path

from cli.settings_text import sections

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def settings_page() -> str:
    """The page as it should be."""
    lines = [
        "# Settings",
        "",
        "One TOML file: `--config FILE`, else `stillwatch.toml` in the state folder. All have",
        "a default, so no file is needed. Unknown names are refused, so a typo is noticed.",
        "`stillwatch config example stillwatch.toml` writes all of this as a commented file, and",
        "`stillwatch config show` prints what holds. This page is made from the program by",
        "`python -m tests.tools.make_settings_page`.",
    ]
    for section, model in sections():
        name = "[[camera]]" if section == "camera" else f"[{section}]"
        lines += ["", f"## `{name}`", ""]
        if section == "camera":
            lines += ["One such table for each camera that needs it.", ""]
        lines += ["| setting | default | meaning |", "|---|---|---|"]
        for key, field in model.model_fields.items():
            value = "required" if field.is_required() else f"`{_shown(field.default)}`"
            lines.append(f"| `{key}` | {value} | {field.description} |")
    return "\n".join(lines) + "\n"


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    PAGE.write_text(settings_page(), encoding="utf-8")
