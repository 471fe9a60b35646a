"""What a run was begun with: stored in its workspace, so that any process can go on with it and get the same bytes.

*Settings* are what a run is made from: scene, model, options, outputs, and the scaling that was measured. *Facts* are what its
bytes depend on, as text by name: they are compared before anything is added to a run, and named where they differ. Those of the
machine are in :mod:`geoglnet.prediction.machine`; nothing here needs torch.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from geoglnet.config import FOREIGN
from geoglnet.errors import OutputError
from geoglnet.models.manifest import Manifest, model_digest
from geoglnet.prediction.layers import Layer
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.source import SceneFiles
from geoglnet.raster.scaling import scaling_from_dict
from geoglnet.raster.scene import RasterScene
from geoglnet.types import StrPath
from geoglnet.vector.settings import Quantity, VectorConfig

_MOST_DIFFERENCES = 4  # that one line names


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What a run is made from.

    Args:
        scene_paths: one raster, or several that make one mosaic.
        model_path: the ``.safetensors`` file.
        outputs: files to write, by output, in order.
        config: how the scene is predicted.
        vector_config: how polygons are made.
        overwrite: whether files that exist are replaced.
        beside: other rasters of the scene, by the name of the model's band that is read from each.
        over_model: settings of polygons that replace the model's own, until these are known; ``None`` where ``vector_config``
            has them all.
    """

    scene_paths: tuple[StrPath, ...]
    model_path: Path
    outputs: Mapping[str, Path]
    config: PredictConfig
    vector_config: VectorConfig
    overwrite: bool = False
    beside: Mapping[str, StrPath] = field(default_factory=dict)
    over_model: Mapping[str, Any] | None = None

    def to_dict(self, scene: RasterScene) -> dict[str, Any]:
        """Make the plain form for JSON, for processes that begin in another folder.

        Args:
            scene: the open scene; what was measured on it is fixed, so that no other process measures it again.
        """
        # Without the spool folder, which other machines may not have.
        fixed = replace(self, config=replace(self.config, scaling=scene.scaling, nodata=scene.nodata, spool_folder=None))
        scenes = list(map(_findable, self.scene_paths))
        beside = {name: _findable(path) for name, path in self.beside.items()}
        paths = {"scene_paths": scenes, "outputs": dict(self.outputs), "beside": beside}
        plain: dict[str, Any] = _plain(asdict(fixed) | paths)
        del plain["over_model"]  # settled by now
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any], folder: Path) -> RunSettings:
        """Restore settings from :meth:`to_dict`.

        Args:
            plain: what the journal holds.
            folder: of the run, for the message.

        Raises:
            OutputError: a part is missing or of another kind.
        """
        try:
            config, vector = dict(plain["config"]), dict(plain["vector_config"])
            config |= {name: None if config[name] is None else tuple(config[name]) for name in ("bands", "bounds")}
            config |= {
                "mask_path": _path(config["mask_path"]),
                "scaling": config["scaling"] and scaling_from_dict(config["scaling"]),
            }
            vector |= {name: _made(Quantity, vector[name]) for name in ("simplify", "sieve")}
            return cls(
                tuple(map(str, plain["scene_paths"])),
                Path(plain["model_path"]),
                {str(name): Path(path) for name, path in plain["outputs"].items()},
                PredictConfig(**config),
                VectorConfig(**vector | {"statistics_path": _path(vector["statistics_path"])}),
                bool(plain["overwrite"]),
                {str(name): str(path) for name, path in plain.get("beside", {}).items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # ConfigError is a ValueError
            raise OutputError(f"the settings of {folder} are damaged ({error}); remove it to begin again") from error


def _findable(path: StrPath) -> str:
    """Make the path of a local file absolute; addresses, VRTs in a string and names of drivers stay as they are."""
    with suppress(OSError, ValueError):  # a name that is too long for the file system
        if Path(path).exists():
            return str(Path(path).absolute())
    return os.fspath(path)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _made(kind: type[Any], plain: Mapping[str, Any] | None) -> Any:
    return None if plain is None else kind(**plain)


def differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """Name what differs between the facts of two runs: ``effort: 0.5, now 1``."""
    names = [*ours, *(name for name in theirs if name not in ours)]
    changed = [name for name in names if ours.get(name) != theirs.get(name)]
    named = [f"{name}: {ours.get(name, 'none')}, now {theirs.get(name, 'none')}" for name in changed[:_MOST_DIFFERENCES]]
    return [*named, f"{len(changed) - len(named)} more"] if len(changed) > len(named) else named


def request_facts(
    scene: RasterScene,
    files: SceneFiles,
    checkpoint: tuple[Path, Manifest],
    config: PredictConfig,
    layers: Collection[Layer],
) -> dict[str, str]:
    """Gather the facts that are the same on every machine: the model, the options and the scene, as text by name."""
    path, manifest = checkpoint
    return {
        "geoglnet": version("geoglnet"),
        "model": model_fact(manifest, path),
        "layers": ", ".join(layer.name for layer in layers),
        **_option_facts(config),
        **scene_facts(scene),
        **files.facts,
    }


def model_fact(manifest: Manifest, path: Path) -> str:
    """Name a model, with the beginning of its hash."""
    fact = f"{manifest.name} {model_digest(path)[:16]}"
    if manifest.model.architecture in FOREIGN:  # what describes it may lie beside the file
        told = hashlib.sha256(json.dumps(manifest.to_dict(), sort_keys=True).encode()).hexdigest()
        fact += f", described as {told[:16]}"
    return fact


def _option_facts(config: PredictConfig) -> dict[str, str]:
    return {
        "effort": f"{config.effort:g}",
        "coarse-to-fine": "on" if config.coarse_to_fine else "off",
        "tta": "on" if config.augment else "off",
        "bounds": "none" if config.bounds is None else " ".join(map(repr, config.bounds)),  # repr keeps all digits
        "mask": "none" if config.mask_path is None else _digest(config.mask_path),
    }


def scene_facts(scene: RasterScene) -> dict[str, str]:
    """Gather the facts of how a scene is read."""
    height, width = scene.shape
    return {
        "scene grid": f"{width} × {height} px, transform {', '.join(map(repr, scene.transform[:6]))}",
        "scene values": ", ".join(["bands " + ", ".join(map(str, scene.bands)), scene.values_rule or str(scene.scaling)]),
        **({"other rasters": scene.other_rasters} if scene.other_rasters else {}),
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"
