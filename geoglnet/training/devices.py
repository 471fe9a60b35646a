"""Training on several devices: Lightning's DDP with a process each, whose gradients are averaged once a step."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, distributed, multiprocessing
from torch.multiprocessing.spawn import ProcessRaisedException

from geoglnet.errors import Canceled, ConfigError, GeoglnetError
from geoglnet.progress import Progress

Precision = Literal["32-true", "bf16-mixed"]
_LOGGERS = ("lightning.pytorch", "lightning.fabric")


class UnwrappedDDP(DDPStrategy):
    """DDP without the wrapper that shares gradients during *the* backward pass: a step of ours has several.

    The task shares them itself (:func:`average_gradients`). Processes are spawned: forked ones hang in OpenMP.
    """

    def __init__(self) -> None:
        super().__init__(start_method="spawn")

    def setup_environment(self) -> None:
        """Silence this process, and join the others."""
        silence_lightning()
        super().setup_environment()

    def configure_ddp(self) -> None:
        """Leave the task as it is."""


def silence_lightning() -> None:
    """Keep to this process's Progress; call after Lightning's import, which sets its own level."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)  # lightning 2.6 with torch 2.15
    warnings.filterwarnings("ignore", category=UserWarning, module="lightning")  # about workers, and what we froze
    threading.excepthook = _without_writers


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep to this process's Progress while Lightning trains, and stop in our way instead of its.

    Raises:
        Canceled: Lightning left with ``SystemExit``, as it does on Ctrl-C and SIGTERM.
    """
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    hook = threading.excepthook
    try:
        with warnings.catch_warnings():
            silence_lightning()
            yield
    except SystemExit as left:
        raise Canceled("training was stopped") from left
    finally:
        threading.excepthook = hook
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _without_writers(args: threading.ExceptHookArgs) -> None:
    """Leave out the traceback of TensorBoard's writing thread, whose error is raised again where events are logged."""
    if not (isinstance(args.exc_value, OSError) and type(args.thread).__module__.startswith("tensorboard.")):
        threading.__excepthook__(args)


def check_devices(count: int) -> None:
    """Refuse more processes than there are GPUs, where there are any; CPUs can be shared.

    Raises:
        ConfigError: too many.
    """
    present = torch.cuda.device_count()
    if 1 <= present < count:
        raise ConfigError(f"optim.devices = {count}, but this machine has {present}; choose at most that many")


def settled_precision(precision: Precision | Literal["auto"], device: torch.device) -> Precision:
    """Choose the precision that ``"auto"`` stands for on a device; any other stays as it is."""
    if precision != "auto":
        return precision
    return "bf16-mixed" if has_bfloat16(device) else "32-true"


def has_bfloat16(device: torch.device) -> bool:
    """Tell whether a device has instructions for bfloat16; without them it is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    # Not public, and of x86 alone; a release of torch without them says no.
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(asks() for name in names if (asks := getattr(torch.cpu, name, None)) is not None)


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace gradients by their mean over all processes; nothing happens where there is only one."""
    if not distributed.is_initialized():
        return
    for parameter in parameters:
        if parameter.grad is None:  # on this process, perhaps not on the others
            parameter.grad = torch.zeros_like(parameter)
        # Every process calls this for every parameter in the same order, or they would wait for each other for ever.
        distributed.all_reduce(parameter.grad)
        parameter.grad /= distributed.get_world_size()


@dataclass(slots=True)
class Relay:
    """A :class:`Progress` that another process can report to.

    Args:
        calls: what is reported, on its way.
        stopped: set once the receiver asked to stop.
    """

    calls: Any
    stopped: Any

    def plan(self, stage: str, total: int, unit: str, **figures: float) -> None:
        self._send("plan", stage, total, unit, **figures)

    def advance(self, amount: int = 1, **figures: float) -> None:
        self._send("advance", amount, **figures)

    def log(self, message: str) -> None:
        self._send("log", message)

    def warn(self, message: str) -> None:
        self._send("warn", message)

    def _send(self, name: str, *values: Any, **figures: float) -> None:
        # A Canceled that the receiver raises, in another process, comes here as this event.
        if self.stopped.is_set():
            raise Canceled("stopped")
        self.calls.put((name, values, figures))

    @classmethod
    def make(cls) -> Self:
        # The start method of the processes that take it: what one context makes does not fit another.
        context = multiprocessing.get_context("spawn")
        return cls(context.Queue(), context.Event())

    def forward(self, progress: Progress) -> None:
        """Hand on what comes, until ``None`` does."""
        while (call := self.calls.get()) is not None:
            name, values, figures = call
            try:
                getattr(progress, name)(*values, **figures)
            except Canceled:
                # Goes on reading: processes could block on a full queue before they see that they should stop.
                self.stopped.set()


@contextmanager
def relayed(progress: Progress) -> Iterator[Progress]:
    """Make a stand-in for ``progress`` that other processes may report to; their errors of ours arrive as such.

    Raises:
        GeoglnetError: one of them raised it.
    """
    relay = Relay.make()
    forwarding = threading.Thread(target=relay.forward, args=(progress,), daemon=True)
    forwarding.start()
    try:
        yield relay
    except ProcessRaisedException as error:
        raise (_ours(str(error)) or error) from None
    finally:
        relay.calls.put(None)
        forwarding.join()


def _ours(traceback: str) -> GeoglnetError | None:
    """Find the error of ours that a traceback's last line names."""
    # torch.multiprocessing hands on the text of a traceback, not the exception.
    name, _, message = traceback.strip().splitlines()[-1].partition(": ")
    kind = getattr(sys.modules[GeoglnetError.__module__], name.rpartition(".")[2], None)
    return kind(message) if isinstance(kind, type) and issubclass(kind, GeoglnetError) else None
