"""The squares in which a model is least certain."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
from click.testing import CliRunner

import geoglnet
from geoglnet.cli.main import geoglnet as program
from geoglnet.errors import ConfigError, OutputExistsError, SceneError
from geoglnet.output import OutputFile
from geoglnet.vector.uncertain import write_uncertain_areas
from tests.rasters import write_raster


def test_the_squares_with_the_largest_entropy_come_first(tmp_path: Path) -> None:
    entropy = np.full((1, 40, 50), 20, np.uint8)
    entropy[0, 16:32, 32:48] = 200
    entropy[0, :16, :16] = 100
    entropy[0, 32:, :] = 255  # not seen
    entropy[0, 32, 0] = 254
    path = write_raster(tmp_path / "entropy.tif", entropy, nodata=255)
    assert write_uncertain_areas(path, OutputFile(tmp_path / "areas.gpkg"), count=3, side=16) == 3
    areas = geopandas.read_file(tmp_path / "areas.gpkg")
    assert areas["rank"].tolist() == [1, 2, 3]
    assert areas["uncertainty"].tolist() == pytest.approx([200 / 254, 100 / 254, 20 / 254], abs=1e-3)
    assert areas["checked"].tolist() == [False] * 3
    assert areas.geometry[0].bounds == (500_016, 8_999_984, 500_024, 8_999_992)
    assert areas.crs.to_epsg() == 32736


def test_a_raster_without_values_has_no_squares(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "entropy.tif", np.full((1, 64, 64), 255, np.uint8), nodata=255)
    with pytest.raises(SceneError, match="no square of 16 px"):
        write_uncertain_areas(path, OutputFile(tmp_path / "areas.gpkg"), side=16)
    assert not (tmp_path / "areas.gpkg").exists()


def test_predict_writes_them_and_leaves_no_entropy(tmp_path: Path, make_scene: object, tiny_model_path: Path) -> None:
    scene = make_scene()  # type: ignore[operator]
    done = geoglnet.predict(scene, uncertain_path=tmp_path / "areas.gpkg", model=tiny_model_path)
    assert list(done.paths) == ["uncertain"]
    assert [path.name for path in tmp_path.iterdir()] == ["areas.gpkg"]
    with pytest.raises(OutputExistsError):
        geoglnet.predict(scene, uncertain_path=tmp_path / "areas.gpkg", model=tiny_model_path)
    with pytest.raises(ConfigError, match=r"end in \.gpkg"):
        geoglnet.predict(scene, uncertain_path=tmp_path / "areas.shp", model=tiny_model_path)
    words = ["predict", str(scene), "--uncertain", str(tmp_path / "b.gpkg"), "--entropy", str(tmp_path / "e.tif")]
    ran = CliRunner().invoke(program, [*words, "--model", str(tiny_model_path)])
    assert ran.exit_code == 0, ran.output
    assert {path.name for path in tmp_path.iterdir()} >= {"areas.gpkg", "b.gpkg", "e.tif"}
