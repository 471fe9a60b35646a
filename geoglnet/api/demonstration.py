"""``geoglnet.demo``: a generated scene to try everything on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from geoglnet.api.bars import watched

if TYPE_CHECKING:
    from geoglnet.progress import Progress
    from geoglnet.types import StrPath


def demo(
    folder: StrPath,
    *,
    shape: tuple[int, int] | None = None,
    seed: int = 0,
    pixel_size_m: float = 0.25,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write a generated scene and its true polygons, to try everything on without data or network.

    >>> import geoglnet
    >>> scene_path = geoglnet.demo("demo", shape=(256, 320), seed=3)
    >>> scene_path.name, sorted(path.name for path in scene_path.parent.iterdir())
    ('scene.tif', ['scene.tif', 'truth.gpkg'])

    Memory: some 60 bytes per pixel while it is drawn.

    Args:
        folder: gets ``scene.tif`` (uint8, three bands, UTM) and ``truth.gpkg``; made when it is missing.
        shape: (height, width) in pixels; 2560 × 3072 when left out.
        seed: equal seeds give equal scenes.
        pixel_size_m: ground size of a pixel.
        overwrite: replace files that exist.
        progress: receiver of steps; bars when left out.

    Returns:
        Path of the scene.

    Raises:
        ConfigError: a side is shorter than 60 m.
        OutputExistsError: a file exists.
        OutputError: the folder cannot be made, or the disk is full.
    """
    from geoglnet.synthetic.generator import DEFAULT_SHAPE
    from geoglnet.synthetic.writing import write_generated
    from geoglnet.types import Shape

    size = DEFAULT_SHAPE if shape is None else Shape(*shape)
    with watched(progress) as recorder:
        written = write_generated(
            folder, shape=size, seed=seed, pixel_size_m=pixel_size_m, overwrite=overwrite, progress=recorder
        )
    return written[0]
