"""Peak memory of one region against the number of its patches, one way and bidirectional.

    python benchmarks/region_memory.py [--backbone resnet50] [--region 2448] [--overlaps 50 200 300] [--batch 2]

Each row is a process of its own: peak resident memory on the CPU (and, beside it, that of the process before any region), or
allocated, reserved and process memory on CUDA where there is one. The paper's figures, of whole processes with batch 1 on
CUDA, are 1189 MB without sharing, 1395 MB one way and 1865 MB bidirectional.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys

import torch

from geoglnet.config import ModelConfig, RegionConfig, Sharing
from geoglnet.models.glnet import GLNet
from geoglnet.types import Shape
from geoglnet.windows import footprints, patch_windows

WIDTHS = {"mobilenet_v2": (64, 32)}


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@torch.inference_mode()
def run_one(backbone: str, sharing: Sharing, region_size: int, overlap: int, batch: int) -> str:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pyramid, smooth = WIDTHS.get(backbone, (256, 128))
    network = GLNet(ModelConfig(7, backbone, pyramid_channels=pyramid, smooth_channels=smooth, sharing=sharing)).eval().fold()
    network = network.to(device).to(memory_format=torch.channels_last)
    sizes = RegionConfig(region_size=region_size, patch_overlap=overlap, margin=(region_size - 2048) // 2)
    shape = Shape(region_size, region_size)
    windows = patch_windows(shape, sizes.patch_size, overlap)
    image = torch.randint(0, 255, (1, 3, *shape), dtype=torch.uint8)
    overview = torch.rand(1, 3, *sizes.overview_shape(shape)).to(device)
    before = peak_mb()

    def batches():  # type: ignore[no-untyped-def]
        for start in range(0, len(windows), batch):
            group = windows[start : start + batch]
            patches = torch.cat([image[(..., *window.toslices())] for window in group]).to(device).float() / 255
            yield patches, torch.from_numpy(footprints(group, shape)).to(device)

    labels = [logits.argmax(1).cpu() for logits in network.iter_logits(overview, network.see(overview), batches())]
    if sum(len(part) for part in labels) != len(windows):
        raise SystemExit("some patches have no labels")
    row = f"| {sharing.value} | {backbone} | {len(windows)} | {before:.0f} | {peak_mb():.0f} |"
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info()
        used = (torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved(), total - free)
        row += " " + " | ".join(f"{value / 2**20:.0f}" for value in used) + " |"
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--region", type=int, default=2448)
    parser.add_argument("--overlaps", type=int, nargs="*", default=[50, 200, 300])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--sharing", nargs="*", default=["global_to_local", "bidirectional"])
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        sharing = Sharing(arguments.sharing[0])
        print(run_one(arguments.backbone, sharing, arguments.region, arguments.overlaps[0], arguments.batch))
        return
    cuda = " allocated | reserved | device in use |" if torch.cuda.is_available() else ""
    print(f"| sharing | backbone | patches | MB before | MB at peak |{cuda}")
    print("|---" * (5 + cuda.count("|")) + "|")
    for sharing in arguments.sharing:
        for overlap in arguments.overlaps:
            command = [sys.executable, __file__, "--one", "--backbone", arguments.backbone, "--sharing", sharing]
            command += ["--region", str(arguments.region), "--overlaps", str(overlap), "--batch", str(arguments.batch)]
            ended = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=True)
            print(ended.stdout.strip(), flush=True)


if __name__ == "__main__":
    main()
