"""Models that other programs saved, run by our predictor as networks that see patches."""
