"""geoglnet in QGIS: Processing algorithms that run the geoglnet program of another Python environment."""

from __future__ import annotations


def classFactory(iface):
    """Make the plugin; QGIS calls this."""
    from .plugin import GeoglnetPlugin  # late: command, events, environment and runner are tested where there is no QGIS

    return GeoglnetPlugin(iface)
