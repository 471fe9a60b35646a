"""Doors for notebooks and programs: the tools under short names, and handles to what they made.

A handle names files and reads of them what is asked for: never a whole raster by accident. Public names are those of
``geoglnet.__all__``. Imports of heavy libraries stand in the functions, for start-up time.
"""
