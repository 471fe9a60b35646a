"""The door for other backbones: any network of torchvision or timm that has maps at strides 4, 8, 16 and 32.

``backbone = "torchvision/convnext_tiny"`` or ``"timm/efficientnet_b0"``. Inside, modules keep the library's names, under
``body.``; so does what is saved.
"""

from __future__ import annotations

from contextlib import redirect_stderr
from importlib import import_module
from io import StringIO
from typing import Any

import torch
from torch import Tensor, nn

from geoglnet.errors import ConfigError

STRIDES = (4, 8, 16, 32)
_SIDE = 128  # of the blank image that a network is tried with
_OTHER_SIZES = (AssertionError, RuntimeError, TypeError, ValueError)  # whatever a network says to a size that is not its own


class Extractor(nn.Module):
    """A library's network as a backbone.

    Args:
        name: ``"torchvision/NAME"`` or ``"timm/NAME"``.

    Raises:
        ConfigError: no such network, no maps at one of the strides, or timm is not installed.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        library, _, inner = name.partition("/")
        self.body = (_timm_body if library == "timm" else _torchvision_body)(inner)
        try:
            with torch.no_grad():
                maps = self.eval()(torch.zeros(1, 3, _SIDE, _SIDE))  # or the blank image would enter batch statistics
        except _OTHER_SIZES as error:
            raise ConfigError(f"{name} takes no image of {_SIDE} px ({error}); a backbone must take any size") from error
        found = [_SIDE // m.shape[-1] for m in maps]
        if found != list(STRIDES) or any(m.ndim != 4 for m in maps):
            raise ConfigError(
                f"{name} has maps at strides {found}; a backbone needs (n, channels, h, w) maps at 4, 8, 16 and 32"
            )
        self.channels = tuple(m.shape[1] for m in maps)
        self.train()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """``(B, C, h, w)`` float image → c2…c5 at 1/4, 1/8, 1/16 and 1/32."""
        maps: Any = self.body(image)
        return tuple(maps.values()) if isinstance(maps, dict) else tuple(maps)


def pretrained_state(name: str) -> dict[str, Tensor]:
    """Fetch the library's own ImageNet weights, under the names of an :class:`Extractor` (downloaded once)."""
    library, _, inner = name.partition("/")
    whole = _timm().create_model(inner, pretrained=True) if library == "timm" else _torchvision(inner, "DEFAULT")
    return {f"body.{key}": tensor for key, tensor in whole.state_dict().items()}


def _torchvision(name: str, weights: str | None) -> nn.Module:
    import torchvision  # as slow to import as torch; most models need none of it

    # Its networks for classification: the others take weights of their backbones from the network unasked.
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise ConfigError(
            f"torchvision has no network {name!r} for classification; see torchvision.models.list_models(torchvision.models)"
        )
    # These two warn about a change of defaults where nothing is said.
    options = {"init_weights": True} if weights is None and name in ("googlenet", "inception_v3") else {}
    whole: nn.Module = torchvision.models.get_model(name, weights=weights, **options)
    return whole


def _torchvision_body(name: str) -> nn.Module:
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    whole = _torchvision(name, None).eval()
    try:
        nodes = get_graph_node_names(whole)[1]
        with torch.no_grad(), redirect_stderr(StringIO()):  # torch.fx prints a traceback before it raises
            tried = create_feature_extractor(whole, nodes)(torch.zeros(1, 3, _SIDE, _SIDE))
    except _OTHER_SIZES as error:
        raise ConfigError(
            f"torchvision/{name} takes no image of {_SIDE} px ({error}); a backbone must take any size"
        ) from error
    deepest: dict[int, str] = {}
    for node, value in tried.items():
        if (
            isinstance(value, Tensor)
            and value.ndim == 4
            and value.shape[-1] == value.shape[-2]
            and _SIDE % value.shape[-1] == 0
        ):
            deepest[_SIDE // value.shape[-1]] = node  # nodes come in the order of the network, so the last of a stride stays
    missing = [stride for stride in STRIDES if stride not in deepest]
    if missing:
        raise ConfigError(f"torchvision/{name} has no map at stride {missing[0]}; a backbone needs 4, 8, 16 and 32")
    body: nn.Module = create_feature_extractor(whole, {deepest[stride]: f"c{i + 2}" for i, stride in enumerate(STRIDES)})
    return body


def _timm_body(name: str) -> nn.Module:
    check_timm_name(name)
    try:
        tried = _timm().create_model(name, features_only=True)
    except (RuntimeError, AttributeError, ValueError) as error:
        raise ConfigError(f"timm gives no feature maps of {name!r} ({error}); see timm.list_models()") from error
    reductions = tried.feature_info.reduction()
    missing = [stride for stride in STRIDES if stride not in reductions]
    if missing:
        raise ConfigError(f"timm/{name} has no map at stride {missing[0]}; a backbone needs 4, 8, 16 and 32")
    body: nn.Module = _timm().create_model(name, features_only=True, out_indices=[reductions.index(s) for s in STRIDES])
    return body


def check_timm_name(name: str) -> None:
    """Refuse what timm would take for the address of a hub or a folder, and names that it does not have.

    Raises:
        ConfigError: not one of its networks.
    """
    if ":" in name or "/" in name or not _timm().is_model(name):
        raise ConfigError(f"timm has no network {name!r}; see timm.list_models()")


def _timm() -> Any:
    try:
        return import_module("timm")  # an extra, and slow to import
    except ModuleNotFoundError as error:
        raise ConfigError("a timm/… backbone needs timm; pip install 'geoglnet[timm]'") from error
