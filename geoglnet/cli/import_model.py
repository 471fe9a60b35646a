"""``geoglnet import-model``: a model of another program, described so that ``predict`` can run it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geoglnet.cli.options import option, overwrite_option, path_option
from geoglnet.cli.verb import Verb

if TYPE_CHECKING:
    from geoglnet.models.manifest import Manifest


def _words(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(word.strip() for word in text.split(","))


def _numbers(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    try:
        return None if text is None else tuple(float(word) for word in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} are not numbers with commas between them (0.485,0.456,0.406)", ctx, param) from None


@click.command(cls=Verb)
@click.argument("model", metavar="MODEL", type=click.Path(path_type=Path))
@path_option("-o", "--output", group="Outputs", help="Model file to write for a folder (.safetensors).")
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
def import_model(model: Path, output: Path | None, overwrite: bool, **described: Any) -> None:
    """Describe a model of another program for predict.

    MODEL is an .onnx file that takes one image and gives a result for each of its pixels. What the metadata of Deepness,
    GeoDeep or MLM say need not be said again. The description, a STAC item, is written beside it (MODEL.onnx.json). Or MODEL
    is a folder that segmentation-models-pytorch saved (save_pretrained), which becomes a model file of ours. Pickles are not
    opened.
    """
    from geoglnet.models.foreign.importing import Description

    description = Description(**described)
    if model.is_dir():
        if output is None:
            raise click.UsageError("a folder is written as a model file: give -o model.safetensors")
        from geoglnet.models.foreign.library_folder import import_folder

        manifest = import_folder(model, output, description, overwrite=overwrite)
        return _tell(output, manifest, manifest.model.architecture)
    if output is not None:
        raise click.UsageError(f"-o is for folders; what describes {model.name} is written beside it")
    from geoglnet.models.foreign.importing import import_model as tool

    done = tool(model, description, overwrite=overwrite)
    return _tell(done.path, done.manifest, done.head)


def _tell(path: Path, manifest: Manifest, kind: str) -> None:
    background = manifest.legend.background
    left_out = "" if background is None else f" (background: {manifest.legend.names[background]})"
    click.echo(
        f"{path}: {', '.join(manifest.legend.names)}{left_out}; bands {manifest.bands}; {manifest.resolution_m:g} m "
        f"pixels, images of {manifest.region.patch_size} px; {kind}",
        err=True,
    )
