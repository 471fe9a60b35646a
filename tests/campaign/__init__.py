"""The campaign that looks for what the tests did not think of: ``scripts/fuzz`` and ``scripts/kill``."""
