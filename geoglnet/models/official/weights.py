"""The authors' ``state_dict`` under our names.

Their three stages leave three files: ``path_g`` (global branch), ``path_g2l`` (the same, the local branch and f_agg above it)
and ``path_l2g`` (the refined global branch, the local branch, f_agg). The third needs the first beside it: the local branch
takes the maps of the global branch as it was *before* refinement.

Two things differ besides names. Their FPN counts levels from the top (``latlayer1`` is our level 4), and concatenates the
second-smooth maps from level 5 down, each followed by the other branch's map of that level; ours go from level 2 up, own maps
first. So the input channels of the layers after a concatenation are put in our order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from geoglnet.config import Branches, Compat, ModelConfig, Sharing
from geoglnet.errors import CheckpointError
from geoglnet.message import Keyword
from geoglnet.models.checkpoint import Blank
from geoglnet.models.glnet import GLNet
from geoglnet.models.pickles import read_pickle
from geoglnet.types import StrPath

State = Mapping[str, Tensor]

# By the channels of c5 and the number of blocks in layer3.
_RESNETS = {(512, 2): "resnet18", (512, 6): "resnet34", (2048, 6): "resnet50", (2048, 23): "resnet101"}
_FROM_LEVEL_2 = (3, 2, 1, 0)
# Theirs: own 5, shared 5, own 4, shared 4, …; ours: own 2 to 5, shared 2 to 5.
_OWN_THEN_SHARED = (6, 4, 2, 0, 7, 5, 3, 1)


def read_state(path: StrPath) -> dict[str, Tensor]:
    """Tensors of an authors' checkpoint, without ``module.`` before their names.

    Nothing in the file is executed (``torch.load(weights_only=True)``).

    Raises:
        CheckpointError: the file is missing, truncated, holds more than tensors, or is no ``state_dict``.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"no checkpoint at {path}; give a file that the authors' code wrote")
    state = read_pickle(path, "a whole PyTorch checkpoint of tensors")
    if not isinstance(state, dict) or not all(isinstance(n, str) and isinstance(value, Tensor) for n, value in state.items()):
        raise CheckpointError(f"{path} holds no state_dict; the authors' code saves model.state_dict()")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def official_network(state: State, sharing: Sharing | None, fixed: State | None = None) -> GLNet:
    """Build a network of ours with the authors' weights, in evaluation mode.

    Args:
        state: what the stage's training saved.
        sharing: ``None`` for the global branch alone (stage 1), ``GLOBAL_TO_LOCAL`` (stage 2) or ``BIDIRECTIONAL`` (stage 3).
        fixed: what stage 1 saved; needed for ``BIDIRECTIONAL``.

    Raises:
        CheckpointError: a tensor is missing or does not fit, or ``fixed`` is.
    """
    if sharing is Sharing.BIDIRECTIONAL and fixed is None:
        raise CheckpointError(
            "the bidirectional stage also needs the global stage's checkpoint: give " + Keyword("global_path")
        )
    config = _config(state, sharing)
    try:
        ours: dict[str, Tensor] = dict(_branch(fixed or state, "global", "global_branch"))
        if sharing is not None:
            ours |= _branch(state, "local", "local_branch")
            ours |= _aggregation(state, from_refined=sharing is Sharing.BIDIRECTIONAL)
        if sharing is Sharing.BIDIRECTIONAL:
            ours |= _branch(state, "global", "refined_branch", suffix="_ext")
        with Blank():
            GLNet(config).load_state_dict(ours, assign=True)  # sizes are compared before memory is taken for them
        network = GLNet(config)
        network.load_state_dict(ours)
    except (IndexError, RuntimeError) as error:
        raise CheckpointError(f"not the authors' network: {' '.join(str(error).split())[:200]}") from error
    return network.eval()


def _config(state: State, sharing: Sharing | None) -> ModelConfig:
    classify, smooth = _get(state, "fpn_global.classify.weight"), _get(state, "fpn_global.smooth4_2.weight")
    if classify.ndim != 4 or smooth.ndim != 4 or _get(state, "fpn_global.toplayer.weight").ndim != 4:
        raise CheckpointError("not a checkpoint of the authors' network: the weights of its convolutions have not four sides")
    alone = sharing is None
    return ModelConfig(
        num_classes=classify.shape[0],
        backbone=_backbone(state),
        pyramid_channels=smooth.shape[1],
        smooth_channels=smooth.shape[0],
        branches=Branches.GLOBAL if alone else Branches.BOTH,
        sharing=sharing or Sharing.NONE,
        aggregate=not alone,
        compat=Compat.OFFICIAL,
    )


def _backbone(state: State) -> str:
    deepest = _get(state, "fpn_global.toplayer.weight").shape[1]
    blocks = len({name.split(".")[2] for name in state if name.startswith("resnet_global.layer3.")})
    if (deepest, blocks) not in _RESNETS:
        raise CheckpointError(
            f"no ResNet of ours has {blocks} blocks in layer3 and {deepest} channels; the authors' is ResNet50"
        )
    return _RESNETS[deepest, blocks]


def _branch(state: State, theirs: str, ours: str, suffix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Rename a branch's tensors as ours are; ``suffix`` chooses the layers that the third stage adds to the global branch."""
    backbone, fpn = f"resnet_{theirs}.", f"fpn_{theirs}."
    for name, tensor in state.items():
        if name.startswith(backbone) and not name.startswith(f"{backbone}fc."):  # fc: ImageNet's classifier, which is not used
            yield f"{ours}.backbone.{name.removeprefix(backbone)}", tensor
    for index, lateral in enumerate(("latlayer3", "latlayer2", "latlayer1", "toplayer")):
        yield from _layer(state, f"{fpn}{lateral}{suffix}", f"{ours}.pyramid.laterals.{index}")
        yield from _layer(state, f"{fpn}smooth{4 - index}_1{suffix}", f"{ours}.pyramid.smooth_first.{index}")
        yield from _layer(state, f"{fpn}smooth{4 - index}_2{suffix}", f"{ours}.pyramid.smooth_second.{index}")
    if theirs == "local" or suffix:
        yield from _layer(state, f"{fpn}smooth", f"{ours}.pyramid.fuse", _OWN_THEN_SHARED)
        yield from _layer(state, f"{fpn}classify", f"{ours}.pyramid.classify")
    else:
        yield from _layer(state, f"{fpn}classify", f"{ours}.pyramid.classify", _FROM_LEVEL_2)


def _aggregation(state: State, from_refined: bool) -> Iterator[tuple[str, Tensor]]:
    """f_agg. Its global half reads a concatenation, unless the global branch is refined: then it is convolved before."""
    weight = _get(state, "ensemble_conv.weight")
    local, glb = weight.chunk(2, dim=1)
    yield "f_agg.weight", torch.cat([local, glb if from_refined else _reordered(glb, _FROM_LEVEL_2)], dim=1)
    yield "f_agg.bias", _get(state, "ensemble_conv.bias")


def _layer(state: State, theirs: str, ours: str, order: Sequence[int] | None = None) -> Iterator[tuple[str, Tensor]]:
    weight = _get(state, f"{theirs}.weight")
    yield f"{ours}.weight", weight if order is None else _reordered(weight, order)
    yield f"{ours}.bias", _get(state, f"{theirs}.bias")


def _reordered(weight: Tensor, order: Sequence[int]) -> Tensor:
    """Reorder a convolution's input channels, in as many blocks as ``order`` has."""
    blocks = weight.chunk(len(order), dim=1)
    return torch.cat([blocks[index] for index in order], dim=1)


def _get(state: State, name: str) -> Tensor:
    if name not in state:
        raise CheckpointError(f"not a checkpoint of the authors' network: it has no tensor {name}")
    return state[name]
