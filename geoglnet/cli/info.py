"""``geoglnet info``: what a scene or a model file is, as geoglnet sees it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from geoglnet.cli.fact_sheet import sheet
from geoglnet.cli.options import bands_option, json_option, nodata_option, option, scale_option, with_option
from geoglnet.cli.terminal import in_options
from geoglnet.cli.verb import Verb
from geoglnet.progress import RecordedProgress


@click.command(cls=Verb)
@click.argument("path", metavar="SCENE|MODEL")
@option("--model", group="Input values", metavar="MODEL", help="Read a scene's bands and values as this model would.")
@bands_option
@with_option
@scale_option
@nodata_option
@json_option
def info(path: str, model: str | None, as_json: bool, **values: Any) -> None:
    """Describe a scene, a label raster or a model.

    A scene is any raster that GDAL opens, a Sentinel-2 product or a STAC item; a model is a .safetensors or .onnx file, or the
    name of a shipped one. Of a scene it also says which shipped models suit it.
    """
    from geoglnet.models.shipped import shipped_models

    # A file that has the name of a shipped model is meant itself, as a scene.
    is_model = Path(path).suffix.lower() in (".safetensors", ".onnx") or (path in shipped_models() and not Path(path).exists())
    facts = _model(path) if is_model else _scene(path, model, values)
    click.echo(json.dumps(facts, indent=2, default=str) if as_json else sheet(facts))


def _model(path: str) -> dict[str, Any]:
    from geoglnet.models.description import describe_model
    from geoglnet.models.shipped import model_path

    return {"kind": "model", **describe_model(model_path(path)).to_dict()}


def _scene(path: str, model: str | None, values: dict[str, Any]) -> dict[str, Any]:
    from geoglnet.models.description import describe_model
    from geoglnet.models.shipped import model_path
    from geoglnet.raster.band_sources import list_bands
    from geoglnet.raster.cog import read_legend
    from geoglnet.raster.scaling import Scaling
    from geoglnet.raster.scene import open_scene

    remarks = RecordedProgress()
    bands = list_bands(path)
    model_bands = describe_model(model_path(model)).bands if model else None
    ends: tuple[float, float] | None = values["scaling"]
    values["scaling"] = Scaling(*ends, "given with --scale") if ends else None
    with open_scene(path, model_bands=model_bands, progress=remarks, **values) as scene:
        facts: dict[str, Any] = {
            "kind": "scene",
            "path": scene.name,
            "width": scene.shape.width,
            "height": scene.shape.height,
            "crs": scene.crs.to_string() if scene.crs else None,
            "pixel_size_m": scene.pixel_size_m,
            "num_bands": len(bands),
            "bands": [{"number": band.number, "name": band.name, "description": band.text} for band, _ in bands],
            "values": scene.values_rule or "8-bit, as they are",
            "transform": list(scene.transform)[:6],
        }
        is_product = not scene.first_bands
        rules = [text for text in remarks.messages("log") if text != scene.values_rule]
    units = [unit for _, unit in bands]
    if any(unit not in (None, (1, 0)) for unit in units):
        for place, name in enumerate(("scale", "offset")):
            facts[name] = [None if unit is None else unit[place] for unit in units]
    facts |= {"rules": rules} if rules else {}
    command = click.get_current_context().command
    warned = [in_options(message, command) for message in remarks.messages("warning")]
    facts |= {"remarks": warned} if warned else {}
    legend = None if is_product else read_legend(path)
    if legend is None:
        from geoglnet.prediction.source import suitabilities

        facts["models"] = [
            {"name": model.model, "suits": model.suits, "remark": in_options(model.remark, command)}
            for model in suitabilities(path, **values)
        ]
    return facts | ({"kind": "labels", "classes": list(legend.names)} if legend else {})
