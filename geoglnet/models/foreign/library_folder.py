"""Folders that segmentation-models-pytorch wrote (``save_pretrained``), as checkpoints of ours."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from geoglnet.bands import RGB, Bands
from geoglnet.config import Branches, ModelConfig, Sharing
from geoglnet.errors import CheckpointError
from geoglnet.legend import Legend, distinct_colors
from geoglnet.models.baselines.library import AS_PUBLISHED
from geoglnet.models.checkpoint import save_checkpoint
from geoglnet.models.foreign.described import bands_of, region_of
from geoglnet.models.foreign.importing import Description
from geoglnet.models.manifest import Manifest, model_digest
from geoglnet.models.network import build_network
from geoglnet.optional import needed
from geoglnet.output import OutputFile
from geoglnet.plain import shortened
from geoglnet.types import StrPath

_OURS = {
    "Unet": "unet",
    "PSPNet": "pspnet",
    "DeepLabV3Plus": "deeplabv3plus",
    "Segformer": "segformer",
    "UPerNet": "upernet",
}
_ANY = ("encoder_name", "encoder_weights", "in_channels", "classes", "_model_class")
_PLACES = {"encoder.": "backbone.", "decoder.": "head.decoder.", "segmentation_head.": "head.segmentation_head."}
_SIZE = 512


def import_folder(folder: StrPath, path: StrPath, description: Description, *, overwrite: bool = False) -> Manifest:
    """Write a network of segmentation-models-pytorch as a checkpoint of ours, which predicts, and can be trained and adapted.

    Nothing in the folder is executed: ``config.json`` is compared with what our networks of the library are, and
    ``model.safetensors`` holds tensors.

    Args:
        folder: with ``config.json`` and ``model.safetensors``.
        path: ``.safetensors`` file to write.
        description: resolution and classes; bands, mean and std where they are not ImageNet's of red, green and blue.
        overwrite: replace an existing file.

    Raises:
        CheckpointError: the folder holds something else, or a network that ours is not.
        ConfigError: the library is not installed, or what is described cannot be.
        OutputExistsError: the file exists.
        OutputError: it cannot be written.
    """
    folder = Path(folder)
    output = OutputFile(path, overwrite)
    config = _config(folder)
    architecture = _architecture(folder, config)
    manifest = _manifest(folder, config, description, architecture)
    network = build_network(manifest.model)
    weights = folder / "model.safetensors"
    try:
        state = {_placed(name): tensor for name, tensor in load_file(weights).items()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{weights} cannot be read ({' '.join(str(error).split())[:100]}); save the model again"
        ) from error
    if config["classes"] == 1:  # the logit of the other class is 0
        head = {name: tensor for name, tensor in state.items() if name.startswith("head.segmentation_head.")}
        state |= {name: torch.cat([torch.zeros_like(tensor), tensor]) for name, tensor in head.items()}
    _check(folder, state, network.state_dict())
    network.load_state_dict(state)
    save_checkpoint(output, network.eval(), manifest, half=False)
    return manifest


def _config(folder: Path) -> Mapping[str, Any]:
    path = folder / "config.json"
    try:
        config: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{folder} is no model of segmentation-models-pytorch: it has no config.json to read") from error
    if not isinstance(config, dict) or "_model_class" not in config or "encoder_name" not in config:
        raise CheckpointError(f"{path} is not what segmentation-models-pytorch writes (_model_class, encoder_name)")
    for name in ("classes", "in_channels"):
        if type(config.get(name)) is not int or not 1 <= config[name] <= 255:
            raise CheckpointError(f"{path} has {name} = {shortened(config.get(name))}; it must be a whole number from 1 to 255")
    return config


def _architecture(folder: Path, config: Mapping[str, Any]) -> str:
    """Find the architecture of ours that a network is, with all that decides what it computes.

    Raises:
        CheckpointError: there is none.
    """
    kind = config["_model_class"]
    way_out = "export it as ONNX (torch.onnx.export) and predict with that"
    if kind not in _OURS:
        raise CheckpointError(f"{folder} holds a {shortened(kind)}; {', '.join(_OURS)} are read, {way_out}")
    library = needed("segmentation_models_pytorch", "baselines")
    architecture = _OURS[kind]
    known = {name: parameter.default for name, parameter in inspect.signature(getattr(library, kind)).parameters.items()}
    ours = known | AS_PUBLISHED.get(architecture, {})
    for name, value in config.items():
        if name in _ANY:
            continue
        wanted = ours.get(name)
        wanted = list(wanted) if isinstance(wanted, tuple) else wanted
        if name not in ours or value != wanted:
            raise CheckpointError(f"{folder} has {name} = {shortened(value)}, our {kind} {shortened(wanted)}; {way_out}")
    return architecture


def _manifest(folder: Path, config: Mapping[str, Any], description: Description, architecture: str) -> Manifest:
    name, count = folder.resolve().name, max(2, config["classes"])
    classes = description.classes
    if classes is not None and config["classes"] == 1 and len(classes) == 1:
        classes = ("background", *classes)
    if description.resolution_m is None or classes is None:
        raise CheckpointError(f"{folder} does not say its pixel size and class names; give resolution and classes")
    if len(classes) != count:
        raise CheckpointError(f"{folder} gives {config['classes']} classes, not {len(classes)}: {', '.join(classes)}")
    background = classes.index(description.background) if description.background in classes else None
    background = 0 if config["classes"] == 1 and background is None else background
    channels, names = config["in_channels"], description.bands or ()
    is_usual = channels == 3 and description.mean is None and description.std is None and names in ((), RGB)
    # The library's encoders are trained on ImageNet's mean and std unless somebody says otherwise.
    bands = Bands() if is_usual else bands_of(str(folder), channels, description.mean, description.std, names)
    size = description.size or _SIZE
    model = ModelConfig(
        count,
        str(config["encoder_name"]),
        channels,
        branches=Branches.LOCAL,
        sharing=Sharing.NONE,
        aggregate=False,
        architecture=architecture,
    )
    resolution = description.resolution_m
    return Manifest(
        name,
        model,
        region_of(size, description.overlap if description.overlap is not None else size // 4),
        Legend(classes, distinct_colors(count), background=background),
        resolution,
        (resolution / 2, resolution * 2),
        resolution,
        bands,
        training={"imported_from": f"{name}/model.safetensors sha256:{model_digest(folder / 'model.safetensors')}"}
        if (folder / "model.safetensors").is_file()
        else {},
    )


def _placed(name: str) -> str:
    place = next((theirs for theirs in _PLACES if name.startswith(theirs)), "")
    return _PLACES.get(place, "") + name.removeprefix(place)


def _check(folder: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    missing, foreign = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing or foreign:
        name = (missing or foreign)[0]
        raise CheckpointError(f"{folder} does not hold the network of its config.json: {shortened(name)} is not in both")
    for name, tensor in found.items():
        if tensor.shape != wanted[name].shape:
            raise CheckpointError(f"{folder} has {name} of the shape {tuple(tensor.shape)}, not {tuple(wanted[name].shape)}")
