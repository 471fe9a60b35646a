"""Facts as a sheet of text, for a terminal."""

from __future__ import annotations

from typing import Any

from geoglnet.escaping import visible


def sheet(facts: dict[str, Any], indent: str = "") -> str:
    """Lay facts out as lines of a name and its value."""
    lines = []
    for name, value in facts.items():
        if isinstance(value, dict):
            lines += [f"{indent}{visible(name)}", sheet(value, indent + "  ")]
        else:
            lines.append(f"{indent}{visible(name):<22}" + "\n".join(map(visible, _shown(value).split("\n"))))
    return "\n".join(line for line in lines if line)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        if value and isinstance(value[0], dict) and "suits" in value[0]:
            lines = [", ".join(filter(None, (f"{m['name']}: {'suits' if m['suits'] else 'no'}", m["remark"]))) for m in value]
            return ("\n" + " " * 22).join(lines)
        if value and isinstance(value[0], dict) and "number" in value[0]:
            from geoglnet.raster.band_names import NamedBand

            return ", ".join(str(NamedBand(band["number"], band["name"], band["description"])) for band in value)
        return ", ".join(part["name"] if isinstance(part, dict) and "name" in part else _shown(part) for part in value)
    return "none" if value is None else str(value)
