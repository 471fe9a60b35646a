"""The authors' forward pass, written down from what is known of their code, for comparison: plain functions of a state dict.

Positions are rounded, merged sums are divided by the resized coverage, everything is as their names say. Backbones are ours,
whose names, like theirs, are torchvision's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from geoglnet.models.backbone import ResNet

State = dict[str, Tensor]
Pyramid = tuple[Tensor, list[Tensor], list[Tensor], list[Tensor], list[Tensor], Tensor]
LATERALS = ("toplayer", "latlayer1", "latlayer2", "latlayer3")


def random_state(num_classes: int, backbone: str = "resnet18", width: int = 16, smooth: int = 8, seed: int = 0) -> State:
    """A state dict with the authors' names and narrower layers; its tensors are not to be changed in place."""
    return dict(_drawn_state(num_classes, backbone, width, smooth, seed))


@functools.cache
@torch.inference_mode(False)  # whoever asks first: others copy them into parameters
def _drawn_state(num_classes: int, backbone: str, width: int, smooth: int, seed: int) -> State:
    torch.manual_seed(seed)
    state: State = {}

    def conv(name: str, inside: int, outside: int, kernel: int) -> None:
        state[f"{name}.weight"] = torch.randn(outside, inside, kernel, kernel) / (inside * kernel**2) ** 0.5
        state[f"{name}.bias"] = torch.randn(outside) * 0.1

    for branch in ("global", "local"):
        network = ResNet(backbone)
        for name, tensor in network.state_dict().items():
            scale = torch.rand_like(tensor) + 0.5 if tensor.ndim == 1 and tensor.is_floating_point() else tensor
            state[f"resnet_{branch}.{name}"] = scale
        for suffix, fold in (("", 1), ("_ext", 2)) if branch == "global" else (("", 2),):
            for level, lateral in enumerate(LATERALS):
                conv(f"fpn_{branch}.{lateral}{suffix}", fold * network.channels[3 - level], width, 1)
                conv(f"fpn_{branch}.smooth{level + 1}_1{suffix}", fold * width, width, 3)
                conv(f"fpn_{branch}.smooth{level + 1}_2{suffix}", fold * width, smooth, 3)
        conv(f"fpn_{branch}.smooth", 8 * smooth, 4 * smooth, 3)
        conv(f"fpn_{branch}.classify", 4 * smooth, num_classes, 3)
    conv("ensemble_conv", 8 * smooth, num_classes, 3)
    return state


def backbone(state: State, branch: str, image: Tensor) -> list[Tensor]:
    """c5, c4, c3, c2."""
    with torch.device("meta"):  # without drawing weights that are replaced
        network = ResNet("resnet18").eval()
    network.load_state_dict({k.split(".", 1)[1]: v for k, v in state.items() if k.startswith(f"resnet_{branch}.")}, assign=True)
    return list(network(image))[::-1]


def fpn(state: State, branch: str, c: Sequence[Tensor], ext: Callable[[str, int], Tensor] | None, suffix: str = "") -> Pyramid:
    """Logits, ps0, ps1, ps2 (level 5 first), and ps3; ``ext(place, level)`` gives the other branch's map."""

    def conv(name: str, x: Tensor, shared: Tensor | None, margin: int) -> Tensor:
        x = x if shared is None else torch.cat([x, F.interpolate(shared, size=x.shape[2:], mode="bilinear")], 1)
        return F.conv2d(x, state[f"fpn_{branch}.{name}.weight"], state[f"fpn_{branch}.{name}.bias"], padding=margin)

    def other(place: str, level: int) -> Tensor | None:
        return None if ext is None else ext(place, level)

    ps0: list[Tensor] = []
    for i, name in enumerate(LATERALS):
        lateral = conv(name + suffix, c[i], other("c", i), 0)
        ps0.append(lateral if i == 0 else F.interpolate(ps0[-1], size=lateral.shape[2:], mode="bilinear") + lateral)
    ps1 = [conv(f"smooth{i + 1}_1{suffix}", ps0[i], other("ps0", i), 1) for i in range(4)]
    ps2 = [conv(f"smooth{i + 1}_2{suffix}", ps1[i], other("ps1", i), 1) for i in range(4)]
    gathered = []
    for i in range(4):
        shared = other("ps2", i)
        own = ps2[i]
        own = own if shared is None else torch.cat([own, F.interpolate(shared, size=own.shape[2:], mode="bilinear")], 1)
        gathered.append(F.interpolate(own, size=ps2[3].shape[2:], mode="bilinear"))
    ps3 = torch.cat(gathered, 1)
    if ext is not None:
        ps3 = conv("smooth", ps3, None, 1)
    return conv("classify", ps3, None, 1), list(c), ps0, ps1, ps2, ps3


def crop(maps: Tensor, places: Sequence[tuple[float, float]], ratio: tuple[float, float]) -> Tensor:
    tall, wide = maps.shape[2:]
    h, w = int(np.round(tall * ratio[0])), int(np.round(wide * ratio[1]))
    starts = [(int(np.round(top * tall)), int(np.round(left * wide))) for top, left in places]
    return torch.stack([maps[0, :, top : top + h, left : left + w] for top, left in starts])


def merge(
    local: Tensor, size: torch.Size, places: Sequence[tuple[float, float]], ratio: tuple[float, float], cover: Tensor
) -> Tensor:
    tall, wide = size[2:]
    h, w = int(np.round(tall * ratio[0])), int(np.round(wide * ratio[1]))
    total = torch.zeros(1, local.shape[1], tall, wide)
    for one, (top, left) in zip(local, places, strict=True):
        row, col = int(np.round(tall * top)), int(np.round(wide * left))
        total[:, :, row : row + h, col : col + w] += F.interpolate(one[None], size=(h, w), mode="bilinear")
    return total / F.interpolate(cover, size=(tall, wide), mode="bilinear")


class Reference:
    """The three modes on one image."""

    def __init__(self, image: Tensor, overview: Tensor, starts: Sequence[tuple[int, int]], side: int) -> None:
        tall, wide = image.shape[2:]
        self.overview, self.ratio = overview, (side / tall, side / wide)
        self.places = [(row / tall, col / wide) for row, col in starts]
        self.patches = torch.cat([image[:, :, r : r + side, c : c + side] for r, c in starts])
        self.cover = torch.zeros(1, 1, tall, wide)
        for r, c in starts:
            self.cover[:, :, r : r + side, c : c + side] += 1

    def global_branch(self, state: State) -> Pyramid:
        return fpn(state, "global", backbone(state, "global", self.overview), None)

    def local_branch(self, state: State, glb: Pyramid) -> Pyramid:
        places = {"c": glb[1], "ps0": glb[2], "ps1": glb[3], "ps2": glb[4]}
        return fpn(
            state,
            "local",
            backbone(state, "local", self.patches),
            lambda place, level: crop(places[place][level], self.places, self.ratio),
        )

    def ensemble(self, state: State, local: Tensor, glb: Tensor) -> Tensor:
        cropped = F.interpolate(crop(glb, self.places, self.ratio), size=local.shape[2:], mode="bilinear")
        both = torch.cat([local, cropped], 1)
        return F.conv2d(both, state["ensemble_conv.weight"], state["ensemble_conv.bias"], padding=1)

    def mode_2(self, state: State) -> tuple[Tensor, Tensor]:
        """Final logits of the patches, and the local branch's own."""
        glb = self.global_branch(state)
        local = self.local_branch(state, glb)
        return self.ensemble(state, local[5], glb[5]), local[0]

    def mode_3(self, state: State, fixed: State) -> tuple[Tensor, Tensor]:
        """Final logits of the patches, and those of the refined global branch."""
        glb = self.global_branch(fixed)
        local = self.local_branch(state, glb)
        sources = {"c": (local[1], glb[1]), "ps0": (local[2], glb[2]), "ps1": (local[3], glb[3]), "ps2": (local[4], glb[4])}

        def merged(place: str, level: int) -> Tensor:
            mine, theirs = sources[place]
            return merge(mine[level], theirs[level].shape, self.places, self.ratio, self.cover)

        refined = fpn(state, "global", backbone(state, "global", self.overview), merged, "_ext")
        return self.ensemble(state, local[5], refined[5]), refined[0]
