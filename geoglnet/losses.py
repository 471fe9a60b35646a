"""Losses of paper §3.2.3: focal loss on every branch's logits, and feature map regularization of the local branch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def focal_loss(logits: Tensor, labels: Tensor, gamma: float = 6.0, ignore_value: int = 255) -> Tensor:
    """Focal loss (Lin et al. 2017), −(1 − p)^γ log p averaged over labeled pixels; the paper's γ is 6 (§4.1).

    Logits are resampled bilinearly to the labels, so that every labeled pixel counts (the authors shrink the labels to the
    logits instead: ``docs/paper.md``).

    Args:
        logits: ``(n, K, h, w)`` float.
        labels: ``(n, H, W)`` integer labels.
        gamma: focusing exponent; 0 is cross-entropy.
        ignore_value: label that counts nowhere.

    Returns:
        Scalar; zero when no pixel is labeled.
    """
    full = F.interpolate(logits.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False)
    surprise = F.cross_entropy(full, labels.long(), ignore_index=ignore_value, reduction="none")
    weighted = (1 - torch.exp(-surprise)) ** gamma * surprise
    labeled = (labels != ignore_value).sum().clamp(min=1)
    return weighted.sum() / labeled


def fmreg_euclidean(x_loc: Tensor, x_glb: Tensor) -> Tensor:
    """Euclidean distance ‖x_loc − x_glb‖₂ of the channel vectors, averaged over places (paper §3.2.3).

    The global map is detached: the penalty slows the local branch down and updates nothing else.
    """
    distances: Tensor = torch.linalg.vector_norm(x_loc.float() - x_glb.detach().float(), dim=1)
    return distances.mean()


def fmreg_mean_square(x_loc: Tensor, x_glb: Tensor) -> Tensor:
    """Penalize as the authors do: mean square difference, to a detached global map."""
    return F.mse_loss(x_loc.float(), x_glb.detach().float())
