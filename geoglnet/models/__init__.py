"""The network: GLNet, its parts, and its checkpoints (torch, no rasterio)."""
