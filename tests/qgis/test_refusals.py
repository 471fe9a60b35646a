"""What the algorithms refuse, each with one sentence that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from geoglnet_qgis.layers import raster_file
from osgeo import gdal
from qgis.core import QgsApplication, QgsProcessingContext, QgsProcessingException, QgsRasterLayer
from toolbox import Feedback, run

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


def test_an_output_that_exists_is_replaced_only_when_asked_for(segmented: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "mine.gpkg"
    path.write_bytes(b"drawn by hand")
    algorithm = QgsApplication.processingRegistry().algorithmById("geoglnet:vectorizelabels")
    chosen = {"INPUT": segmented["LABELS"], "OUTPUT": str(path)}
    is_fine, reason = algorithm.checkParameterValues(chosen, QgsProcessingContext())
    assert not is_fine
    assert "mine.gpkg exists; tick “Replace existing files”" in reason
    with pytest.raises(QgsProcessingException, match=r"exists; tick “Replace existing files”"):
        run("vectorizelabels", **chosen)
    feedback = Feedback()
    with pytest.raises(QgsProcessingException, match=r"exists; tick “Replace existing files”"):
        algorithm.create().run(chosen, QgsProcessingContext(), feedback, {}, False)  # as a model does, without a check before
    assert path.read_bytes() == b"drawn by hand"
    assert not feedback.command
    path.unlink()
    run("vectorizelabels", **chosen)
    before = path.stat().st_mtime_ns
    run("vectorizelabels", **chosen, OVERWRITE=True)
    assert path.stat().st_mtime_ns > before


@pytest.mark.parametrize(
    ("name", "output", "parameters"),
    [
        ("modelinformation", "OUTPUT", {}),
        ("segmentscene", "LABELS", {"INPUT": "scene"}),
        ("segmentscene", "POLYGONS", {"INPUT": "scene"}),
    ],
)
def test_every_output_is_protected(
    name: str, output: str, parameters: dict[str, Any], scene_path: Path, tmp_path: Path
) -> None:
    suffix = {"OUTPUT": ".html", "LABELS": ".tif", "POLYGONS": ".gpkg"}[output]
    path = tmp_path / f"mine{suffix}"
    path.write_bytes(b"mine")
    chosen = {key: str(scene_path) for key in parameters}
    with pytest.raises(QgsProcessingException, match=r"exists; tick “Replace existing files”"):
        run(name, **chosen, **{output: str(path)})
    assert path.read_bytes() == b"mine"


def test_the_programs_own_refusal_is_said_in_the_words_of_qgis(
    segmented: dict[str, Any], make_program: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = (
        "import sys\nif 'doctor' in sys.argv:\n"
        '    print(\'{"version": "1", "protocol": 1, "options": {"vectorize": ["--progress", "--stop-on-stdin-eof"]}}\')\n'
        "else:\n"
        '    print(\'{"v": 1, "event": "error", "kind": "OutputExistsError", "message": "p exists; pass --overwrite"}\')\n'
        "    sys.exit(1)"
    )
    monkeypatch.setenv("GEOGLNET_PROGRAM", make_program(script))
    with pytest.raises(QgsProcessingException, match=r"p exists; pass --overwrite \(--overwrite is “Replace existing files”"):
        run("vectorizelabels", INPUT=segmented["LABELS"], OUTPUT=str(tmp_path / "p.gpkg"))


def test_a_scene_too_coarse_for_the_model_is_refused_and_the_way_out_named(scene_path: Path, tmp_path: Path) -> None:
    coarse = gdal.Translate(str(tmp_path / "coarse.tif"), str(scene_path))
    left, _, _, top, _, _ = coarse.GetGeoTransform()
    coarse.SetGeoTransform((left, 10, 0, top, 0, -10))
    del coarse
    with pytest.raises(QgsProcessingException, match=r"model buildings was trained on .*\(--model is “Model”") as caught:
        run("segmentscene", INPUT=str(tmp_path / "coarse.tif"), MODEL="buildings", LABELS=str(tmp_path / "l.tif"))
    assert len(str(caught.value).splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tif"] == ["coarse.tif"]


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
