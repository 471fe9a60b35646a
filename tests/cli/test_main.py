"""The group: verbs, help, version, and what a wrong verb gets."""

from __future__ import annotations

import os
import re
import warnings
from importlib.metadata import version

import pytest
from click.testing import CliRunner

from geoglnet.cli.main import VERBS, geoglnet
from geoglnet.cli.process import prepare_environment


def test_the_version_is_the_packages() -> None:
    assert version("geoglnet") in CliRunner().invoke(geoglnet, ["--version"]).stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_a_first_line_that_fits(verb: str) -> None:
    ran = CliRunner().invoke(geoglnet, [verb, "-h"])
    assert ran.exit_code == 0
    assert "--debug" in ran.stdout
    line = next(line for line in CliRunner().invoke(geoglnet, ["-h"]).stdout.splitlines() if line.strip().startswith(verb))
    assert not line.endswith("...")


def test_many_options_stand_under_headings_and_few_under_one() -> None:
    def headings(verb: str) -> list[str]:
        return re.findall(r"^(\w[\w ]*):$", CliRunner().invoke(geoglnet, [verb, "-h"]).stdout, flags=re.MULTILINE)

    assert headings("predict") == ["Outputs", "Model", "Area", "Input values", "Polygons", "Run"]
    assert headings("vectorize") == ["Outputs", "Values", "Polygons", "Run"]
    assert headings("demo") == ["Options"]


@pytest.mark.parametrize("chosen", [[], ["default"]])
def test_warnings_of_libraries_are_for_those_who_ask(monkeypatch: pytest.MonkeyPatch, chosen: list[str]) -> None:
    monkeypatch.setattr("sys.warnoptions", chosen)
    monkeypatch.setattr("os.environ", dict(os.environ))  # the program's own, which later tests must not inherit
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        prepare_environment()
        warnings.warn("GPKG: bad application_id", RuntimeWarning, stacklevel=1)
    assert len(caught) == len(chosen)


def test_canceling_while_options_are_read_is_said_as_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("geoglnet.cli.options.stop_on_stdin_eof", interrupt)
    ran = CliRunner().invoke(geoglnet, ["vectorize", "labels.tif", "out.gpkg", "--stop-on-stdin-eof"])
    assert (ran.exit_code, ran.stderr) == (130, "Canceled; no half-written file is left\n")


def test_a_wrong_verb_gets_the_nearest_one() -> None:
    ran = CliRunner().invoke(geoglnet, ["predct"])
    assert ran.exit_code == 2
    assert "no verb 'predct'; did you mean 'predict'?" in ran.stderr


def test_no_verb_at_all_shows_the_help() -> None:
    ran = CliRunner().invoke(geoglnet, [])
    assert ran.exit_code == 2
    assert "predict" in ran.output
