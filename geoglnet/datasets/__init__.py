"""Labeled scenes as region samples."""
