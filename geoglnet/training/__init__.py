"""Training and evaluation workflows (Lightning)."""
