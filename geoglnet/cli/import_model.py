"""``geoglnet import-model``: a model of another program, described so that ``predict`` can run it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geoglnet.cli.options import option, overwrite_option
from geoglnet.cli.verb import Verb


def _words(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(word.strip() for word in text.split(","))


def _numbers(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    try:
        return None if text is None else tuple(float(word) for word in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} are not numbers with commas between them (0.485,0.456,0.406)", ctx, param) from None


@click.command(cls=Verb)
@click.argument("model", metavar="MODEL.onnx", type=click.Path(path_type=Path))
@overwrite_option
@option(
    "--resolution",
    "resolution_m",
    group="Model",
    type=click.FloatRange(min=0, min_open=True),
    metavar="M",
    help="Meters per pixel that the model was trained at.",
)
@option("--classes", group="Model", callback=_words, metavar="NAMES", help="Class names in the order of its results: a,b,c.")
@option("--background", group="Model", metavar="NAME", help="Class that does not become polygons.")
@option("--bands", group="Model", callback=_words, metavar="NAMES", help="Names of its bands, in order: red,green,blue,nir.")
@option("--mean", group="Model", callback=_numbers, metavar="NUMBERS", help="Mean of each band, on a scale of 0 to 1.")
@option("--std", group="Model", callback=_numbers, metavar="NUMBERS", help="Standard deviation of each band, on that scale.")
@option("--size", group="Model", type=click.IntRange(32), metavar="PX", help="Side of its images, where any will do.")
@option("--overlap", group="Model", type=click.IntRange(0), metavar="PX", help="What neighboring images share.")
@option(
    "--head",
    group="Model",
    type=click.Choice(["softmax", "sigmoid", "logits", "largest"]),
    metavar="KIND",
    help="What comes out of each pixel: softmax, sigmoid or logits, which is seen in its results; or largest, for a score "
    "of each class of which the largest wins.",
)
def import_model(model: Path, overwrite: bool, **described: Any) -> None:
    """Describe a model of another program, so that predict can run it.

    MODEL.onnx takes one image and gives a result for each of its pixels. What the metadata of Deepness, GeoDeep or MLM say
    need not be said again. The description, a STAC item, is written beside it (MODEL.onnx.json); the model stays as it is.
    Models of segmentation-models-pytorch and torch come in by torch.onnx.export. Pickles are not opened.
    """
    from geoglnet.models.foreign.importing import Description
    from geoglnet.models.foreign.importing import import_model as tool

    done = tool(model, Description(**described), overwrite=overwrite)
    manifest = done.manifest
    background = manifest.legend.background
    left_out = "" if background is None else f" (background: {manifest.legend.names[background]})"
    click.echo(
        f"{done.path}: {', '.join(manifest.legend.names)}{left_out}; bands {manifest.bands}; {manifest.resolution_m:g} m "
        f"pixels, images of {manifest.region.patch_size} px; {done.head}",
        err=True,
    )
