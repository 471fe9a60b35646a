"""Labels to polygons, and polygons to files (geo, no torch)."""
