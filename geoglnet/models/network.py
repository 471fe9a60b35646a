"""The network socket: what training and prediction need of any network, and how one is built by its name.

A family of networks is one file with a subclass of :class:`Network` and one line in :data:`geoglnet.config.ARCHITECTURES`.
GLNet is one family, :class:`~geoglnet.models.baselines.baseline.Baseline` gathers the paper's baselines. Whatever has a line
there is trained, scored, stored, loaded and predicted with.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import NamedTuple

import torch
from torch import Tensor, nn

from geoglnet.config import ARCHITECTURES, FOREIGN, Branches, ModelConfig, Stage
from geoglnet.errors import ConfigError
from geoglnet.models.sharing import Footprint


class PatchBatch(NamedTuple):
    """Patches that go through a network together.

    Args:
        patches: ``(n, C, h2, w2)`` float, normalized.
        footprints: ``(n, 4)`` of (top, left, bottom, right), fractions of the patch's region.
        overview_index: ``(n,)`` which overview each patch belongs to; ``None``: all to the first.
    """

    patches: Tensor
    footprints: Tensor
    overview_index: Tensor | None = None


class RegionMaps:
    """What a network keeps of regions that it has seen whole; each family has its own kind."""

    __slots__ = ()

    @property
    def logits(self) -> Tensor:
        """``(B, num_classes, h, w)`` logits of the whole regions, at any scale."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class RegionLogits(RegionMaps):
    """The maps of a network that keeps nothing but its logits."""

    logits: Tensor


@dataclass(frozen=True, slots=True)
class PatchLogits:
    """Logits of patches, in the paper's names, with the last maps of both branches where training compares them.

    Args:
        s_loc: ``(n, num_classes, h, w)`` logits of the patches alone.
        x_loc: ``(n, C, h, w)`` last map of the local branch.
        s_agg: logits that take the whole region into account; they win where there are any.
        x_glb: the global branch's last map at the patches' footprints.
    """

    s_loc: Tensor | None = None
    x_loc: Tensor | None = None
    s_agg: Tensor | None = None
    x_glb: Tensor | None = None

    @property
    def final(self) -> Tensor:
        """Choose the logits to segment with.

        Raises:
            ConfigError: there are none.
        """
        logits = self.s_loc if self.s_agg is None else self.s_agg
        if logits is None:
            raise ConfigError("a network gave no logits for its patches; set s_loc or s_agg")
        return logits


class Network(nn.Module):
    """A network that sees regions whole but decimated (overviews), in full-resolution patches, or both.

    Subclasses set ``config`` and write :meth:`see`, :meth:`segment`, or both; the rest has defaults that suit a network of one
    round and one training stage. It is called with values and keeps none between calls: what it saw of overviews is a
    :class:`RegionMaps` that the caller holds, so that any patches can follow, in any order and batch.

    Args:
        config: architecture.
    """

    ring_size: int = 0
    """Pixels along a patch's border whose logits no patch should be trusted with."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def sees_overviews(self) -> bool:
        """Tell whether :meth:`see` can be called."""
        return self.config.branches is not Branches.LOCAL

    @property
    def sees_patches(self) -> bool:
        """Tell whether :meth:`segment` can be called."""
        return self.config.branches is not Branches.GLOBAL

    def see(self, overviews: Tensor) -> RegionMaps:
        """Look at whole regions.

        Args:
            overviews: ``(B, C, h1, w1)`` float, normalized.

        Raises:
            BandsError: other than the network's bands.
            ConfigError: this network sees no overviews, or the image has NaN or infinite values.
        """
        raise ConfigError("this network sees patches only; call segment(patches, footprints)")

    def segment(
        self, patches: Tensor, footprints: Tensor, maps: RegionMaps | None = None, overview_index: Tensor | None = None
    ) -> PatchLogits:
        """Look at patches; arguments as in :class:`PatchBatch`.

        Args:
            patches: full-resolution crops.
            footprints: where they lie in their regions.
            maps: what :meth:`see` returned of the regions; ``None`` for a network that sees no overviews.
            overview_index: which overview each patch belongs to.

        Raises:
            BandsError: other than the network's bands.
            ConfigError: this network sees no patches, or the maps are missing or another network's.
        """
        raise ConfigError("this network sees overviews only; its logits are see(overviews).logits")

    def iter_logits(
        self, overview: Tensor | None, maps: RegionMaps | None, batches: Iterable[tuple[Tensor, Tensor]]
    ) -> Iterator[Tensor]:
        """Yield the final logits of all patches of one region, batch by batch; every patch is looked at once.

        Args:
            overview: ``(1, C, h1, w1)``, as given to :meth:`see`; ``None`` where the network sees none.
            maps: what ``see(overview)`` returned.
            batches: of ``(patches, footprints)``.
        """
        for patches, footprints in batches:
            yield self.segment(patches, footprints, maps).final

    def region_logits(self, overviews: Tensor | None, patches: Tensor, places: Sequence[Footprint]) -> Tensor:
        """Compute the final logits of the same patches of all regions at once, by operations on tensors alone: for export.

        Args:
            overviews: ``(B, C, h1, w1)``, normalized; ``None`` where the network sees none.
            patches: ``(n · B, C, h2, w2)``: the first patch of every region, then the second, and so on.
            places: the n footprints.

        Returns:
            ``(n · B, num_classes, h, w)`` in the order of the patches.
        """
        count, batch = len(places), patches.shape[0] // len(places)
        footprints = torch.tensor(places, device=patches.device)[:, None].expand(count, batch, 4).flatten(0, 1)
        if overviews is None:
            return self.segment(patches, footprints).final
        owners = torch.arange(batch, device=patches.device).repeat(count)
        return self.segment(patches, footprints, self.see(overviews), owners).final

    def for_inference(self) -> Network:
        """Return the form to predict with: equal logits but in a ring of ``ring_size`` pixels, at less cost. This one here."""
        return self

    def prepare(self, dtype: torch.dtype) -> bool:
        """Put the weights into a type, and into the layout that the device they are on computes best with.

        Returns:
            Whether the network computes in that type from here on, whatever type images have. If not, as here, its weights
            stay as they are, and only autocast gives another type than float32.
        """
        return False

    @property
    def has_two_rounds(self) -> bool:
        """Tell whether all patches of a region are looked at before any of them gets its logits."""
        return False

    @property
    def sums_logits(self) -> bool:
        """Tell whether overlapping patches are blended by adding up logits, all alike, instead of weighted probabilities."""
        return False

    @property
    def needs_whole_images(self) -> bool:
        """Tell whether an image goes through in one piece, all its maps alive at once, so that its size decides the memory."""
        return False

    def trained_parts(self, stage: Stage) -> tuple[str, ...]:
        """Name the children that a stage trains; empty where the network has no such stage.

        What sees patches or overviews alone is trained in one stage, what sees both, unless it says more, jointly.
        """
        only = {(True, True): Stage.JOINT, (True, False): Stage.GLOBAL, (False, True): Stage.LOCAL}
        if only[self.sees_overviews, self.sees_patches] is not stage:
            return ()
        return tuple(name for name, _ in self.named_children())

    def backbones(self) -> Iterator[nn.Module]:
        """Yield the encoders that take pretrained weights, and a learning rate of their own."""
        yield from ()

    def begin(self, stage: Stage) -> None:
        """Prepare the parts that a stage trains, from those that earlier stages left."""

    def training_maps(self, stage: Stage, overviews: Tensor, batches: Iterable[PatchBatch]) -> RegionMaps | None:
        """Look at the regions of a training step, with a graph behind what the stage trains.

        Args:
            stage: which is running.
            overviews: of the step's regions.
            batches: all patches of the step, for networks that go through them more than once.
        """
        return self.see(overviews) if self.sees_overviews else None

    def complete_maps(self, overviews: Tensor, batches: Iterable[PatchBatch]) -> RegionMaps | None:
        """Look at regions, and at all that their patches add to what :meth:`segment` needs; ``None`` without overviews."""
        return self.see(overviews) if self.sees_overviews else None

    def regularized_parameters(self) -> list[nn.Parameter]:
        """List the parameters that the regularization of x_loc may change."""
        return list(self.parameters())

    def overviews_only(self) -> Network:
        """Copy what :meth:`see` needs.

        Raises:
            ConfigError: this network sees no overviews.
        """
        if not self.sees_overviews:
            raise ConfigError("this network sees no overviews")
        return copy.deepcopy(self)


def build_network(config: ModelConfig) -> Network:
    """Build the network of an architecture, with random weights, in training mode.

    >>> build_network(ModelConfig(num_classes=2, backbone="mobilenet_v2")).sees_patches
    True

    Raises:
        ConfigError: no such backbone, or the library that it comes from is not installed.
    """
    return network_builder(config)(config)


def network_builder(config: ModelConfig) -> Callable[[ModelConfig], Network]:
    """Import what builds the networks of an architecture."""
    if config.architecture in FOREIGN:
        raise ConfigError(f"architecture = {config.architecture!r} is a file of others; it is neither built nor trained")
    # By name, because the table lies on a floor below and imports no network.
    module, _, name = ARCHITECTURES[config.architecture].builder.partition(":")
    builder: Callable[[ModelConfig], Network] = getattr(import_module(module), name)
    return builder
