"""Metadata by which Deepness and GeoDeep run ONNX files: texts by key, most of them JSON.

Both feed an image with values from 0 to 1 and take the class of the largest result, after setting all below a threshold to
zero: results have to be probabilities. Deepness normalizes by ``standardization_mean`` and ``_std``, GeoDeep never does.
"""

from __future__ import annotations

import json

from geoglnet.models.manifest import Manifest
from geoglnet.models.mlm import ImageProgram


def deepness_metadata(manifest: Manifest, program: ImageProgram) -> dict[str, str]:
    """Write what Deepness and GeoDeep read of a network that was exported with its normalization.

    Args:
        manifest: of the model.
        program: how it was exported.
    """
    bands = len(manifest.bands)
    values = {
        "model_type": "Segmentor",
        "class_names": {str(value): name for value, name in enumerate(manifest.legend.names)},
        "resolution": round(100 * manifest.resolution_m, 6),  # centimeters
        "tile_size": program.side,  # what Deepness's program asks for
        "tiles_size": program.side,  # and what its documentation says
        "tiles_overlap": -(-100 * program.overlap // program.side),  # whole percent, rounded up
        # Neither thresholds nor filters: the class is that of the largest probability.
        "seg_thresh": 0.0,
        "seg_small_segment": 0,
        "standardization_mean": [0.0] * bands,
        "standardization_std": [1.0] * bands,
    }
    return {key: json.dumps(value) for key, value in values.items()}
