"""The local branch folded and unfolded, side by side: operations, CPU seconds and agreement per 500 px patch.

    python benchmarks/folding.py [BACKBONE ...]

Random weights: the cost and the algebra do not depend on them.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from geoglnet.config import BACKBONES, ModelConfig
from geoglnet.models.folding import FoldedGLNet, fold
from geoglnet.models.glnet import GLNet

WIDTHS = {"mobilenet_v2": (64, 32)}
FOOTPRINT = torch.tensor([[0.16, 0.16, 0.36, 0.36]])


def measure(form: GLNet | FoldedGLNet, overview: torch.Tensor, patch: torch.Tensor) -> tuple[float, float, torch.Tensor]:
    """GFLOP and CPU seconds of one patch, and its logits."""
    form = form.to(memory_format=torch.channels_last)
    maps = form.see(overview)
    with FlopCounterMode(display=False) as counter:
        logits = form.segment(patch, FOOTPRINT, maps).final
    started = time.process_time()
    for _ in range(3):
        form.segment(patch, FOOTPRINT, maps)
    return counter.get_total_flops() / 1e9, (time.process_time() - started) / 3, logits


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbones", nargs="*", default=BACKBONES)
    print("| backbone | GFLOP | folded | ratio | CPU s | folded | ratio | error / scale outside the ring |")
    print("|---|---|---|---|---|---|---|---|")
    for backbone in parser.parse_args().backbones:
        torch.manual_seed(0)
        pyramid, smooth = WIDTHS.get(backbone, (256, 128))
        network = GLNet(ModelConfig(7, backbone, pyramid_channels=pyramid, smooth_channels=smooth)).eval()
        overview, patch = (torch.randn(1, 3, 500, 500).contiguous(memory_format=torch.channels_last) for _ in range(2))
        flops, seconds, expected = measure(network, overview, patch)
        folded = fold(network)
        folded_flops, folded_seconds, got = measure(folded, overview, patch)
        ring = folded.ring_size // 4
        error = (expected - got)[..., ring:-ring, ring:-ring].abs().max() / expected.abs().max()
        print(
            f"| {backbone} {pyramid}/{smooth} | {flops:.1f} | {folded_flops:.1f} | {flops / folded_flops:.1f} "
            f"| {seconds:.2f} | {folded_seconds:.2f} | {seconds / folded_seconds:.1f} | {error:.1e} |"
        )


if __name__ == "__main__":
    main()
