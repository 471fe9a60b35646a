"""Models as handles: the network, and what its file says about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoglnet.api.report import Report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from geoglnet.legend import Legend
    from geoglnet.models.manifest import Manifest
    from geoglnet.models.network import Network
    from geoglnet.types import StrPath


@dataclass(frozen=True, slots=True)
class Model:
    """A model in memory; ``predict(…, model=model)`` takes it as it takes a name or a file.

    >>> import geoglnet
    >>> model = geoglnet.load_model("buildings")
    >>> model.legend.names, model.manifest.resolution_m
    (('background', 'building'), 0.2)

    Args:
        path: the ``.safetensors`` file.
        network: in float32 and evaluation mode, on the CPU.
        manifest: classes, bands, resolution in meters, sizes in pixels, training data, scores.
    """

    path: Path
    network: Network
    manifest: Manifest

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def legend(self) -> Legend:
        """Classes in the order of the logits."""
        return self.manifest.legend

    @property
    def num_parameters(self) -> int:
        """Numbers that were trained."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    @property
    def card(self) -> str:
        """Show the card of a shipped model, as Markdown; of any other, its report as text."""
        from geoglnet.models.shipped import card_text, model_path, shipped_models

        shipped = [name for name in shipped_models() if model_path(name) == self.path]
        return card_text(shipped[0]) if shipped else str(self.report)

    @property
    def report(self) -> Report:
        """Report what the model is and takes."""
        from geoglnet.bands import Bands

        manifest, (finest, coarsest) = self.manifest, self.manifest.resolution_range_m
        facts = {
            "file": str(self.path),
            "classes": ", ".join(self.legend.names),
            "bands": str(manifest.bands),
            **({} if manifest.bands.scaling is Bands().scaling else {"values": manifest.bands.described_scaling}),
            "pixels": f"{manifest.resolution_m:g} m (trained on {finest:g} to {coarsest:g} m)",
            "region": f"{manifest.region.region_size} px, overview {manifest.region.overview_size} px",
            "patch": f"{manifest.region.patch_size} px, overlap {manifest.region.patch_overlap} px",
            "backbone": f"{manifest.model.backbone}, sharing {manifest.model.sharing.value}",
            **({} if manifest.temperature == 1 else {"temperature": f"{manifest.temperature:g}"}),
            **({"polygons": _settings(manifest.polygons)} if manifest.polygons else {}),
            "parameters": f"{self.num_parameters / 1e6:.1f} M",
            "license": manifest.training.get("license", "?"),
        }
        return Report(f"Model {self.name}", facts)

    def __repr__(self) -> str:
        return f"<geoglnet.Model {self.name!r}: {', '.join(self.legend.names)} at {self.manifest.resolution_m:g} m>"


def _settings(polygons: Mapping[str, Any]) -> str:
    return ", ".join(name if value is True else f"{name} {value}" for name, value in polygons.items())


def load_model(model: StrPath = "buildings") -> Model:
    """Load a shipped model, or one that was trained or imported.

    >>> import geoglnet
    >>> geoglnet.load_model("landcover")
    <geoglnet.Model 'landcover': urban, agriculture, rangeland, forest, water, barren at 1 m>
    >>> print(geoglnet.load_model().card.splitlines()[0])
    # buildings

    Memory: 4 bytes per parameter, 20 MB for a shipped model.

    Args:
        model: name of a shipped model, or a ``.safetensors`` file.

    Returns:
        Network, manifest and card.

    Raises:
        ModelNotFoundError: neither; the nearest shipped name is suggested.
        CheckpointError: the file is truncated, not ours, or of a newer format.
    """
    from geoglnet.models.opening import open_model
    from geoglnet.models.shipped import model_path

    path = model_path(str(model))
    return Model(path, *open_model(path))


def get_model(name: str = "glnet", *, weights: Any = None, bands: Sequence[str] = (), **options: Any) -> Network:
    """Build a network in the manner of ``torchgeo.models.get_model``: a PyTorch module, with random weights or trained ones.

    >>> import geoglnet
    >>> geoglnet.get_model("glnet", num_classes=2, backbone="mobilenet_v2", bands=("red", "nir")).config.in_channels
    2
    >>> geoglnet.get_model(weights="GLNet_Weights.LANDCOVER").config.num_classes
    6

    Args:
        name: ``"glnet"``, or an architecture of the paper's baselines.
        weights: ``None`` for random ones. A member of ``geoglnet.torchgeo.GLNet_Weights``, its name, a shipped model's or a
            ``.safetensors`` file: the trained network. A member of TorchGeo's ``ResNet50_Weights`` and the
            like, or its name: a new network whose backbones have these weights, multi-band ones too.
        bands: names of the bands, where they are not red, green and blue, or not all of the weights' bands.
        options: of :class:`ModelConfig`; of a trained network they must agree with what it is.

    Returns:
        The network, on the CPU: in evaluation mode where all of it is trained, else in training mode.

    Raises:
        CheckpointError: the weights cannot be read, or are of another network.
        ConfigError: no such network or weights, or options that contradict them.
        ModelNotFoundError: no shipped model or file of that name.
    """
    from geoglnet.config import ARCHITECTURES, ModelConfig, suggestion
    from geoglnet.errors import ConfigError
    from geoglnet.models.network import build_network

    known = {"glnet": "fpn"} | {family: family for family in ARCHITECTURES if family != "fpn"}
    if name not in known:
        raise ConfigError(f"no network {name!r}{suggestion(name, tuple(known))}")
    if weights is None:
        channels = {"in_channels": len(bands)} if bands else {}
        return build_network(ModelConfig(**{**channels, "architecture": known[name], **options}))
    source = str(weights) if isinstance(weights, (str, Path)) else repr(weights)
    kind, _, member = source.rpartition(".")
    if kind.endswith("_Weights") and kind != "GLNet_Weights":
        from geoglnet.torchgeo.pretrained import network_on

        return network_on(weights, bands, architecture=known[name], **options)
    model = load_model(member.lower().replace("_", "-") if kind == "GLNet_Weights" else source)
    config = model.network.config
    found = {key: getattr(config, key, None) for key in options} | {"architecture": config.architecture}
    wanted = options | {"architecture": known[name]}
    if bands:
        found["bands"], wanted["bands"] = model.manifest.bands.names, tuple(bands)
    for key, value in wanted.items():
        if found[key] != value:
            raise ConfigError(f"{source} has {key} = {found[key]!r}, not {value!r}; leave it out, or train a model of your own")
    return model.network


def path_of(model: StrPath | Model) -> str:
    """Return what the tools accept as a model: a name or a path."""
    # The path, not the network: a prediction moves the network that it loads to its device.
    return str(model.path if isinstance(model, Model) else model)
