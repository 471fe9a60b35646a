"""Final logits of all patches of a region, in one round over them or in two, as the direction of sharing asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from torch import Tensor

from geoglnet.config import ModelConfig, Sharing
from geoglnet.models.branch import SharedMaps
from geoglnet.models.merging import Look, Merge

MapsT = TypeVar("MapsT")


class _Logits(Protocol):
    @property
    def final(self) -> Tensor: ...


class Network(Protocol[MapsT]):
    """A GLNet, folded or not, with its own kind of overview maps."""

    config: ModelConfig

    def see(self, overviews: Tensor) -> MapsT: ...
    def segment(self, patches: Tensor, footprints: Tensor, maps: MapsT | None = None) -> _Logits: ...
    def look(self, patches: Tensor, footprints: Tensor, maps: MapsT) -> Look: ...
    def merge(self, maps: MapsT) -> Merge: ...
    def refine(self, overviews: Tensor, maps: MapsT, merged: SharedMaps) -> MapsT: ...
    def aggregate(self, term: Tensor, footprints: Tensor, maps: MapsT) -> Tensor: ...


def iter_logits(
    network: Network[MapsT], overview: Tensor, maps: MapsT | None, batches: Iterable[tuple[Tensor, Tensor]]
) -> Iterator[Tensor]:
    """Final logits of patches of one region; every patch is looked at once.

    With bidirectional sharing nothing can be yielded before the last batch was taken. What is kept of a patch is its term of
    f_agg: ``num_classes · ⌈h2/4⌉ · ⌈w2/4⌉`` numbers, 0.44 MB in float32 for 7 classes and 500 px (its last map would be 32 MB).

    Args:
        network: in evaluation mode, folded or not.
        overview: ``(1, C, h1, w1)``, as given to ``see``.
        maps: what ``see(overview)`` returned; none for a network with only a local branch.
        batches: of ``(patches, footprints)``, as for :meth:`GLNet.segment`.

    Yields:
        ``(n, num_classes, ⌈h2/4⌉, ⌈w2/4⌉)`` per batch, in the order of the batches.
    """
    if network.config.sharing is not Sharing.BIDIRECTIONAL or maps is None:
        for patches, footprints in batches:
            yield network.segment(patches, footprints, maps).final
        return
    merge, kept = network.merge(maps), []
    for patches, footprints in batches:
        look = network.look(patches, footprints, maps)
        merge.add(look.shared, footprints)
        kept.append((look.term, footprints))
    if kept:
        refined = network.refine(overview, maps, merge.maps())
        yield from (network.aggregate(term, footprints, refined) for term, footprints in kept)
