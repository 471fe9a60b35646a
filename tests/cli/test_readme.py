"""The README's commands are commands: every verb and option in it exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from geoglnet.cli.main import VERBS, geoglnet

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [
    shlex.split(part, comments=True)
    for block in BLOCKS
    for line in block.splitlines()
    for part in line.split("&&")
    if re.match(r"\s*(\.venv/bin/)?geoglnet ", part)
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_of_the_readme_parses(words: list[str]) -> None:
    _, verb, *arguments = words
    assert verb in VERBS
    group = click.Context(geoglnet, **geoglnet.context_settings)  # without it, click would remember a help without -h
    command = geoglnet.get_command(group, verb)
    assert command is not None
    command.make_context(verb, arguments, parent=group, resilient_parsing=False)


def test_the_readme_shows_every_verb() -> None:
    assert {words[1] for words in COMMANDS} == set(VERBS)


@pytest.mark.parametrize("number", [1, 2])
def test_the_commands_that_ci_copies_are_marked(number: int) -> None:
    assert re.search(rf"^<!-- command {number} -->\n```bash\n.+\n```$", README, flags=re.MULTILINE)


@pytest.mark.parametrize("number", [1, 2])
def test_the_commands_for_powershell_are_those_for_bash(number: int) -> None:
    def block(mark: str, language: str) -> str:
        found = re.search(rf"^<!-- command {mark} -->\n```{language}\n(.+?)\n```$", README, flags=re.MULTILINE | re.DOTALL)
        assert found is not None
        return found[1]

    ours = block(str(number), "bash").replace("python3", "python").replace(".venv/bin/", ".venv\\Scripts\\").split(" && ")
    assert block(f"{number}, PowerShell", "powershell").splitlines() == ours
