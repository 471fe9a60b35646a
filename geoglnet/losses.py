"""Losses of paper §3.2.3: focal loss on every branch's logits, and feature map regularization of the local branch."""

from __future__ import annotations

from typing import Any

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

    Raises:
        IndexError: a label is no class.
    """
    labeled = (labels != ignore_value).sum().clamp(min=1)
    if logits.shape[1] == 2:
        # As cross_entropy does; on a GPU to look would be to wait for it.
        if labels.device.type == "cpu" and bool(((labels < 0) | (labels > 1)).logical_and_(labels != ignore_value).any()):
            raise IndexError(f"labels are {torch.unique(labels).tolist()}; of two classes they must be 0, 1 or {ignore_value}")
        # Of two classes only the difference of their logits counts, and resampling is linear: half of the work.
        difference = _resized(logits[:, 1:].float() - logits[:, :1].float(), labels)[:, 0]
        total: Tensor = _BinaryFocalLoss.apply(difference, labels, gamma, ignore_value)
        return total / labeled
    full = _resized(logits.float(), labels)
    # Cross-entropy is −log p of the true class, so p = exp(−surprise); ignored pixels have 0 and contribute nothing.
    surprise = F.cross_entropy(full, labels.long(), ignore_index=ignore_value, reduction="none")
    weighted = (1 - torch.exp(-surprise)) ** gamma * surprise
    return weighted.sum() / labeled


def _resized(logits: Tensor, labels: Tensor) -> Tensor:
    return F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)


class _BinaryFocalLoss(torch.autograd.Function):
    """Sum of the focal loss over ``(n, H, W)`` differences of logits, its derivative computed in the same passes."""

    @staticmethod
    def forward(ctx: Any, difference: Tensor, labels: Tensor, gamma: float, ignore_value: int) -> Tensor:
        is_second = labels == 1
        against = torch.where(is_second, -difference, difference)  # logit of the wrong class, less that of the true one
        surprise, wrong = F.softplus(against), torch.sigmoid(against)  # −log p and 1 − p
        weight = (wrong**gamma).masked_fill_(labels == ignore_value, 0)
        # d/dx of σ(x)^γ · softplus(x) = σ^γ · (γ · (1 − σ) · softplus + σ)
        slope = (1 - wrong).mul_(surprise).mul_(gamma).add_(wrong).mul_(weight)
        ctx.save_for_backward(torch.where(is_second, -slope, slope))
        return surprise.mul_(weight).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return slope * gradients[0], None, None, None


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
    difference = x_loc.float() - x_glb.detach().float()
    norm: Tensor = torch.linalg.vector_norm(difference)  # keeps no square of each difference
    return norm.square() / difference.numel()
