"""Labelled scenes as region samples."""
