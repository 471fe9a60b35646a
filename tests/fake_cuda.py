"""Prediction and training on a CUDA device that is not there: tensors have devices, sizes and types, and no numbers.

    python -m tests.fake_cuda [MODE …]

A program of its own, because inference mode, which tensors without numbers do not know, is replaced before geoglnet is
imported. It fails where two devices meet, and prints as JSON, a line per mode, how often the host would wait for the GPU, or
copy from memory that is not pinned (which waits too), by the line that does it.
"""

from __future__ import annotations

import contextlib
import json
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.optim import swa_utils
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

torch.inference_mode = lambda mode=True: torch.no_grad()  # type: ignore[assignment,misc]  # before anything is decorated with it

import geoglnet  # noqa: E402
from geoglnet.config import Branches, Compat, ModelConfig, RegionConfig, Sharing, Stage  # noqa: E402
from geoglnet.datasets.regions import RegionBatch  # noqa: E402
from geoglnet.legend import Legend  # noqa: E402
from geoglnet.models.glnet import GLNet  # noqa: E402
from geoglnet.models.manifest import Manifest  # noqa: E402
from geoglnet.models.network import Network  # noqa: E402
from geoglnet.prediction import device as device_module  # noqa: E402
from geoglnet.prediction.blocks import Download  # noqa: E402
from geoglnet.prediction.layers import LAYERS  # noqa: E402
from geoglnet.prediction.plan import Plan  # noqa: E402
from geoglnet.prediction.predict_config import PredictConfig  # noqa: E402
from geoglnet.prediction.predictor import Predictor  # noqa: E402
from geoglnet.prediction.region import Wanted  # noqa: E402
from geoglnet.raster.scene import ArrayScene  # noqa: E402
from geoglnet.training import task as task_module  # noqa: E402
from geoglnet.training.task import StageTask  # noqa: E402
from geoglnet.training.train_config import OptimConfig  # noqa: E402
from geoglnet.types import Shape  # noqa: E402

PACKAGE = str(Path(geoglnet.__file__).parent)
_DATA_DEPENDENT = {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount"}
SHAPE = Shape(128, 208)
REGION = RegionConfig(region_size=128, overview_size=64, patch_size=64, patch_overlap=0, margin=16)

MODES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # what the network is, and how it predicts
    "global to local": ({}, {}),
    "global to local, bfloat16": ({}, {"precision": "bfloat16"}),
    "global to local, float16": ({}, {"precision": "float16"}),
    "both ways": ({"sharing": Sharing.BIDIRECTIONAL}, {}),
    "both ways, bfloat16": ({"sharing": Sharing.BIDIRECTIONAL}, {"precision": "bfloat16"}),
    "patches only": ({"branches": Branches.LOCAL, "sharing": Sharing.NONE, "aggregate": False}, {}),
    "overviews only": ({"branches": Branches.GLOBAL, "sharing": Sharing.NONE, "aggregate": False}, {}),
    "overviews only, bfloat16": (
        {"branches": Branches.GLOBAL, "sharing": Sharing.NONE, "aggregate": False},
        {"precision": "bfloat16"},
    ),
    "the authors' geometry": ({"compat": Compat.OFFICIAL}, {}),
    "half effort": ({}, {"effort": 0.5}),
    "no effort": ({}, {"effort": 0.0}),
    "eight turns": ({}, {"augment": True}),
    "coarse to fine": ({}, {"coarse_to_fine": True}),
    "a patch that waits": ({}, {}),  # to show that it is noticed
}
STAGES: dict[str, tuple[Stage, dict[str, Any], dict[str, Any]]] = {  # what learns, what the network is, and how it learns
    "train overviews": (Stage.GLOBAL, {}, {}),
    "train patches": (Stage.LOCAL, {}, {"patches_at_once": 2}),
    "train patches, bfloat16": (Stage.LOCAL, {}, {"patches_at_once": 2}),
    "train both ways": (Stage.BIDIRECTIONAL, {"sharing": Sharing.BIDIRECTIONAL}, {}),
    "train jointly": (Stage.JOINT, {}, {"is_joint": True}),
    "train three classes": (Stage.LOCAL, {"num_classes": 3}, {}),
    "a step that waits": (Stage.LOCAL, {}, {}),
}


class Waits(TorchDispatchMode):
    """Counts what the host would wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        if name == "_local_scalar_dense":
            if args[0].device.type == "cuda":
                self.note("number")
            return (args[0].dtype.is_floating_point and 0.5) or True
        made = func(*args, **kwargs)
        if name in _DATA_DEPENDENT and any(_is_on_gpu(value) for value in tree_leaves(args)):
            self.note(name)
        if name in ("_to_copy", "copy_"):
            source = args[1] if name == "copy_" else args[0]
            waits = not (kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
            if made.device.type != source.device.type and waits:
                self.note(f"copy to {made.device.type}")
        return made

    def note(self, kind: str) -> None:
        lines = [line for line in traceback.extract_stack() if line.filename.startswith(PACKAGE)]
        place = f"{Path(lines[-1].filename).relative_to(PACKAGE)}:{lines[-1].lineno}" if lines else "elsewhere"
        self.found[f"{place} {kind}"] += 1


def _is_on_gpu(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.device.type == "cuda"


class NoEvent:
    """An event on a device that is not there."""

    def record(self, stream: object = None) -> None: ...
    def synchronize(self) -> None: ...


def apply_to_new(module: torch.nn.Module, fn: Any, recurse: bool = True) -> torch.nn.Module:
    """Move a module by new parameters: those without numbers can neither be changed nor swapped."""
    for child in module.children():
        child._apply(fn)
    for name, tensor in module._parameters.items():
        if tensor is not None:
            module._parameters[name] = torch.nn.Parameter(fn(tensor), requires_grad=tensor.requires_grad)
    for name, tensor in module._buffers.items():
        if tensor is not None:
            module._buffers[name] = fn(tensor)
    return module


@contextlib.contextmanager
def fake_cuda() -> Iterator[Waits]:
    """Have torch believe in a GPU."""
    mode, waits = FakeTensorMode(allow_non_fake_inputs=True), Waits()

    def numbers(tensor: FakeTensor) -> Any:
        if tensor.device.type == "cuda":
            waits.note("numbers")
        return np.full(tuple(tensor.shape), 0.5 if tensor.is_floating_point() else 0).tolist()

    empty = torch.empty

    def unpinned(*given: Any, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        return empty(*given, **options)

    with contextlib.ExitStack() as stack:
        for target, name, value in (
            (device_module, "_check_cuda", lambda device: None),
            (torch.cuda, "current_stream", lambda device=None: None),
            (torch.cuda, "Event", NoEvent),
            (torch, "empty", unpinned),
            (torch.nn.Module, "_apply", apply_to_new),
            (
                torch.Tensor,
                "pin_memory",
                lambda tensor, *_: tensor if isinstance(tensor, FakeTensor) else mode.from_tensor(tensor),
            ),
            (FakeTensor, "tolist", numbers),
            (FakeTensor, "numpy", lambda tensor: np.full(tuple(tensor.shape), 0.5, np.float32)),
            (Download, "numpy", lambda pending: np.zeros(tuple(pending.host.shape), np.float32)),
        ):
            stack.enter_context(mock.patch.object(target, name, value))
        stack.enter_context(mode)
        stack.enter_context(waits)
        yield waits


def model(**changes: Any) -> tuple[Network, Manifest]:
    """A small network of a kind, and its manifest."""
    plain = {"num_classes": 2, "backbone": "mobilenet_v2", "pyramid_channels": 8, "smooth_channels": 4} | changes
    config = ModelConfig(**plain)
    names, colors = ("background", "roof", "road"), ((0, 0, 0), (255, 0, 0), (0, 0, 255))
    legend = Legend(names[: config.num_classes], colors[: config.num_classes], background=0)
    return GLNet(config).eval(), Manifest("small", config, REGION, legend, 0.5, (0.1, 1.0), 0.5)


def predict(mode: str) -> dict[str, Any]:
    """Predict a scene of two regions of four patches in a mode."""
    changes, options = MODES[mode]
    rng = np.random.default_rng(0)
    valid = np.ones(SHAPE, bool)
    valid[:40, :20] = False
    scene = ArrayScene(rng.integers(0, 255, (3, *SHAPE), dtype=np.uint8), valid)
    config = PredictConfig(device="cuda", batch_size=2, **{"precision": "float32", **options})
    with fake_cuda() as waits, contextlib.ExitStack() as stack:
        network, manifest = model(**changes)
        predictor = Predictor(network, manifest, config)
        if mode == "a patch that waits":
            place = Wanted.place

            def waiting(wanted: Wanted, patch: Any) -> Any:
                placed = place(wanted, patch)
                float(placed.weights.sum())
                return placed

            stack.enter_context(mock.patch.object(Wanted, "place", waiting))
        waits.found.clear()  # weights are moved once
        for pending in predictor.iter_blocks(scene, tuple(LAYERS.values())):
            if pending.layers["labels"].host.device.type != "cpu":
                raise SystemExit(f"{mode}: labels stay on the device")
        return {"regions": len(Plan(SHAPE, REGION)), "waits": dict(waits.found)}


def train(mode: str) -> dict[str, Any]:
    """Take two steps of a stage of training.

    Autograd's engine asks for the GPU itself, so gradients are not computed: each is as large as what it is of. Everything
    else of a step runs: the network in training mode, losses, parts of the patches, optimizer, moving average.
    """

    def backward(loss: torch.Tensor, *_: Any, inputs: Any = None, **__: Any) -> None:
        for leaf in inputs if inputs is not None else [p for p in network.parameters() if p.requires_grad]:
            leaf.grad = torch.zeros_like(leaf)

    stage, changes, options = STAGES[mode]
    with fake_cuda() as waits, contextlib.ExitStack() as stack:
        network, _ = model(**changes)
        # Tensors without numbers cannot be copied deeply.
        stack.enter_context(mock.patch.object(swa_utils, "deepcopy", return_value=model(**changes)[0]))
        task = StageTask(network.train(), stage, OptimConfig(ema_decay=0.9, **options), 2)
        task.to("cuda")
        chosen = task.configure_optimizers()
        optimizer = chosen["optimizer"] if isinstance(chosen, dict) else chosen
        stack.enter_context(mock.patch.object(torch.Tensor, "backward", backward))
        stack.enter_context(mock.patch.object(torch.autograd, "backward"))
        for name, value in (("optimizers", lambda: optimizer), ("lr_schedulers", lambda: None), ("log", lambda *_: None)):
            stack.enter_context(mock.patch.object(task, name, value))
        if mode == "a step that waits":
            stack.enter_context(mock.patch.object(task, "log", lambda _, loss: float(loss)))
        if "bfloat16" in mode:
            stack.enter_context(torch.autocast("cuda", torch.bfloat16))
        batch = RegionBatch(
            torch.rand(2, 3, 64, 64),
            torch.zeros(2, 64, 64, dtype=torch.uint8),
            torch.rand(4, 3, 64, 64),
            torch.zeros(4, 64, 64, dtype=torch.uint8),
            torch.tensor([[0.0, 0.0, 0.5, 0.5]] * 4),
            torch.tensor([0, 0, 1, 1]),
        )
        waits.found.clear()  # weights are moved once
        for step in range(2):
            pinned = batch.pin_memory()
            with mock.patch.object(task_module, "check_finite"):  # of numbers, on the host
                moved = task.transfer_batch_to_device(pinned, torch.device("cuda"), 0)
            task.training_step(moved, step)
        devices = {parameter.device.type for parameter in task.parameters()}
        if devices != {"cuda"}:
            raise SystemExit(f"{mode}: parameters on {devices}")
        return {"steps": 2, "waits": dict(waits.found)}


def main() -> None:
    modes = sys.argv[1:] or [*MODES, *STAGES]
    for mode in modes:
        made = train(mode) if mode in STAGES else predict(mode)
        sys.stdout.write(json.dumps({"mode": mode, **made}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
