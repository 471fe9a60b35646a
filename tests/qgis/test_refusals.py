"""What the algorithms refuse, each with one sentence that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from geoglnet_qgis.layers import raster_file
from osgeo import gdal
from qgis.core import QgsProcessingException, QgsRasterLayer
from toolbox import run

pytestmark = pytest.mark.usefixtures("plugin", "project")


@pytest.mark.parametrize(
    ("name", "suffix"), [("LABELS", ".jpg"), ("POLYGONS", ".shp"), ("PROBABILITIES", ".gpkg"), ("POLYGONS", "memory:")]
)
def test_a_format_that_is_not_written_is_refused_before_anything_runs(
    name: str, suffix: str, scene_path: Path, tmp_path: Path
) -> None:
    value = suffix if suffix.endswith(":") else str(tmp_path / f"x{suffix}")
    with pytest.raises(QgsProcessingException, match=r"choose a file that ends with|is not supported"):
        run("segmentscene", **{"INPUT": str(scene_path), "LABELS": str(tmp_path / "l.tif"), name: value})
    assert not list(tmp_path.iterdir())


def test_nothing_to_write_is_refused(scene_path: Path) -> None:
    with pytest.raises(QgsProcessingException, match="nothing to write"):
        run("segmentscene", INPUT=str(scene_path), LABELS=None, POLYGONS=None)


def test_layers_without_a_file_are_refused_with_a_sentence_before_anything_runs(scene_path: Path, tmp_path: Path) -> None:
    gdal.Translate("/vsimem/there.tif", str(scene_path), srcWin=[0, 0, 8, 8])
    layers = [
        QgsRasterLayer("type=xyz&url=http://localhost:1/{z}/{x}/{y}.png", "tiles of a server", "wms"),
        QgsRasterLayer("/vsimem/there.tif", "in memory"),
    ]
    for layer in layers:
        assert layer.isValid()
        with pytest.raises(QgsProcessingException, match=rf"“{layer.name()}” .*export it first"):
            run("segmentscene", INPUT=layer, LABELS=str(tmp_path / "l.tif"))
    gdal.Unlink("/vsimem/there.tif")


def test_a_layer_whose_file_has_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QgsProcessingException, match="“gone” is not valid"):
        raster_file(QgsRasterLayer(str(tmp_path / "nothing.tif"), "gone"))


def test_a_missing_model_file_is_named(scene_path: Path, tmp_path: Path) -> None:
    with pytest.raises(QgsProcessingException, match=r"nowhere\.safetensors"):
        run("segmentscene", INPUT=str(scene_path), MODEL_FILE="/nowhere.safetensors", LABELS=str(tmp_path / "l.tif"))


WRONG = {
    "missing": (None, "there is no geoglnet program at"),
    "too_old": ('print(\'{"version": "0.0.9", "protocol": 1}\')', "0.0.9 .* upgrade it there"),
    "lacks_an_option": (
        'print(\'{"version": "0.0.9", "protocol": 1, "options": {"vectorize": ["--progress", "--overwrite"]}}\')',
        "does not know --stop-on-stdin-eof; upgrade it there",
    ),
    "crashing": ("raise ImportError('libcudart.so.12')", "libcudart"),
    "newer": (
        'print(\'{"version": "9", "protocol": 2, "options": {}}\')',
        "speaks protocol 2.* upgrade this plugin",
    ),
    "rubbish": ("print('hello')", "does not answer like geoglnet"),
    "dying_later": (
        "import sys, os\nif 'doctor' in sys.argv:\n"
        '    print(\'{"version": "1", "protocol": 1, "options": {"vectorize": '
        '["--progress", "--overwrite", "--stop-on-stdin-eof"]}}\')\nelse: os.abort()',
        "SIGABRT",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_program_is_one_clear_message(
    kind: str,
    segmented: dict[str, Any],
    make_program: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    script, expected = WRONG[kind]
    monkeypatch.setenv("GEOGLNET_PROGRAM", str(tmp_path / "nothing") if script is None else make_program(script))
    with pytest.raises(QgsProcessingException, match=expected) as caught:
        run("vectorizelabels", INPUT=segmented["LABELS"], OUTPUT=str(tmp_path / "p.gpkg"))
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "p.gpkg").exists()
