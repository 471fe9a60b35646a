"""``geoglnet models``: what ships with the package."""

from __future__ import annotations

import json
from typing import Any

import click

from geoglnet.cli.options import json_option
from geoglnet.cli.verb import Verb


@click.command(cls=Verb)
@click.argument("name", required=False)
@json_option
def models(name: str | None, as_json: bool) -> None:
    """List the shipped models, or show the card of one.

    The card describes the training data and their license, the scores on held-out scenes, and known failures.
    """
    from geoglnet.models.shipped import card_text, shipped_models

    if name is None:
        rows = [_row(model) for model in shipped_models()]
        click.echo(json.dumps(rows, indent=2) if as_json else _table(rows))
    elif as_json:
        click.echo(json.dumps({**_row(name), "card": card_text(name)}, indent=2))
    else:
        click.echo(card_text(name).rstrip())


def _row(name: str) -> dict[str, Any]:
    from geoglnet.models.manifest import read_manifest
    from geoglnet.models.shipped import DEFAULT_MODEL, model_path

    path = model_path(name)
    manifest = read_manifest(path)
    return {
        "name": name,
        "is_default": name == DEFAULT_MODEL,
        "classes": list(manifest.legend.names),
        "bands": list(manifest.bands.names),
        "scaling": manifest.bands.described_scaling,
        "resolution_m": manifest.resolution_m,
        "backbone": manifest.model.backbone,
        "size_mb": round(path.stat().st_size / 1e6, 1),
        "metrics": manifest.metrics,
    }


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'MODEL':<22}{'PIXEL':>8}  {'SIZE':>8}  {'MEAN IOU':>8}  CLASSES"]
    for row in rows:
        name = row["name"] + (" *" if row["is_default"] else "")
        score = row["metrics"].get("total", {}).get("mean_iou")
        shown = f"{score:.2f}" if isinstance(score, float) else "-"
        sizes = f"{row['resolution_m']:>6g} m  {row['size_mb']:>5g} MB"
        lines.append(f"{name:<22}{sizes}  {shown:>8}  {', '.join(row['classes'])}")
    return "\n".join([*lines, "", "* used when --model is not given. A model's card: geoglnet models NAME"])
