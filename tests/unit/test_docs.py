"""Every command, option and setting is documented and has help."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.context import _GLOBALS
from cli.main import app_command
from cli.settings_text import EXAMPLES, example_toml, flat_settings, sections
from daemon.settings import Settings
from tests.cli_state import ROOT
from tests.tools.make_settings_page import PAGE, settings_page

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
GUIDE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
ONLY_GROUPS = {"dedup", "config", "service"}  # they do nothing without a subcommand


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its full name."""

    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        subcommands = getattr(command, "commands", {})
        if not subcommands or name.split()[-1] not in ONLY_GROUPS:
            yield name, command
        for word, below in subcommands.items():
            yield from walk(f"{name} {word}", below)

    yield from walk("stillwatch", app_command())


COMMANDS = dict(commands())


def section_of(name: str) -> str:
    """The text of the guide about one command."""
    if name == "stillwatch":
        return GUIDE.split("## Run")[0]
    match = re.search(rf"^### `{re.escape(name)}`\n(.*?)(?=^##|\Z)", GUIDE, re.M | re.S)
    assert match is not None, f"docs/cli.md has no section on {name}"
    return match[1]


def test_the_commands_of_this_version() -> None:
    expected = {
        "stillwatch",
        *(f"stillwatch {name}" for name in ("run", "demo", "status", "frames", "show", "why")),
        *(f"stillwatch {name}" for name in ("clusters", "clusters rename", "similar", "runs")),
        *(f"stillwatch clusters {name}" for name in ("history", "merge", "split", "pin")),
        *(f"stillwatch clusters {name}" for name in ("ignore", "export")),
        *(f"stillwatch {name}" for name in ("novel", "novel accept", "novel dismiss", "undo")),
        *(f"stillwatch {name}" for name in ("recluster", "dedup plan", "dedup apply")),
        *(f"stillwatch dedup {name}" for name in ("diff", "apart", "keep", "keeper")),
        *(f"stillwatch {name}" for name in ("dedup discard", "encoders", "encoders prepare")),
        *(f"stillwatch {name}" for name in ("config show", "config example", "doctor", "verify")),
        *(f"stillwatch service {name}" for name in ("install", "uninstall", "show")),
        *(f"stillwatch encoders {name}" for name in ("switch", "forget")),
        "stillwatch cluster",
        "stillwatch dedup evaluate",
        *(f"stillwatch {name}" for name in ("prune", "restore", "report")),
        *(f"stillwatch {name}" for name in ("backup", "restore-database")),
    }
    assert set(COMMANDS) == expected


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented_with_an_example(name: str) -> None:
    command = COMMANDS[name]
    text = section_of(name)
    assert command.help
    assert command.epilog
    assert f"{name} " in text or f"{name}\n" in text, "an example shows the command"
    for parameter in command.params:
        assert parameter.help, f"{name} {parameter.name} has no help"
        own_state = parameter.name == "state" and name == "stillwatch frames"
        known_everywhere = parameter.name in _GLOBALS and not own_state
        if parameter.param_type_name != "option" or parameter.name == "help":
            continue
        if not known_everywhere or name == "stillwatch":
            assert any(option in text for option in parameter.opts), parameter.opts


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"stillwatch"}))
def test_every_command_takes_the_global_options(name: str) -> None:
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert {"--state", "--config", "--json", "--verbose"} <= options


def test_the_guide_documents_no_option_that_is_not_there() -> None:
    known = {o for command in COMMANDS.values() for p in command.params for o in p.opts}
    known |= {"--help", "-h"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", GUIDE)) <= known


def test_the_settings_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == settings_page(), (
        "run `python -m tests.tools.make_settings_page`"
    )


def test_every_setting_has_a_description() -> None:
    for section, model in sections():
        for name, field in model.model_fields.items():
            assert field.description, f"{section}.{name}"


def test_the_example_settings_are_the_defaults() -> None:
    as_written = Settings.model_validate(tomllib.loads(example_toml()))
    assert as_written == Settings()
    lines = example_toml().splitlines()
    values = "\n".join(re.sub(r"^# (?=\[|\w+ = )", "", line) for line in lines)
    everything = Settings.model_validate(tomllib.loads(values))
    uncommented, defaults = flat_settings(everything), flat_settings(Settings())
    different = {name for name in defaults if uncommented[name] != defaults[name]}
    assert different == {name for name in EXAMPLES if not name.startswith("camera.")}
    assert everything.camera[0].name == EXAMPLES["camera.name"]


def without_code(page: Path) -> str:
    """The text of a page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def links(page: Path) -> list[str]:
    """The relative links and pictures of a page, code left out."""
    targets = re.findall(r"\]\(([^)\s]+)\)", without_code(page))
    return [target for target in targets if "://" not in target]


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get."""
    headings = re.findall(r"^#+ (.+)$", without_code(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_resolve(page: Path) -> None:
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name} links to {link}"


def test_every_page_is_linked_from_the_index() -> None:
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in links(DOCS / "index.md")}
    pages = {page.resolve() for page in DOCS.rglob("*.md")} - {(DOCS / "index.md").resolve()}
    assert pages <= linked
    assert "docs/index.md" in links(ROOT / "README.md")


def test_the_changelog_begins_with_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert versions[0] == project["version"]


def test_pictures_fetch_nothing() -> None:
    for picture in (DOCS / "pictures").glob("*.svg"):
        text = picture.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        fetched = re.findall(r"url\((?!#)[^)]*\)|href=\"[^#][^\"]*|src=", text)
        assert not fetched, picture.name
