"""Adaptation: a model, a scene and some polygons in; a model that knows the scene better, and by how much, out."""
