"""``geoglnet doctor``: what this installation has and lacks; the QGIS plugin's Test button asks it."""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import version
from typing import Any

import click

from geoglnet.cli.options import device_option, json_option, option
from geoglnet.cli.terminal import PROTOCOL_VERSION
from geoglnet.cli.verb import FAILED, Verb


@click.command(cls=Verb)
@json_option
@option("--quick", group="Run", is_flag=True, help="Show only versions and options, without loading torch or GDAL.")
@option("--estimate", group="Run", is_flag=True, help="Estimate the memory of --device, which need not be here.")
@option("--model", group="Model", default="buildings", show_default=True, metavar="NAME|FILE", help="Model to estimate for.")
@device_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool, quick: bool, estimate: bool, model: str, device: str) -> None:
    """Check this installation and list what is missing.

    Exits with code 1 if scenes cannot be predicted here. With --json it also lists the options of every verb, so that a
    program that starts geoglnet knows what this version supports.
    """
    if estimate:
        from geoglnet.prediction.memory import estimates

        rows = estimates(model, device)
        table = [list(rows[0]), *([str(cell) for cell in row.values()] for row in rows)]
        lines = ["".join(f"{cell:>12}" for cell in line) for line in table]
        click.echo(json.dumps(rows, indent=2) if as_json else "\n".join(lines))
        return
    missing: list[str] = []
    facts: dict[str, Any] = {"version": version("geoglnet"), "protocol": PROTOCOL_VERSION, "python": platform.python_version()}
    for check in () if quick else (_torch, _gdal, _models):
        try:
            facts.update(check())
        except (ImportError, OSError, RuntimeError, ValueError, LookupError) as error:
            # A library that is there and broken fails in any of these ways; the others are still checked.
            missing.append(f"{check.__name__.removeprefix('_')}: {error}")
    facts |= {"executable": sys.executable} | ({} if quick else {"missing": missing, "ok": not missing})
    click.echo(json.dumps(facts | {"options": _options(ctx)}, indent=2) if as_json else _sheet(facts))
    if missing:
        ctx.exit(FAILED)


def _torch() -> dict[str, Any]:
    import torch

    devices = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return {"torch": torch.__version__, "cuda": torch.version.cuda if devices else None, "gpus": devices}


def _gdal() -> dict[str, Any]:
    import rasterio
    from rasterio.crs import CRS
    from rasterio.drivers import raster_driver_extensions

    # A PROJ_LIB left by another installation leads to a database that this PROJ cannot read.
    if CRS.from_epsg(4326).to_epsg() != 4326:
        raise RuntimeError("PROJ does not know EPSG:4326; unset PROJ_LIB and PROJ_DATA")
    if "tif" not in raster_driver_extensions():
        raise RuntimeError("GDAL cannot write GeoTIFF; reinstall rasterio")
    return {"rasterio": rasterio.__version__, "gdal": rasterio.__gdal_version__}


def _models() -> dict[str, Any]:
    from geoglnet.models.manifest import read_manifest
    from geoglnet.models.shipped import model_path, shipped_models

    names = shipped_models()
    for name in names:
        read_manifest(model_path(name))
    if not names:
        raise LookupError("none are installed; reinstall geoglnet, or pass --model FILE")
    return {"models": list(names)}


def _options(ctx: click.Context) -> dict[str, list[str]]:
    """List the long options of every verb, from the commands themselves."""
    group = ctx.parent.command if ctx.parent else None
    if not isinstance(group, click.Group):
        return {}
    verbs = {name: group.get_command(ctx, name) for name in group.list_commands(ctx)}
    return {
        name: [option for param in verb.params for option in param.opts if option.startswith("--")]
        for name, verb in verbs.items()
        if verb is not None
    }


def _sheet(facts: dict[str, Any]) -> str:
    lines = [f"{name:<12}{_shown(value)}" for name, value in facts.items() if name not in ("missing", "ok")]
    if facts.get("ok"):
        lines.append("ready")
    return "\n".join([*lines, *(f"missing     {line}" for line in facts.get("missing", ()))])


def _shown(value: Any) -> str:
    if value in (None, []):
        return "none"
    return ", ".join(value) if isinstance(value, list) else str(value)
