"""The two rounds of bidirectional sharing (paper §3.2.2): look at all patches, refine the global maps, then the logits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from torch import Tensor

from geoglnet.models.branch import SharedMaps
from geoglnet.models.merging import Look, Merge

MapsT = TypeVar("MapsT")


class TwoRounds(Protocol[MapsT]):
    """A GLNet with bidirectional sharing, folded or not, with its own kind of overview maps."""

    def look(self, patches: Tensor, footprints: Tensor, maps: MapsT) -> Look: ...
    def merge(self, maps: MapsT) -> Merge: ...
    def refine(self, overviews: Tensor, maps: MapsT, merged: SharedMaps) -> MapsT: ...
    def aggregate(self, term: Tensor, footprints: Tensor, maps: MapsT) -> Tensor: ...


def iter_two_rounds(
    network: TwoRounds[MapsT], overview: Tensor, maps: MapsT, batches: Iterable[tuple[Tensor, Tensor]]
) -> Iterator[Tensor]:
    """Yield the final logits of all patches of one region, looking at every patch once.

    Nothing can be yielded before the last batch was taken. What is kept of a patch is its term of f_agg:
    ``num_classes · ⌈h2/4⌉ · ⌈w2/4⌉`` numbers, 0.44 MB in float32 for 7 classes and 500 px (its last map would be 32 MB).

    Args:
        network: in evaluation mode.
        overview: ``(1, C, h1, w1)``, as given to ``see``.
        maps: what ``see(overview)`` returned.
        batches: of ``(patches, footprints)``, as for :meth:`GLNet.segment`.

    Yields:
        ``(n, num_classes, ⌈h2/4⌉, ⌈w2/4⌉)`` per batch, in the order of the batches.
    """
    merge, kept = network.merge(maps), []
    for patches, footprints in batches:
        look = network.look(patches, footprints, maps)
        merge.add(look.shared, footprints)
        kept.append((look.term, footprints))
    if kept:
        refined = network.refine(overview, maps, merge.maps())
        yield from (network.aggregate(term, footprints, refined) for term, footprints in kept)
