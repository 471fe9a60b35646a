"""The tool that turns a checkpoint of the authors' code into one of ours."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from importlib.metadata import version
from pathlib import Path

from geoglnet.bands import Bands
from geoglnet.config import RegionConfig, Sharing
from geoglnet.errors import ConfigError
from geoglnet.legend import Legend
from geoglnet.message import Keyword
from geoglnet.models.checkpoint import save_checkpoint
from geoglnet.models.manifest import Manifest, model_digest
from geoglnet.models.official.weights import official_network, read_state
from geoglnet.output import OutputFile, refuse_inputs
from geoglnet.types import StrPath


class OfficialStage(Enum):
    """The authors' training stages, each of which leaves a checkpoint (their modes 1, 2 and 3)."""

    GLOBAL = "global"
    G2L = "g2l"
    BIDIRECTIONAL = "bidirectional"


_SHARING = {
    OfficialStage.GLOBAL: None,
    OfficialStage.G2L: Sharing.GLOBAL_TO_LOCAL,
    OfficialStage.BIDIRECTIONAL: Sharing.BIDIRECTIONAL,
}


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a checkpoint does not say of the data it was trained on.

    Args:
        legend: classes in the authors' order.
        resolution_m: ground size of a pixel.
        image_size: side of its images, which the global branch saw whole.
    """

    legend: Legend
    resolution_m: float
    image_size: int


DEEPGLOBE = Dataset(
    Legend(
        ("unknown", "urban", "agriculture", "rangeland", "forest", "water", "barren"),
        ((0, 0, 0), (0, 255, 255), (255, 255, 0), (255, 0, 255), (0, 255, 0), (0, 0, 255), (255, 255, 255)),
        background=0,
    ),
    resolution_m=0.5,
    image_size=2448,
)
INRIA = Dataset(Legend(("background", "building"), ((32, 32, 32), (230, 75, 50)), background=0), 0.3, 5000)
BY_CLASSES = {dataset.legend.num_classes: dataset for dataset in (DEEPGLOBE, INRIA)}


@dataclass(frozen=True, slots=True)
class ImportConfig:
    """How a checkpoint is to be understood.

    Args:
        stage: which stage left it; ``None``: the bidirectional one where a global checkpoint is given, else ``G2L``.
        global_path: what stage 1 left; needed with stage 3.
        g2l_path: what stage 2 left, for tensors that the checkpoint lacks.
        dataset: what it was trained on; by its number of classes when left out (7: DeepGlobe, 2: Inria).
        side: of overviews and patches in pixels; 508 in the authors' scripts.
    """

    stage: OfficialStage | None = None
    global_path: StrPath | None = None
    g2l_path: StrPath | None = None
    dataset: Dataset | None = None
    side: int = 508


def import_official(path: StrPath, destination: StrPath, config: ImportConfig, *, overwrite: bool = False) -> Manifest:
    """Write a checkpoint of ours that gives the authors' logits (``compat = "official"``), in float32.

    Args:
        path: checkpoint of the authors' code; it is read without executing anything in it.
        destination: ``.safetensors`` file.
        config: how to understand it.
        overwrite: replace an existing file.

    Returns:
        The manifest written.

    Raises:
        CheckpointError: a file is missing, truncated or not the authors'.
        ConfigError: the number of classes says nothing about the data, and no data set is given.
        OutputExistsError: the destination exists.
    """
    file = OutputFile(destination, overwrite)
    read = {"the checkpoint": path, "the global checkpoint": config.global_path, "the checkpoint of stage 2": config.g2l_path}
    refuse_inputs([file], ((what, source) for what, source in read.items() if source is not None))
    stage = config.stage or (OfficialStage.G2L if config.global_path is None else OfficialStage.BIDIRECTIONAL)
    # What the checkpoint has itself wins over stage 2's.
    state = (read_state(config.g2l_path) if config.g2l_path is not None else {}) | read_state(path)
    fixed = None if config.global_path is None else read_state(config.global_path)
    network = official_network(state, _SHARING[stage], fixed)
    dataset = config.dataset or BY_CLASSES.get(network.config.num_classes)
    if dataset is None:
        raise ConfigError(
            f"no published data set has {network.config.num_classes} classes; give "
            + (Keyword("legend") + ", " + Keyword("resolution_m") + " and " + Keyword("image_size"))
        )
    manifest = Manifest(
        name=f"official-{stage.value}",
        model=network.config,
        region=region_of(dataset.image_size, config.side),
        legend=dataset.legend,
        resolution_m=dataset.resolution_m,
        resolution_range_m=(dataset.resolution_m / 2, dataset.resolution_m * 2),
        assumed_pixel_size_m=dataset.resolution_m,
        bands=Bands(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),  # the authors' network takes 0 to 1
        training={"imported_from": f"{Path(path).name} sha256:{model_digest(path)}", "stage": stage.value},
        version=version("geoglnet"),
    )
    # float32: half precision would move logits by some 1e-3 of their scale.
    save_checkpoint(file, network, manifest, half=False)
    return manifest


def region_of(image_size: int, side: int) -> RegionConfig:
    """Sizes with the authors' image as the region (an even number of pixels); larger scenes are covered by several."""
    size = image_size + image_size % 2
    # The smallest margin, from a twelfth of the side, with which cores end where the tiles of a TIFF do.
    margin = next(m for m in range(size // 12, size) if (size - 2 * m) % RegionConfig.TILE_SIZE == 0)
    return RegionConfig(region_size=size, overview_size=side, patch_size=side, patch_overlap=50, margin=margin)
