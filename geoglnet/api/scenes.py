"""Scenes as Python programs have them: names of files, open datasets, arrays, STAC items."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any
from weakref import finalize

from geoglnet.errors import ConfigError

if TYPE_CHECKING:
    from affine import Affine

    from geoglnet.types import StrPath


class TemporaryFolder:
    """A folder that is removed when nobody holds it any more, or when Python ends."""

    def __init__(self) -> None:
        self.path = Path(mkdtemp(prefix="geoglnet-"))
        finalize(self, shutil.rmtree, self.path, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class ScenePaths:
    """Files that a scene is read from.

    Args:
        paths: one, or several that make one mosaic.
        folder: temporary, of files that were made for it; they are gone when nobody holds it any more.
    """

    paths: tuple[StrPath, ...]
    folder: TemporaryFolder | None = None


def scene_files(scene: Any, *, transform: Affine | None = None, crs: Any = None) -> ScenePaths:
    """Find, or make, the files that a scene is read from. Memory: a strip of 1024 rows of an array.

    Args:
        scene: a file's name, an address or a /vsi path; several of them, as one mosaic; an open rasterio dataset; a numpy array
            ``(h, w)`` or ``(bands, h, w)``, masked where there is no value; an xarray ``DataArray``, computed strip by strip
            where it is lazy; a STAC item (pystac's, or a dict).
        transform: pixel to CRS coordinates of an array; that of a ``DataArray`` when left out.
        crs: of an array; that of a ``DataArray`` when left out.

    Raises:
        ConfigError: something else, or an array that is no raster.
        OutputError: the temporary folder is full.
    """
    is_array = hasattr(scene, "shape") and hasattr(scene, "dtype") and not hasattr(scene, "read")
    if not is_array and (transform is not None or crs is not None):
        raise ConfigError("the scene has a transform and a CRS of its own; give transform and crs for arrays only")
    if isinstance(scene, (str, os.PathLike)):
        return ScenePaths((scene,))
    if is_array:
        from geoglnet.raster.arrays import write_array

        folder = TemporaryFolder()
        path = folder.path / "scene.tif"
        write_array(scene, path, transform=transform, crs=crs)
        return ScenePaths((path,), folder)
    if hasattr(scene, "read") and hasattr(type(scene), "profile"):
        return _of_dataset(scene)
    if (isinstance(scene, Mapping) and "assets" in scene) or (hasattr(scene, "assets") and hasattr(scene, "to_dict")):
        return _of_item(scene)
    if isinstance(scene, Sequence) and all(isinstance(part, (str, os.PathLike)) for part in scene):
        return ScenePaths(tuple(scene))
    raise ConfigError(
        f"a {type(scene).__name__} is no scene; give a file's name, several of them, a rasterio dataset, a numpy array, an "
        "xarray DataArray or a STAC item"
    )


def _of_dataset(src: Any) -> ScenePaths:
    """Take the file of an open dataset; what has no file of its own, such as a WarpedVRT, is copied."""
    if src.closed:
        raise ConfigError(f"dataset {src.name} is closed; open it again, or give its name")
    if src.mode != "r":
        raise ConfigError(f"dataset {src.name} is open for writing; close it and give its name, or open it for reading")
    from rasterio.vrt import WarpedVRT

    if not isinstance(src, WarpedVRT):
        return ScenePaths((src.name,))
    from rasterio.shutil import copy

    folder = TemporaryFolder()
    path = folder.path / "warped.tif"
    copy(src, path, driver="GTiff", tiled=True, bigtiff="IF_SAFER")
    return ScenePaths((path,), folder)


def _of_item(item: Any) -> ScenePaths:
    """Write a STAC item beside nothing, with whole addresses, so that it is read like one on the disk."""
    if not isinstance(item, Mapping):
        item = item.clone()
        item.make_asset_hrefs_absolute()
        item = item.to_dict(include_self_link=True, transform_hrefs=False)
    folder = TemporaryFolder()
    path = folder.path / "item.json"
    path.write_text(json.dumps(item), encoding="utf-8")
    return ScenePaths((path,), folder)
