"""The authors' code: its geometry, and its weights under our names."""
