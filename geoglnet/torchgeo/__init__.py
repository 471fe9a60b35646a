"""TorchGeo: its datasets and samplers for training a GLNet; nothing else of the package imports it."""
