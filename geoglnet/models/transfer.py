"""Transfer: give a network the weights of another whose classes and bands may differ.

Which dimensions of a tensor count classes or bands is found by building the network once more with one of each more: no family
of networks has to say it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from geoglnet.config import ModelConfig
from geoglnet.errors import CheckpointError
from geoglnet.legend import Legend
from geoglnet.models.checkpoint import Blank
from geoglnet.models.manifest import Manifest
from geoglnet.models.network import Network, network_builder

_FREE = ("num_classes", "in_channels", "sharing", "compat")
"""Settings in which the other model may differ; one that shares less lacks the refined branch, which is made later."""
_MADE_LATER = "refined_branch."


def transfer(
    network: Network, legend: Legend, bands: Sequence[str], start: Network, theirs: Manifest, source: str
) -> frozenset[str]:
    """Fill a network with the weights of another, class by class and band by band.

    A class of the same name keeps its logits, a band of the same name its weights. Logits of other classes stay as they are
    drawn; other bands get the average of all of theirs. Where the bands are not the same, all are multiplied by (number of
    theirs) / (number of ours), so that maps keep their size.

    Args:
        network: changed in place.
        legend: its classes.
        bands: names of its bands.
        start: the other network.
        theirs: its manifest.
        source: its name, for messages.

    Returns:
        Names of the tensors that are wholly the other's: nothing in them is new.

    Raises:
        CheckpointError: the networks have another architecture.
    """
    _check_architecture(network.config, theirs.model, source)
    ours, given = network.state_dict(), start.state_dict()
    classes, stems = _axes(network.config, "num_classes"), _axes(network.config, "in_channels")
    same_classes, same_bands = legend.names == theirs.legend.names, tuple(bands) == theirs.bands.names
    whole: set[str] = set()
    with torch.no_grad():
        for name, tensor in ours.items():
            if name not in given:
                if not name.startswith(_MADE_LATER):
                    raise CheckpointError(f"{source} has no {name} to start from; its architecture is another")
                continue
            found = given[name]
            if name in stems and not same_bands:
                found = _by_bands(found, bands, theirs.bands.names)
            if name in classes and not same_classes:
                found = _by_classes(tensor, found, classes[name], legend, theirs.legend)
            if found.shape != tensor.shape:
                raise CheckpointError(
                    f"{name} of {source} is {tuple(found.shape)}, the configuration's {tuple(tensor.shape)}: "
                    "its architecture is another; leave [model] out to take the model's own"
                )
            tensor.copy_(found)
            if not (name in classes and set(legend.names) - set(theirs.legend.names)):
                whole.add(name)
    return frozenset(whole)


def blend(network: Network, start: Mapping[str, Tensor], share: float) -> None:
    """Average a network's weights with those that it started from: share · start + (1 − share) · now (Wortsman et al., 2022).

    Args:
        network: changed in place.
        start: weights by name; what it lacks stays as it is.
        share: of the start, from 0 to 1.
    """
    own = network.state_dict()
    with torch.no_grad():
        for name, tensor in start.items():
            if own[name].is_floating_point():
                own[name].lerp_(tensor.to(own[name]), share)


def _check_architecture(ours: ModelConfig, theirs: ModelConfig, source: str) -> None:
    """Name the first setting in which two architectures differ."""
    for field in fields(ModelConfig):
        if field.name in _FREE:
            continue
        wanted, found = (_plain(getattr(config, field.name)) for config in (ours, theirs))
        if wanted != found:
            raise CheckpointError(
                f"{source} has another architecture than the configuration: model.{field.name} = {found!r}, not {wanted!r}; "
                "leave it out to take the model's own"
            )


def _plain(value: Any) -> Any:
    return getattr(value, "value", value)


def _axes(config: ModelConfig, name: str) -> dict[str, int]:
    """Find the dimension of each tensor that has the size of a setting of the model."""
    build = network_builder(config)
    with Blank():  # no memory for their weights, and no random numbers
        shapes, others = (
            {key: tensor.shape for key, tensor in build(changed).state_dict().items()}
            for changed in (config, replace(config, **{name: getattr(config, name) + 1}))
        )
    return {
        key: next(axis for axis, (a, b) in enumerate(zip(shape, others[key], strict=True)) if a != b)
        for key, shape in shapes.items()
        if shape != others[key]
    }


def _by_bands(weights: Tensor, bands: Sequence[str], theirs: Sequence[str]) -> Tensor:
    """Arrange the weights of a first convolution for other bands."""
    average = weights.mean(dim=1)
    parts = [weights[:, theirs.index(name)] if name in theirs else average for name in bands]
    return torch.stack(parts, dim=1) * (len(theirs) / len(bands))


def _by_classes(drawn: Tensor, found: Tensor, axis: int, legend: Legend, theirs: Legend) -> Tensor:
    """Arrange the rows of a classifier for other classes; those that it does not know stay as they are drawn."""
    filled = drawn.clone().movedim(axis, 0)
    rows = found.movedim(axis, 0)
    for value, name in enumerate(legend.names):
        if name in theirs.names:
            filled[value] = rows[theirs.names.index(name)]
    return filled.movedim(0, axis)
