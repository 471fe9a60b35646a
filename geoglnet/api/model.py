"""Models as handles: the network, and what its file says about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from geoglnet.api.report import Report

if TYPE_CHECKING:
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
            "parameters": f"{self.num_parameters / 1e6:.1f} M",
            "license": manifest.training.get("license", "?"),
        }
        return Report(f"Model {self.name}", facts)

    def __repr__(self) -> str:
        return f"<geoglnet.Model {self.name!r}: {', '.join(self.legend.names)} at {self.manifest.resolution_m:g} m>"


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
    from geoglnet.models.checkpoint import load_checkpoint
    from geoglnet.models.shipped import model_path

    path = model_path(str(model))
    return Model(path, *load_checkpoint(path))


def path_of(model: StrPath | Model) -> str:
    """Return what the tools accept as a model: a name or a path."""
    # The path, not the network: a prediction moves the network that it loads to its device.
    return str(model.path if isinstance(model, Model) else model)
