"""``geoglnet predict``: labels and polygons of a scene."""

from __future__ import annotations

from pathlib import Path

import click

from geoglnet.cli.options import bands_option, device_option, overwrite_option, path_option, progress_options
from geoglnet.cli.terminal import Reporter
from geoglnet.cli.verb import Verb
from geoglnet.models.registry import DEFAULT_MODEL


@click.command(cls=Verb)
@click.argument("scene")
@path_option("-o", "--labels", help="Label raster to write (a cloud-optimised GeoTIFF).")
@path_option("--vector", help="Polygons to write (a GeoPackage that opens styled in QGIS).")
@path_option("--confidence", help="Raster of the winning class's probability to write.")
@click.option("--model", default=DEFAULT_MODEL, show_default=True, help="A shipped model's name, or a .safetensors file.")
@device_option
@click.option("--batch", "batch_size", type=click.IntRange(min=1), help="Patches per step.  [default: by the device]")
@click.option(
    "--precision", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True, help="Of the network."
)
@click.option(
    "--resolution", type=click.FloatRange(min=0, min_open=True), metavar="M", help="Metres per pixel if there is no CRS."
)
@click.option("--scale", nargs=2, type=float, metavar="MIN MAX", help="Pixel values that become black and white.")
@bands_option
@overwrite_option
@progress_options
def predict(
    scene: str,
    labels: Path | None,
    vector: Path | None,
    confidence: Path | None,
    model: str,
    device: str,
    batch_size: int | None,
    precision: str,
    resolution: float | None,
    scale: tuple[float, float] | None,
    bands: tuple[int, ...] | None,
    overwrite: bool,
    reporter: Reporter,
) -> None:
    """Segment a scene into labels and polygons.

    SCENE is any raster that GDAL opens, of any size. It is read at the model's resolution, nodata and transparent
    pixels get no class and no polygon, and nothing appears under its final name before it is whole.
    """
    if labels is None and vector is None:
        raise click.UsageError("nothing to write: give -o labels.tif, --vector polygons.gpkg, or both")
    if scale and scale[0] >= scale[1]:
        raise click.BadParameter(f"{scale[0]:g} is not below {scale[1]:g}", param_hint="--scale")
    from geoglnet.prediction.predictor import PredictConfig
    from geoglnet.prediction.segment import segment
    from geoglnet.raster.scaling import Scaling

    settings = {"batch_size": batch_size, "device": device, "precision": precision, "assumed_pixel_size_m": resolution}
    settings |= {"bands": bands, "scaling": Scaling(*scale) if scale else None}
    config = PredictConfig(**{name: value for name, value in settings.items() if value is not None})
    paths = {"labels_path": labels, "vector_path": vector, "confidence_path": confidence}
    segment(scene, model=model, config=config, overwrite=overwrite, progress=reporter, **paths)
    outputs = {name.removesuffix("_path"): path for name, path in paths.items() if path}
    reporter.done(f"{scene}: {', '.join(str(path) for path in outputs.values())}", outputs)
