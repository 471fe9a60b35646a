"""What goes from the device to the host without holding up the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Download:
    """A copy under way.

    Args:
        host: where it arrives.
        arrived: recorded behind the copy; ``None`` where nothing is to be waited for.
    """

    host: Tensor
    arrived: torch.cuda.Event | None = None

    def numpy(self) -> npt.NDArray[Any]:
        """The array, once it is there; may be called from another thread."""
        if self.arrived is not None:
            self.arrived.synchronize()
        array: npt.NDArray[Any] = self.host.numpy()
        return array


def download(tensor: Tensor) -> Download:
    """Begin to copy a tensor; on a GPU into pinned memory, and the caller goes on at once."""
    if tensor.device.type != "cuda":
        return Download(tensor.cpu().contiguous())
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record(torch.cuda.current_stream(tensor.device))
    return Download(host, arrived)
