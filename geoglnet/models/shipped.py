"""Models inside the package, by name."""

from __future__ import annotations

from pathlib import Path

from geoglnet.config import suggestion
from geoglnet.errors import ModelNotFoundError

DEFAULT_MODEL = "buildings"

_FOLDER = Path(__file__).parent.parent / "weights"


def shipped_models() -> tuple[str, ...]:
    """Names of the models inside the package."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.safetensors")))


def model_path(name: str) -> Path:
    """Find a model's file: a shipped one by name, any other by path.

    Raises:
        ModelNotFoundError: neither; the nearest shipped name is suggested.
    """
    if name in shipped_models():
        return _FOLDER / f"{name}.safetensors"
    if Path(name).is_file():
        return Path(name)
    if Path(name).is_dir():
        raise ModelNotFoundError(f"{name} is a folder; write it as a model file first: geoglnet import-model")
    hint = suggestion(name, shipped_models())
    raise ModelNotFoundError(f"no model {name!r}: neither a shipped model nor a file{hint}")


def card_text(name: str) -> str:
    """Read the card of a shipped model, as Markdown.

    Raises:
        ModelNotFoundError: no shipped model has that name.
    """
    if name not in shipped_models():
        raise ModelNotFoundError(f"no shipped model {name!r}{suggestion(name, shipped_models())}")
    return (_FOLDER / f"{name}.md").read_text(encoding="utf-8")
