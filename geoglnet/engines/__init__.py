"""Engines: where many independent pieces of work are done; all of them do the same job in the same way."""
