"""Predictions on many machines: a plan of tasks, workers that compute them, and a finish that writes the outputs."""
