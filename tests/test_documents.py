"""What the documents say is what the code does."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from typer.main import get_command

from nextbuy.cli.app import app

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_every_dependency_has_its_reason_in_the_architecture_and_no_other_has():
    extras = PROJECT["optional-dependencies"]
    declared = {Requirement(r).name for r in PROJECT["dependencies"]}
    declared |= {Requirement(r).name for group in extras.values() for r in group} - {"nextbuy"}
    section = text("ARCHITECTURE.md").split("## Dependencies")[1]
    rows = [row.split("|") for row in section.splitlines() if row.startswith("|")]
    named = {
        name.strip()
        for row in rows
        for name in (row[2] if row[1].strip().startswith("`") else row[1]).split(",")
    }
    assert named - {"package", "packages", "extra", "---"} == declared


def test_the_pinned_requirements_satisfy_what_is_declared():
    pins = dict(line.split("==") for line in text("requirements.txt").splitlines() if "==" in line)
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for requirement in (Requirement(r) for group in groups for r in group):
        if requirement.name != "nextbuy":
            assert requirement.specifier.contains(pins[requirement.name.lower()]), requirement


def commands_in(document):
    for block in re.findall(r"```\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL):
        for line in block.splitlines():
            if line.startswith("nextbuy "):
                yield line.split("#")[0].split()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_commands_and_flags_that_are_shown_exist(document):
    known = get_command(app).commands
    for _, name, *arguments in commands_in(document):
        command = known[name]
        if hasattr(command, "commands"):  # a group, such as keys
            command = command.commands[arguments.pop(0)]
        flags = {o for parameter in command.params for o in parameter.opts}
        assert {a for a in arguments if a.startswith("--")} <= flags


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_files_that_are_linked_exist(document):
    links = re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8"))
    for link in links:
        if not link.startswith("http"):
            assert (document.parent / link).exists(), link


def test_rooms_of_the_architecture_exist():
    table = text("ARCHITECTURE.md").split("## Rooms")[1].split("## Contracts")[0]
    rooms = re.findall(r"`([a-z_]+(?:/|\.py))`", table)
    assert len(rooms) > 10
    for room in rooms:
        source = ROOT / "src" / "nextbuy"
        here = [source / inside / room for inside in ("", "data", "models", "service")]
        assert any(place.exists() for place in here), room


def test_the_scores_of_the_readme_are_those_that_were_measured():
    first = re.compile(r"^\| log \| .*?\n\n", re.MULTILINE | re.DOTALL)
    readme, results = (first.search(text(name)) for name in ("README.md", "docs/results.md"))
    assert readme.group() == results.group()
