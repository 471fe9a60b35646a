"""Rasters in and out: scenes, label writers, COGs (geo, no torch)."""
