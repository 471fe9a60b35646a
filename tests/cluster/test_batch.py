"""Many scenes, one by one: a scene that fails is a row, and what was done is not done again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow.parquet
import pytest
import rasterio
from click.testing import CliRunner
from shapely.geometry import box

import geoglnet
from geoglnet.cli.main import geoglnet as program
from geoglnet.cluster import catalog_run as module
from geoglnet.cluster.catalog import read_catalog
from geoglnet.cluster.catalog_run import BatchRequest, batch
from geoglnet.cluster.shards import Shard
from geoglnet.errors import Canceled, ConfigError, DatasetError, OutputExistsError
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.progress import RecordedProgress, SilentProgress
from tests.rasters import noise, write_raster
from tests.served import Server

CPU = PredictConfig(device="cpu", batch_size=9)


def scenes_in(folder: Path) -> Path:
    """Three small scenes, one of them broken, and a note."""
    folder.mkdir()
    for number, name in enumerate("ac"):
        write_raster(folder / f"{name}.tif", noise(3, 40, 48, number), pixel_size=1.0)
    (folder / "b.tif").write_bytes(b"II*\0 and nothing else")
    (folder / "notes.txt").touch()
    return folder


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return scenes_in(tmp_path / "scenes")


def run(catalog: Path | str, folder: Path, model: Path, **options: Any) -> module.Batch:
    outputs = {"labels": folder / "{id}.tif", "vector": folder / "{id}.gpkg"}
    settings = {name: options.pop(name) for name in ("common_stretch",) if name in options}
    return batch(str(catalog), BatchRequest.of(outputs, model=str(model), config=CPU, **settings), **options)


def rows_of(path: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in pyarrow.parquet.read_table(path).to_pylist()}


def test_every_scene_gets_its_files_and_a_row_and_a_broken_one_its_error(
    catalog: Path, model_path: Path, tmp_path: Path
) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    progress = RecordedProgress()
    done = run(catalog, maps, model_path, progress=progress)
    assert done.index == maps / "index.parquet"
    assert {path.name for path in maps.iterdir()} == {
        *(f"{name}{suffix}" for name in "ac" for suffix in (".tif", ".tif.aux.xml", ".gpkg")),
        *("index.parquet", "index.items.json"),
    }
    geoglnet.predict(catalog / "c.tif", tmp_path / "c.tif", model=model_path, config=CPU)
    assert (maps / "c.tif").read_bytes() == (tmp_path / "c.tif").read_bytes(), "the second scene with the same network"
    rows = rows_of(maps / "index.parquet")
    assert [(row["id"], row["status"], row["kind"]) for row in rows.values()] == [
        ("a", "done", None),
        ("b", "failed", "SceneError"),
        ("c", "done", None),
    ]
    assert "b.tif" in rows["b"]["error"]
    assert progress.messages("warning") == [f"b: {rows['b']['error']}"]
    assert rows["a"]["num_polygons"] == len(geopandas.read_file(maps / "a.gpkg", layer="a"))
    assert Path(rows["a"]["labels_path"]).exists()
    frame = geopandas.read_parquet(maps / "index.parquet").set_index("id")
    with rasterio.open(catalog / "a.tif") as src:
        assert frame.to_crs(src.crs).geometry["a"].symmetric_difference(box(*src.bounds)).area < 1
    items = json.loads((maps / "index.items.json").read_text())
    assert [item["id"] for item in items["features"]] == ["a", "c"]
    assert items["features"][0]["assets"]["labels"]["href"] == "a.tif"


def test_what_is_done_is_not_done_again_and_failures_only_when_asked_for(
    catalog: Path, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()

    class Stops(SilentProgress):
        def advance(self, amount: int = 1, **figures: float) -> None:
            if amount:
                raise Canceled

    with pytest.raises(Canceled):
        run(catalog, maps, model_path, progress=Stops())
    assert {path.suffix for path in maps.iterdir()} == {".tif", ".xml", ".gpkg", ".run"}
    written = (maps / "a.tif").stat().st_mtime_ns
    assert run(catalog, maps, model_path).num_computed == 2
    monkeypatch.setattr(module, "open_model", None)  # nothing is computed: not even the model is opened
    assert run(catalog, maps, model_path).num_computed == 0
    monkeypatch.undo()
    (catalog / "b.tif").unlink()
    write_raster(catalog / "b.tif", noise(3, 40, 48, 5), pixel_size=1.0)
    write_raster(catalog / "d.tif", noise(3, 40, 48, 6), pixel_size=1.0)
    assert run(catalog, maps, model_path, retry=True).num_computed == 2
    assert [row["status"] for row in rows_of(maps / "index.parquet").values()] == ["done"] * 4
    assert (maps / "a.tif").stat().st_mtime_ns == written
    assert not (maps / "index.parquet.run").exists()


def test_shares_write_the_index_when_the_last_one_is_done(catalog: Path, model_path: Path, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    assert run(catalog, maps, model_path, shard=Shard(2, 2)).index is None
    done = run(catalog, maps, model_path, shard=Shard(1, 2))
    assert done.index == maps / "index.parquet"
    assert [row.status for row in done.rows] == ["done", "failed", "done"]


@pytest.mark.slow
def test_a_scene_that_ends_three_processes_is_a_row(catalog: Path, model_path: Path, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    code = (
        "import os, sys\nfrom geoglnet.cluster import catalog_run as module\nbegin = module.begin\n"
        "module.begin = lambda path, *a, **k: os._exit(9) if path.endswith('a.tif') else begin(path, *a, **k)\n"
        "from geoglnet.prediction.predict_config import PredictConfig\n"
        "request = module.BatchRequest.of({'labels': sys.argv[2] + '/{id}.tif'}, model=sys.argv[3], "
        "config=PredictConfig(device='cpu', batch_size=9))\nmodule.batch(sys.argv[1], request)\n"
    )
    words = [sys.executable, "-c", code, str(catalog), str(maps), str(model_path)]
    assert [subprocess.run(words, check=False, timeout=600).returncode for _ in range(4)] == [9, 9, 9, 0]
    rows = rows_of(maps / "index.parquet")
    assert (rows["a"]["status"], rows["a"]["error"]) == ("failed", "3 processes began it and died")
    assert rows["c"]["status"] == "done"


def test_files_of_others_are_refused_before_anything_is_computed(catalog: Path, model_path: Path, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    (maps / "c.gpkg").touch()
    with pytest.raises(OutputExistsError, match=r"c\.gpkg exists; pass overwrite=True"):
        run(catalog, maps, model_path)
    assert not (maps / "a.tif").exists()
    with pytest.raises(ConfigError, match=r"all\.tif is one name for all scenes; put \{id\} into it"):
        BatchRequest.of({"labels": "all.tif"}, model=str(model_path))


def test_a_common_stretch_reads_equal_values_alike(model_path: Path, tmp_path: Path) -> None:
    scenes, maps = tmp_path / "scenes", tmp_path / "maps"
    scenes.mkdir()
    maps.mkdir()
    image = noise(3, 40, 96).astype(np.uint16) * 37 + 400
    image[:, :, 48:] //= 3  # two halves with ranges of their own
    for number in (0, 1):
        write_raster(scenes / f"{number}.tif", image[:, :, 48 * number :][:, :, :48], pixel_size=1.0)
    run(scenes, maps, model_path, common_stretch=True)
    tags = []
    for number in (0, 1):
        with rasterio.open(maps / f"{number}.tif") as src:
            tags.append(src.tags()["GEOGLNET_VALUES"])
    assert tags[0] == tags[1]
    assert "common to the catalog, median of 2 scenes" in tags[0]


def test_catalogs_of_every_kind_list_their_scenes(catalog: Path, tmp_path: Path, server: Server) -> None:
    paths = [str(catalog / f"{name}.tif") for name in "abc"]
    assert [(scene.id, scene.path) for scene in read_catalog(str(catalog))] == [*zip("abc", paths, strict=True)]
    assert [scene.path for scene in read_catalog(str(catalog / "[bc].tif"))] == paths[1:]
    (catalog / "list.txt").write_text(f"# mine\na.tif\n\n{paths[2]}\nhttps://there.example/x/y.tif?key=1\n")
    assert [scene.path for scene in read_catalog(str(catalog / "list.txt"))][:2] == [paths[0], paths[2]]
    assert [scene.id for scene in read_catalog(str(catalog / "list.txt"))] == ["a", "c", "y"]
    (catalog / "list.csv").write_text("id,path\nnorth east,a.tif\n,c.tif\n")
    assert [scene.id for scene in read_catalog(str(catalog / "list.csv"))] == ["north_east", "c"]
    tiles = {"location": ["a.tif", "b.tif"], "geometry": [box(0, 0, 1, 1), box(1, 0, 2, 1)]}
    geopandas.GeoDataFrame(tiles, crs="EPSG:32736").to_file(catalog / "index.gpkg")
    assert [scene.path for scene in read_catalog(str(catalog / "index.gpkg"))] == paths[:2]
    one = {"type": "Feature", "stac_version": "1.0.0", "id": "S2 1", "properties": {}, "geometry": None, "links": []}
    single = {"image": {"href": "a.tif", "type": "image/tiff"}, "thumbnail": {"href": "t.jpg", "roles": ["thumbnail"]}}
    bands = {"red": {"href": "red.tif"}, "nir": {"href": "nir.tif"}}
    items = {"type": "FeatureCollection", "features": [one | {"assets": single}, one | {"assets": bands}]}
    (catalog / "items.json").write_text(json.dumps(items))
    first, second = read_catalog(str(catalog / "items.json"))
    assert (first.id, first.path) == ("S2_1", paths[0])
    assert (second.id, second.path) == ("S2_1_2", ""), "several rasters: the item is opened as one scene"
    assert second.item is not None
    assert second.item["assets"]["nir"]["href"] == str(catalog / "nir.tif")
    (server.folder / "items.json").write_text(json.dumps(items))
    assert read_catalog(f"{server.url}/items.json")[0].path == f"{server.url}/a.tif"
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist([{"id": "p", "assets": {"image": {"href": "c.tif"}, "none": None}}]),
        catalog / "items.parquet",
    )
    assert [(scene.id, scene.path) for scene in read_catalog(str(catalog / "items.parquet"))] == [("p", paths[2])]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("none/*.tif", None, "lists no scenes; give a folder of rasters, a pattern"),
        ("bare.csv", b"file\na.tif\n", r"has no column called path \(columns: file\)"),
        ("broken.json", b"{", "is no JSON"),
        ("shapes.geojson", b'{"type": "FeatureCollection", "features": [{"type": "Feature"}]}', "has a feature without assets"),
        ("broken.parquet", b"PAR1", "is no Parquet file"),
        ("broken.gpkg", b"SQLite", "is no catalog"),
    ],
)
def test_what_is_no_catalog_is_refused(name: str, content: bytes | None, told: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=told):
        read_catalog(str(tmp_path / name))


def test_the_verb_says_how_many_are_done_and_failed(catalog: Path, model_path: Path, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    options = ["-o", str(maps / "{id}.tif"), "--model", str(model_path), "--device", "cpu", "--batch", "9"]
    ran = CliRunner().invoke(program, ["batch", str(catalog), *options])
    assert ran.exit_code == 0, ran.output
    assert "index.parquet  (2 scenes done, 1 failed)" in ran.output
