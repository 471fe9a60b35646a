"""``models`` and ``doctor``: what ships with the package, and whether this installation can use it."""

from __future__ import annotations

import json
import re
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import pytest
from click.testing import CliRunner, Result

from geoglnet.cli.main import VERBS, geoglnet
from geoglnet.models.shipped import card_text, model_path, shipped_models


def run(*arguments: str) -> Result:
    return CliRunner().invoke(geoglnet, arguments)


@pytest.fixture
def weights(tmp_path: Path, tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A weights folder with one model and its card."""
    shutil.copy(tiny_model_path, tmp_path / "buildings.safetensors")
    (tmp_path / "buildings.md").write_text("# buildings\n\nLicense: test.\n")
    monkeypatch.setattr("geoglnet.models.shipped._FOLDER", tmp_path)
    return tmp_path


@pytest.mark.usefixtures("weights")
def test_the_table_marks_the_default_and_names_the_classes() -> None:
    ran = run("models")
    assert ran.exit_code == 0
    row = ran.stdout.splitlines()[1]
    assert row.startswith("buildings *")
    assert row.endswith("ground, building")


@pytest.mark.usefixtures("weights")
def test_the_table_is_also_for_programs() -> None:
    (row,) = json.loads(run("models", "--json").stdout)
    assert (row["name"], row["is_default"], row["resolution_m"], row["backbone"]) == (
        "buildings",
        True,
        1.0,
        "mobilenet_v3_small",
    )


@pytest.mark.usefixtures("weights")
def test_a_card_is_shown_as_it_is_written() -> None:
    assert run("models", "buildings").stdout == "# buildings\n\nLicense: test.\n"
    assert "License: test." in json.loads(run("models", "buildings", "--json").stdout)["card"]


@pytest.mark.usefixtures("weights")
def test_doctor_tells_versions_and_is_content() -> None:
    ran = run("doctor", "--json")
    assert ran.exit_code == 0, ran.stdout
    facts = json.loads(ran.stdout)
    assert facts["version"] == version("geoglnet")
    assert facts["protocol"] == 1
    assert facts["executable"] == sys.executable
    assert facts["models"] == ["buildings"]
    assert (facts["ok"], facts["missing"]) == (True, [])
    assert {"python", "torch", "cuda", "gdal", "rasterio"} <= facts.keys()


@pytest.mark.usefixtures("weights")
def test_doctor_is_also_for_people() -> None:
    assert run("doctor").stdout.splitlines()[-1] == "ready"


def test_doctor_lists_the_options_of_every_verb_from_the_commands_themselves() -> None:
    options = json.loads(run("doctor", "--json").stdout)["options"]
    assert set(options) == set(VERBS)
    for verb, known in options.items():
        shown = run(verb, "--help").stdout
        assert set(re.findall(r"--[a-z][a-z0-9-]+", " ".join(known))) == set(known)
        assert all(option in shown for option in known)
    assert {"--vector", "--progress", "--stop-on-stdin-eof"} <= set(options["predict"])


def test_doctor_estimates_the_memory_of_a_gpu_that_is_not_here() -> None:
    with mock.patch("geoglnet.prediction.memory.region_bytes", lambda manifest, config, batch: 10_000_000 * batch):
        rows = json.loads(run("doctor", "--estimate", "--device", "cuda", "--json").stdout)
        table = run("doctor", "--estimate", "--device", "cpu").stdout.split()
    assert rows[0] == {"precision": "float32", "region_px": 1224, "batch": 1, "megabytes": 512}
    assert rows[2]["megabytes"] == 900
    assert {(row["precision"], row["region_px"]) for row in rows} == {
        (precision, size) for precision in ("float32", "bfloat16") for size in (1224, 2448)
    }
    assert table[:8] == ["precision", "region_px", "batch", "megabytes", "float32", "1224", "1", "12"]
    assert run("doctor", "--estimate", "--model", "nothing").exit_code == 1


def test_a_quick_doctor_checks_nothing_and_says_so_by_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoglnet.cli.doctor._torch", lambda: pytest.fail("checked"))
    answer = json.loads(run("doctor", "--quick", "--json").stdout)
    assert "ok" not in answer
    assert {"version", "protocol", "options", "executable"} <= set(answer)
    assert "ready" not in run("doctor", "--quick").stdout


def test_doctor_names_a_damaged_model_and_fails(weights: Path) -> None:
    (weights / "buildings.safetensors").write_bytes(b"cut")
    ran = run("doctor")
    assert ran.exit_code == 1
    assert "missing     models: " in ran.stdout


def test_doctor_names_a_library_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", None)
    ran = run("doctor", "--json")
    assert ran.exit_code == 1
    assert any(line.startswith("gdal: ") for line in json.loads(ran.stdout)["missing"])


@pytest.mark.parametrize("name", shipped_models())
def test_every_shipped_model_has_a_card_that_states_its_terms(name: str) -> None:
    text = card_text(name).lower()
    assert "licen" in text
    assert "iou" in text
    assert model_path(name).stat().st_size < 60e6
