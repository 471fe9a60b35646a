"""Files that torch.save wrote, read without executing anything in them."""

from __future__ import annotations

import pickle
import struct
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geoglnet.errors import CheckpointError
from geoglnet.types import StrPath

# What torch's restricted unpickler, its readers of both formats and Python's zipfile raise on damaged files.
_DAMAGED = (
    ArithmeticError, AssertionError, AttributeError, EOFError, ImportError, LookupError, MemoryError, OSError, RuntimeError,
    TypeError, ValueError, pickle.UnpicklingError, struct.error, tarfile.TarError, zipfile.BadZipFile,
)  # fmt: skip


def read_pickle(path: StrPath, what: str) -> Any:
    """Read tensors in lists and dictionaries, and nothing else (``torch.load(weights_only=True)``), onto the CPU.

    Args:
        path: a file that exists.
        what: what it should be, for the message.

    Raises:
        CheckpointError: it is damaged, holds more than tensors and plain values, or is in a format that some versions of torch
            execute.
    """
    if tarfile.is_tarfile(path):  # before torch 2.6 its pickles were executed all the same (CVE-2025-32434)
        raise CheckpointError(f"{path} is in torch's format of 2016, which is not safe to read; save it anew with torch.save")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about protocols of pickle
            found = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGED as error:
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(f"{path} is not {what} ({reason or type(error).__name__})") from error
    _check_storages(found, Path(path))
    return found


def _check_storages(found: Any, path: Path) -> None:
    """Refuse tensors that are larger than the file: a pickle may say any size, or repeat one number a billion times.

    Raises:
        CheckpointError: there are some.
    """
    sizes: dict[int, int] = {}
    waiting, seen = [found], set[int]()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            sizes[storage.data_ptr()] = max(storage.nbytes(), value.nbytes)
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, (list, tuple)):
            waiting += value
    if sum(sizes.values()) > path.stat().st_size:
        raise CheckpointError(f"{path} names tensors of {sum(sizes.values())} bytes, more than it holds; get the file again")
