"""Facts of the machine that a network runs on: what the last bits of its results depend on, beside what was asked for."""

from __future__ import annotations

import torch

from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.segmenter import RegionSegmenter


def machine_facts(config: PredictConfig, segmenter: RegionSegmenter) -> dict[str, str]:
    """Gather the facts of this machine, as text by name.

    Args:
        config: of the prediction.
        segmenter: ready to run, so that what was left to choose has been chosen.
    """
    # Which kernels run, and with them the last bits, depends on the processor, on the batch, and on a CPU on the threads.
    is_cpu = segmenter.device.type == "cpu"
    threads = {"threads": str(torch.get_num_threads())} if is_cpu else {}
    return {
        "torch": torch.__version__,
        "device": segmenter.device.type,
        "processor": _processor(segmenter.device),
        "precision": segmenter.precision,  # what "auto" has come to here
        "batch": str(config.batch_size or "auto"),
        **threads,
    }


def _processor(device: torch.device) -> str:
    """Name the instructions of a CPU that torch uses, or the kind of GPU."""
    if device.type == "cpu":
        return str(torch.backends.cpu.get_cpu_capability())
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
