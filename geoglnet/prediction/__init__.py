"""A scene through a model: plan, predictor, outputs."""
