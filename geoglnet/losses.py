"""Losses of paper §3.2.3: focal loss on every branch's logits, and feature map regularization of the local branch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def focal_loss(logits: Tensor, labels: Tensor, gamma: float = 6.0, ignore_value: int = 255) -> Tensor:
    """Compute the focal loss (Lin et al. 2017), −(1 − p)^γ log p averaged over labeled pixels; the paper's γ is 6 (§4.1).

    Logits are resampled bilinearly to the labels, so that every labeled pixel counts (the authors shrink the labels to the
    logits instead: ``docs/paper.md``).

    Args:
        logits: ``(n, K, h, w)`` float.
        labels: ``(n, H, W)`` integer labels.
        gamma: focusing exponent; 0 is cross-entropy.
        ignore_value: label of pixels that do not count.

    Returns:
        Scalar; zero when no pixel is labeled.
    """
    full = F.interpolate(logits.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False)
    # Cross-entropy is −log p of the true class, so p = exp(−surprise); ignored pixels have 0 and contribute nothing.
    surprise = F.cross_entropy(full, labels.long(), ignore_index=ignore_value, reduction="none")
    weighted = (1 - torch.exp(-surprise)) ** gamma * surprise
    labeled = (labels != ignore_value).sum().clamp(min=1)
    return weighted.sum() / labeled


def fmreg_euclidean(x_loc: Tensor, x_glb: Tensor) -> Tensor:
    """Compute the Euclidean distance ‖x_loc − x_glb‖₂ of the channel vectors, averaged over places (paper §3.2.3).

    The global map is detached: the penalty regularizes the local branch and updates nothing else.

    Args:
        x_loc: ``(n, C, h, w)`` last map of the local branch.
        x_glb: ``(n, C, h, w)`` last map of the global branch, cropped to the same place.

    Returns:
        Scalar.
    """
    distances: Tensor = torch.linalg.vector_norm(x_loc.float() - x_glb.detach().float(), dim=1)
    return distances.mean()


def fmreg_mean_square(x_loc: Tensor, x_glb: Tensor) -> Tensor:
    """Compute the authors' form of the same penalty: the mean square difference, to a detached global map."""
    return F.mse_loss(x_loc.float(), x_glb.detach().float())
