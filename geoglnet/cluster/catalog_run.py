"""Predicts the scenes of a catalog one by one, with one model in memory; a scene that fails is a row, not the end.

What is known of a scene lies in a store beside the index until all are done: a mark when it is begun, with its outputs checked,
and a record when it is finished or has failed. So the same command goes on after whatever has ended it, and several processes,
on several machines, may each take a share.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from rasterio.warp import transform_geom

from geoglnet.cluster.catalog import CatalogScene, read_catalog
from geoglnet.cluster.index import SceneRow, read_index, write_index
from geoglnet.cluster.shards import Shard
from geoglnet.cluster.store import FolderStore
from geoglnet.errors import Canceled, ConfigError, GeoglnetError, OutputError
from geoglnet.message import Message
from geoglnet.models.manifest import Manifest, model_digest
from geoglnet.models.opening import open_model
from geoglnet.models.shipped import DEFAULT_MODEL, model_path
from geoglnet.output import is_disk_full
from geoglnet.prediction.layers import output_names
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.predictor import Predictor
from geoglnet.prediction.request import output_files, polygon_config
from geoglnet.prediction.run import Run, begin
from geoglnet.prediction.source import Source
from geoglnet.progress import Progress, SilentProgress
from geoglnet.raster.scaling import BandScaling, Scaling, scaling_from_dict
from geoglnet.types import StrPath
from geoglnet.vector.settings import VectorConfig

INDEX = "index.parquet"
_SCENES, _ITEMS, _STRETCH = "scenes", "items", "stretch.json"
_MOST_DEATHS = 3  # processes that may die at one scene
_MOST_MEASURED = 16  # scenes that the common stretch is measured on


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """What is to be made of each scene.

    Args:
        outputs: templates of the files to write, by output, with ``{id}`` in them: ``{"labels": "maps/{id}.tif"}``.
        model: the ``.safetensors`` file.
        config: how scenes are predicted.
        vector_config: how polygons are made: all settings, or by name those that replace the model's own.
        beside: other rasters of the same place, by the name of the model's band that is read from each.
        common_stretch: stretch the values of all scenes alike, by the medians of the ends of up to 16 of them.
        overwrite: replace outputs that exist.

    Raises:
        ConfigError: nothing to write, or a template that names one file for all scenes.
    """

    outputs: Mapping[str, str]
    model: Path
    config: PredictConfig = PredictConfig()  # noqa: RUF009 - it is frozen
    vector_config: VectorConfig | Mapping[str, Any] | None = None
    beside: Mapping[str, StrPath] | None = None
    common_stretch: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not self.outputs:
            raise ConfigError("nothing to write: give a template of label rasters, of vector files, or both")
        for template in self.outputs.values():
            if "{id}" not in template:
                raise ConfigError(f"{template} is one name for all scenes; put {{id}} into it, as in maps/{{id}}.tif")

    def paths(self, scene: CatalogScene) -> dict[str, Path]:
        """Name the outputs of a scene."""
        return {name: Path(self.outputs[name].replace("{id}", scene.id)) for name in output_names() if name in self.outputs}

    @classmethod
    def of(cls, outputs: Mapping[str, StrPath | None], *, model: str = DEFAULT_MODEL, **settings: Any) -> BatchRequest:
        """Make a request of what a program has at hand.

        Args:
            outputs: templates by output; those that are ``None`` are left out.
            model: name of a shipped model, or a ``.safetensors`` file.
            settings: the other fields, by name.

        Raises:
            ConfigError: a setting that cannot be used.
            ModelNotFoundError: no such model.
        """
        polygon_config(settings.get("vector_config"))
        templates = {name: str(path) for name, path in outputs.items() if path is not None}
        return cls(templates, model_path(model), **settings)

    @property
    def identity(self) -> str:
        """Hash what the outputs of a scene depend on beside the scene."""
        config = asdict(replace(self.config, spool_folder=None))
        polygons = (
            asdict(self.vector_config) if isinstance(self.vector_config, VectorConfig) else dict(self.vector_config or {})
        )
        parts = [version("geoglnet"), model_digest(self.model), config, polygons, dict(self.outputs), self.common_stretch]
        text = json.dumps([*parts, dict(self.beside or {})], default=str, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Batch:
    """What :func:`batch` has done.

    Args:
        index: the file of all rows; ``None`` if other processes have not done their share yet.
        rows: that are known, in the catalog's order.
        num_computed: scenes that this process has finished.
    """

    index: Path | None
    rows: tuple[SceneRow, ...]
    num_computed: int


def batch(
    catalog: str,
    request: BatchRequest,
    *,
    index: StrPath | None = None,
    retry: bool = False,
    shard: Shard | None = None,
    progress: Progress | None = None,
) -> Batch:
    """Predict all scenes of a catalog, each into files of its own.

    Args:
        catalog: see :func:`~geoglnet.cluster.catalog.read_catalog`.
        request: what is to be made of each scene.
        index: GeoParquet file with a row for every scene; ``index.parquet`` in the folder of the first output when left out.
        retry: try scenes again that have failed.
        shard: share of the scenes to compute; all when left out.
        progress: receives the stage ``scenes``, and warnings with the scene's id.

    Raises:
        DatasetError: the catalog cannot be read.
        OutputExistsError: an output exists.
        OutputError: an output cannot be written, or the disk is full.
        GeoglnetError: the model, or a setting, cannot be used.
        Canceled: ``progress`` said so.
    """
    progress = progress or SilentProgress()
    scenes = read_catalog(catalog)
    index_path = Path(index) if index is not None else _folder(next(iter(request.outputs.values()))) / INDEX
    desk = _Desk(FolderStore(index_path.with_name(index_path.name + ".run")), request, index_path, retry)
    todo = desk.open(scenes if shard is None else shard.of(scenes))
    progress.plan("scenes", len(todo), "scenes")
    if todo:
        _Batcher(desk, request, scenes, progress).run(todo)
    rows = desk.rows(scenes)
    if len(rows) < len(scenes):
        return Batch(None, rows, len(todo))
    write_index(index_path, rows, {scene.id: scene.item for scene in scenes if scene.item is not None})
    desk.close(scenes)
    return Batch(index_path, rows, len(todo))


def _folder(template: str) -> Path:
    """Find the folder that is the same for all scenes."""
    return next(folder for folder in Path(template).parents if "{id}" not in str(folder))


@dataclass(frozen=True, slots=True)
class _Desk:
    """Marks and records of scenes in a store."""

    store: FolderStore
    request: BatchRequest
    index_path: Path
    retry: bool

    def open(self, scenes: Sequence[CatalogScene]) -> list[CatalogScene]:
        """List the scenes of a share that are to be computed; refuse those whose outputs others have written."""
        earlier = {} if self.request.overwrite else read_index(self.index_path, self.request.identity)
        if not self.index_path.parent.is_dir():
            raise OutputError(f"folder {self.index_path.parent} does not exist; create it first, or choose another output")
        self.store.folder.mkdir(exist_ok=True)
        todo = []
        for scene in scenes:
            row = self.row(scene) or earlier.get(scene.id)
            is_kept = row is not None and (all(path.exists() for path in row.paths.values()) if row.is_done else not self.retry)
            if row is not None:
                self.put(row)  # those of the index of an earlier catalog too
            if is_kept:
                continue
            # Of a scene that was begun, outputs may be there already: they were checked, and are our own.
            if self._mark(scene) is None:
                for path in {path.parent for path in self.request.paths(scene).values()}:
                    path.mkdir(parents=True, exist_ok=True)
                polygons = polygon_config(self.request.vector_config)
                output_files(self.request.paths(scene), polygons, overwrite=self.request.overwrite)
            todo.append(scene)
        return todo

    def _mark(self, scene: CatalogScene) -> dict[str, Any] | None:
        try:
            plain = json.loads(self.store.get(f"{_SCENES}/{scene.id}.json") or b"")
        except ValueError:
            return None
        return plain if isinstance(plain, dict) and plain.get("request") == self.request.identity else None

    def row(self, scene: CatalogScene) -> SceneRow | None:
        """Read the record of a scene that is finished, has failed, or has ended too many processes."""
        plain = self._mark(scene)
        if plain is None or ("status" not in plain and int(plain["begun"]) < _MOST_DEATHS):
            return None
        if "status" not in plain:
            told = f"{plain['begun']} processes began it and died"
            return SceneRow(scene.id, (scene.path,), "failed", told, "died", 0.0, {}, request=self.request.identity)
        return SceneRow.from_dict(plain)

    @contextmanager
    def begun(self, scene: CatalogScene) -> Iterator[bool]:
        """Mark a scene as begun, and yield whether it was before. If it is stopped in good order, that counts as no death."""
        mark = self._mark(scene)
        deaths = 0 if mark is None or "status" in mark else int(mark["begun"])
        self._put_mark(scene, deaths + 1)
        with ExitStack() as stack:
            stack.callback(self._put_mark, scene, deaths)
            yield mark is not None
            stack.pop_all()  # it ended well: its row takes the mark's place

    def _put_mark(self, scene: CatalogScene, begun: int) -> None:
        plain = {"request": self.request.identity, "begun": begun}
        self.store.put(f"{_SCENES}/{scene.id}.json", json.dumps(plain).encode())

    def put(self, row: SceneRow) -> None:
        """Enter a scene that is finished, or has failed."""
        self.store.put(f"{_SCENES}/{row.id}.json", json.dumps(row.to_dict()).encode())

    def rows(self, scenes: Sequence[CatalogScene]) -> tuple[SceneRow, ...]:
        """Read all records, in the catalog's order."""
        return tuple(row for scene in scenes if (row := self.row(scene)) is not None)

    def source(self, scene: CatalogScene) -> str:
        """Find what of a scene is opened: a STAC item of several rasters is put into the store."""
        if scene.path:
            return scene.path
        name = f"{_ITEMS}/{scene.id}.json"
        self.store.put(name, json.dumps(scene.item, default=str).encode())
        return str(self.store.folder.absolute() / name)

    def stretch(self) -> Scaling | BandScaling | None:
        """Read the common stretch, if some process has measured it."""
        content = self.store.get(_STRETCH)
        try:
            plain = json.loads(content or b"null")
        except ValueError:
            return None
        return None if plain is None or plain["request"] != self.request.identity else scaling_from_dict(plain["scaling"])

    def put_stretch(self, scaling: Scaling | BandScaling) -> None:
        plain = {"request": self.request.identity, "scaling": asdict(scaling)}
        self.store.put(_STRETCH, json.dumps(plain).encode(), if_absent=True)

    def close(self, scenes: Sequence[CatalogScene]) -> None:
        """Remove the store."""
        for folder in (_SCENES, _ITEMS):
            for name in self.store.names(folder):
                self.store.remove(f"{folder}/{name}")
        self.store.remove(_STRETCH)
        self.store.tidy()


@dataclass(frozen=True, slots=True)
class _Batcher:
    """Computes scenes in this process."""

    desk: _Desk
    request: BatchRequest
    scenes: Sequence[CatalogScene]
    progress: Progress

    def run(self, todo: Sequence[CatalogScene]) -> None:
        """Compute scenes one by one."""
        network, manifest = open_model(self.request.model)
        config = self.request.config
        if self.request.common_stretch and config.scaling is None:
            config = replace(config, scaling=self._stretch(manifest))
        predictor = Predictor(network, manifest, config)
        del network  # its unfolded half is not needed any more
        for scene in todo:
            with self.desk.begun(scene) as was_begun:
                self.desk.put(self._row(scene, predictor, config, was_begun))
            self.progress.advance()

    def _row(self, scene: CatalogScene, predictor: Predictor, config: PredictConfig, was_begun: bool) -> SceneRow:
        started, paths = time.monotonic(), self.request.paths(scene)
        row = SceneRow(scene.id, (scene.path,), "failed", "", "", 0.0, {}, request=self.request.identity)
        try:
            with begin(
                self.desk.source(scene),
                paths,
                beside=self.request.beside,
                model=str(self.request.model),
                config=config,
                vector_config=self.request.vector_config,
                overwrite=self.request.overwrite or was_begun,
                resume=was_begun,
                predictor=predictor,
                progress=_OfScene(scene.id, self.progress),
            ) as run:
                run.compute()
                num_polygons = run.finish()
            row = replace(row, status="done", paths=paths, num_polygons=num_polygons, **_place(run))
        except Canceled:
            raise
        except GeoglnetError as error:
            if isinstance(error, OutputError) and is_disk_full(error):  # the next scene would fail of it too
                raise
            told = " ".join(str(error).split())
            self.progress.warn(f"{scene.id}: {told}")
            row = replace(row, error=told, kind=type(error).__name__)
        return replace(row, seconds=round(time.monotonic() - started, 3))

    def _stretch(self, manifest: Manifest) -> Scaling | BandScaling:
        """Measure the common stretch, or take that which another process has measured."""
        if (known := self.desk.stretch()) is not None:
            return known
        found = []
        step = -(-len(self.scenes) // _MOST_MEASURED)
        for scene in self.scenes[::step]:
            try:
                source = Source.of(self.desk.source(scene), self.request.beside)
                with source.open_for(manifest, self.request.config, SilentProgress()) as opened:
                    found.append(opened.scaling)
            except GeoglnetError:  # its row will say so
                continue
        ends = [scaling for scaling in found if isinstance(scaling, Scaling)]
        if not ends or len(ends) < len(found):
            raise ConfigError("the values of these scenes have no stretch to share; leave the common one out")
        low, high = median(scaling.low for scaling in ends), median(scaling.high for scaling in ends)
        self.desk.put_stretch(Scaling(low, high, f"common to the catalog, median of {len(ends)} scenes"))
        return self.desk.stretch() or ends[0]


def _place(run: Run) -> dict[str, Any]:
    """Describe where a scene lies, in degrees; nothing for one without a CRS."""
    crs, (width, height) = run.scene.crs, (run.writer.shape.width, run.writer.shape.height)
    if crs is None:
        return {}
    corners = [run.writer.transform @ corner for corner in ((0, 0), (width, 0), (width, height), (0, height))]
    polygon = {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}
    found = transform_geom(crs, "EPSG:4326", polygon)
    return {"footprint": json.loads(json.dumps(found))}


class _OfScene:
    """Progress of one scene among many: its warnings are told with its id, its steps are not."""

    def __init__(self, name: str, progress: Progress) -> None:
        self._name, self._progress = name, progress

    def plan(self, stage: str, total: int, unit: str, **figures: float) -> None: ...

    def advance(self, amount: int = 1, **figures: float) -> None:
        self._progress.advance(0)  # where it may be canceled

    def log(self, message: str) -> None: ...

    def warn(self, message: str) -> None:
        self._progress.warn(Message(f"{self._name}: ", message))
