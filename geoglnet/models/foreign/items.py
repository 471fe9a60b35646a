"""STAC items beside models of others, which describe them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geoglnet.errors import CheckpointError
from geoglnet.models.foreign.described import Facts, facts_of_mlm
from geoglnet.plain import shortened

_LARGEST = 16_000_000


def item_path_of(path: Path) -> Path:
    """Name the item that describes a model's file: beside it, with its whole name, as it may be saved in several formats."""
    return path.with_name(path.name + ".json")


def facts_beside(path: Path) -> Facts | None:
    """Read the item that describes a model's file; ``None`` where there is none.

    Raises:
        CheckpointError: it cannot be read, or describes another state of the file.
    """
    item_path = item_path_of(path)
    if not item_path.is_file():
        return None
    item = read_item(item_path)
    assets = item.get("assets")
    models = [asset for asset in (assets.values() if isinstance(assets, Mapping) else ()) if isinstance(asset, Mapping)]
    asset = next((one for one in models if "mlm:model" in (one.get("roles") or ())), {})
    known = asset.get("file:checksum")
    if isinstance(known, str) and known.startswith("1220") and path.is_file():
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if known[4:].lower() != found:
            raise CheckpointError(f"{item_path} describes another state of {path.name}; write it anew: geoglnet import-model")
    return facts_of_mlm(str(path), item["properties"])


def read_item(path: Path) -> dict[str, Any]:
    """Read a STAC item of a model.

    Raises:
        CheckpointError: it is none.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise CheckpointError(f"{path} has {path.stat().st_size} bytes; descriptions of models have at most {_LARGEST}")
        item: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} cannot be read as a description of a model ({shortened(str(error))[1:-1]})") from error
    if not isinstance(item, dict) or not isinstance(item.get("properties"), dict) or "mlm:input" not in item["properties"]:
        raise CheckpointError(f"{path} is no STAC item of a model (mlm:input); remove it, or describe the model again")
    return item
