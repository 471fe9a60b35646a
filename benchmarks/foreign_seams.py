"""One ONNX file over one scene, tiled as Deepness tiles and by our predictor: label changes along the lines where tiles meet.

python benchmarks/foreign_seams.py MODEL.onnx SCENE FOLDER

Deepness cuts each tile in the middle of its overlap. A line's excess is how much more often labels differ across it than across
the lines 8 px beside it on both sides, over all lines of a kind; a map without seams has none.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import rasterio

import geoglnet
from geoglnet.models.opening import open_model
from geoglnet.prediction.plan import Plan
from geoglnet.progress import SilentProgress
from geoglnet.raster.scene import open_scene
from geoglnet.types import Shape

Labels = npt.NDArray[np.uint8]
_BESIDE = 8


def deepness_labels(path: Path, image: Labels, overlap_percent: int) -> tuple[Labels, list[int], list[int]]:
    """Labels as Deepness's tiles give them, without its median filter, and the rows and columns that it cuts at."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    size = session.get_inputs()[0].shape[-1]
    overlap = int(size * overlap_percent / 100 * 2) // 2
    stride, half = size - overlap, overlap // 2
    height, width = image.shape[-2:]
    rows, cols = (max(1, -(-(side - overlap) // stride)) for side in (height, width))
    filled = np.zeros((3, rows * stride + overlap, cols * stride + overlap), np.uint8)
    filled[:, :height, :width] = image
    labels = np.zeros(filled.shape[1:], np.uint8)
    for row in range(rows):
        for col in range(cols):
            top, left = row * stride, col * stride
            tile = filled[None, :, top : top + size, left : left + size].astype(np.float32) / 255
            found = session.run(None, {"image": tile})[0][0].argmax(axis=0)
            above, before = half * (row > 0), half * (col > 0)
            below, after = size - half * (row < rows - 1), size - half * (col < cols - 1)
            labels[top + above : top + below, left + before : left + after] = found[above:below, before:after]
    cuts = [[n * stride + half for n in range(1, count)] for count in (rows, cols)]
    return labels[:height, :width], cuts[0], cuts[1]


def excess(labels: Labels, rows: list[int], cols: list[int]) -> float:
    """Changes of labels across lines, in percent of their pixels, more than beside them."""
    across, beside = [], []
    for axis, lines in ((0, rows), (1, cols)):
        turned = labels if axis == 0 else labels.T
        for line in (line for line in lines if _BESIDE < line < len(turned) - _BESIDE):
            across.append((turned[line] != turned[line - 1]).mean())
            beside += [(turned[line + by] != turned[line + by - 1]).mean() for by in (-_BESIDE, _BESIDE)]
    return 100 * float(np.mean(across) - np.mean(beside))


def main() -> None:
    model, scene_path, folder = map(Path, sys.argv[1:])
    _, manifest = open_model(model)
    texts = onnxruntime.InferenceSession(model).get_modelmeta().custom_metadata_map
    with open_scene(
        scene_path, model_bands=manifest.bands, resolution_m=manifest.resolution_m, progress=SilentProgress()
    ) as scene:
        image = scene.read_window(rasterio.windows.Window(0, 0, scene.shape.width, scene.shape.height)).image
    started = time.process_time()
    theirs, rows, cols = deepness_labels(model, image, int(json.loads(texts["tiles_overlap"])))
    spent = time.process_time() - started
    started = time.process_time()
    done = geoglnet.predict(scene_path, folder / "ours.tif", model=model, device="cpu", overwrite=True)
    ours_spent = time.process_time() - started
    ours = done.labels()[0].values
    region = manifest.region
    plan = Plan(Shape(*ours.shape), region)
    equal = 100 * (ours == theirs).mean()
    print(f"{ours.shape[1]} × {ours.shape[0]} px, tiles of {region.patch_size} px, {equal:.2f} % of labels equal")
    print(
        f"Deepness's tiling: excess {excess(theirs, rows, cols):.3f} % at its {len(rows) + len(cols)} cuts, {spent:.0f} CPU s"
    )
    print(
        f"ours: {excess(ours, rows, cols):.3f} % at the same lines, "
        f"{excess(ours, list(plan.row_edges[1:-1]), list(plan.col_edges[1:-1])):.3f} % at its blocks' borders, "
        f"{ours_spent:.0f} CPU s"
    )


if __name__ == "__main__":
    main()
