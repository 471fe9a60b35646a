"""Shared by all tests."""

from __future__ import annotations

from hypothesis import settings

# Machines are shared: a slow example is no failure.
settings.register_profile("geoglnet", deadline=None)
settings.load_profile("geoglnet")
