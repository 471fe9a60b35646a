"""The local branch folded and unfolded, side by side: operations, CPU seconds and agreement per 500 px patch.

    python benchmarks/folding.py [BACKBONE ...] [--sharing global_to_local bidirectional none]

Random weights: the cost and the algebra do not depend on them. With bidirectional sharing a patch is looked at and later
aggregated; the refined global branch comes once per region and is printed apart.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from geoglnet.config import ModelConfig, Sharing
from geoglnet.models.folding import FoldedGLNet
from geoglnet.models.glnet import GLNet

WIDTHS = {"mobilenet_v2": (64, 32)}
BACKBONES = ("resnet18", "resnet34", "resnet50", "mobilenet_v2")
FOOTPRINT = torch.tensor([[0.16, 0.16, 0.36, 0.36]])


def measure(form: GLNet | FoldedGLNet, overview: Tensor, patch: Tensor) -> tuple[float, float, float, Tensor]:
    """GFLOP and CPU seconds of one patch, GFLOP of refining once, and the patch's logits."""
    form = form.to(memory_format=torch.channels_last)
    maps = form.see(overview)
    refining = 0.0
    if form.config.sharing is Sharing.BIDIRECTIONAL:
        merge = form.merge(maps)
        merge.add(form.look(patch, FOOTPRINT, maps).shared, FOOTPRINT)
        merged = merge.maps()
        refining, maps = counted(lambda: form.refine(overview, maps, merged))

        def run() -> Tensor:
            return form.aggregate(form.look(patch, FOOTPRINT, maps).term, FOOTPRINT, maps)
    else:

        def run() -> Tensor:
            return form.segment(patch, FOOTPRINT, maps).final

    flops, logits = counted(run)
    logits = logits - logits[:, :1]  # folded networks give differences to the first class
    form.prepare(torch.float32)
    started = time.process_time()
    for _ in range(3):
        run()
    return flops, (time.process_time() - started) / 3, refining, logits


def counted(run: Callable[[], Any]) -> tuple[float, Any]:
    with FlopCounterMode(display=False) as counter:
        value = run()
    return counter.get_total_flops() / 1e9, value


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbones", nargs="*", default=BACKBONES)
    parser.add_argument("--sharing", nargs="*", default=["global_to_local", "bidirectional"])
    arguments = parser.parse_args()
    print("| sharing | backbone | GFLOP | folded | ratio | CPU s | folded | ratio | refining | error / scale | argmax equal |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for sharing in map(Sharing, arguments.sharing):
        for backbone in arguments.backbones:
            torch.manual_seed(0)
            pyramid, smooth = WIDTHS.get(backbone, (256, 128))
            config = ModelConfig(7, backbone, pyramid_channels=pyramid, smooth_channels=smooth, sharing=sharing)
            network = GLNet(config).eval()
            images = torch.randn(2, 1, 3, 500, 500)
            overview, patch = (image.contiguous(memory_format=torch.channels_last) for image in images)
            flops, seconds, refining, expected = measure(network, overview, patch)
            folded = network.fold()
            folded_flops, folded_seconds, folded_refining, got = measure(folded, overview, patch)
            ring = folded.ring_size // 4
            inside = (..., slice(ring, -ring), slice(ring, -ring))
            error = (expected - got)[inside].abs().max() / expected.abs().max()
            agrees = torch.equal(expected[inside].argmax(1), got[inside].argmax(1))
            once = f"{refining:.0f} → {folded_refining:.0f}" if refining else "–"
            print(
                f"| {sharing.value} | {backbone} {pyramid}/{smooth} "
                f"| {flops:.1f} | {folded_flops:.1f} | {flops / folded_flops:.1f} "
                f"| {seconds:.2f} | {folded_seconds:.2f} | {seconds / folded_seconds:.1f} | {once} | {error:.1e} | {agrees} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
