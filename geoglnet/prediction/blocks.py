"""Blocks: the layers of one core, and their copy from the device."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rasterio.windows import Window
from torch import Tensor

from geoglnet.errors import ConfigError
from geoglnet.legend import NO_CLASS, Legend
from geoglnet.message import Keyword
from geoglnet.prediction.layers import LABELS, SCALE, Layer
from geoglnet.types import Shape

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Overlap:
    """How far neighboring regions agree where they overlap.

    Args:
        num_compared: valid pixels that two regions gave probabilities to.
        num_differing: those of them where the two would have chosen different classes.
    """

    num_compared: int = 0
    num_differing: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    """One core of a plan, finished; a pure function of scene, model and options.

    Args:
        row: which row of cores.
        col: which column.
        window: where it lies in the scene: the core, cut to the area that was asked for.
        layers: ``(bands, h, w)`` uint8 by the name of each layer that was asked for.
        overlap: agreement of the regions that meet here.
    """

    row: int
    col: int
    window: Window
    layers: Mapping[str, Bytes]
    overlap: Overlap

    @property
    def labels(self) -> Bytes:
        """``(h, w)`` class numbers, 255 where there is no class.

        Raises:
            KeyError: labels were not asked for.
        """
        labels: Bytes = self.layers[LABELS.name][0]
        return labels


@dataclass(frozen=True, slots=True)
class PendingBlock:
    """A block on its way from the device.

    Args:
        row: which row of cores.
        col: which column.
        window: where it lies in the scene.
        layers: see :class:`Block`.
        counts: both of :class:`Overlap`, and how many pixels have no probabilities because numbers overflowed.
        precision: of the network, for messages.
    """

    row: int
    col: int
    window: Window
    layers: Mapping[str, Download]
    counts: Download | None
    precision: str = "float32"

    def resolve(self) -> Block:
        """Wait for the block.

        Raises:
            ConfigError: the network's numbers overflowed in it.
        """
        # Checked here and not on the device, where looking would wait for the network.
        *overlap, num_spoilt = (0, 0, 0) if self.counts is None else self.counts.numpy().tolist()
        if num_spoilt:
            raise overflow(f"{num_spoilt} pixels from column {self.window.col_off}, row {self.window.row_off}", self.precision)
        arrays = {layer: pending.numpy() for layer, pending in self.layers.items()}
        return Block(self.row, self.col, self.window, arrays, Overlap(*overlap))


def overflow(where: str, precision: str) -> ConfigError:
    """Make the error of a network whose numbers leave the range of a precision: no class is more likely than another."""
    if precision == "float32":
        way_out: str = "its weights are too large for any scene like this; take another model"
    else:
        way_out = "use " + Keyword("precision", "float32")
    return ConfigError(f"the model gives no probabilities to {where}: numbers overflow in {precision}; " + way_out)


def empty_layers(layers: Collection[Layer], shape: Shape, legend: Legend) -> dict[str, Download]:
    """Make the layers of a block in which nothing is valid."""
    return {
        layer.name: Download(torch.full((len(layer.bands(legend)), *shape), NO_CLASS, dtype=torch.uint8)) for layer in layers
    }


def computed_layers(layers: Collection[Layer], probabilities: Tensor, visible: Tensor) -> dict[str, Download]:
    """Compute layers from final probabilities, on the device, and send them off as bytes.

    Args:
        layers: which.
        probabilities: ``(K, h, w)`` float32.
        visible: ``(h, w)`` bool on the same device; elsewhere there is no class.
    """
    hidden = ~visible  # their probabilities may be anything, also not a number
    return {layer.name: download(_bytes(layer.compute(probabilities)).masked_fill_(hidden, NO_CLASS)) for layer in layers}


def _bytes(values: Tensor) -> Tensor:
    if not values.is_floating_point():
        return values.byte()
    quantized = torch.empty(values.shape, dtype=torch.uint8, device=values.device)
    for band, steps in zip(values, quantized, strict=True):  # one by one: all at once would take the probabilities once more
        steps.copy_((band * SCALE).round_().clamp_(0, SCALE))
    return quantized


@dataclass(frozen=True, slots=True)
class Download:
    """A copy under way.

    Args:
        host: where it arrives.
        arrived: recorded behind the copy; ``None`` where nothing is to be waited for.
    """

    host: Tensor
    arrived: torch.cuda.Event | None = None

    def numpy(self) -> npt.NDArray[Any]:
        """Wait for the array; may be called from another thread."""
        if self.arrived is not None:
            self.arrived.synchronize()
        array: npt.NDArray[Any] = self.host.numpy()
        return array


def download(tensor: Tensor) -> Download:
    """Begin to copy a tensor; on a GPU into pinned memory, and the caller goes on at once."""
    if tensor.device.type != "cuda":
        return Download(tensor.cpu().contiguous())
    # Only from and to pinned memory does a copy run beside the network; the event says when it is done.
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record(torch.cuda.current_stream(tensor.device))
    return Download(host, arrived)
