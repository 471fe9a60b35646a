"""Size, time to make, and time per zoom in Chromium of the page that ``.explore()`` makes, by number of polygons.

python benchmarks/web_map.py FOLDER [--polygons 100 5000 50000]
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import time
from pathlib import Path

import geopandas
import numpy as np
import shapely

import geoglnet
from geoglnet.api.maps import MapBuilder
from geoglnet.raster.picture import scene_picture

MEASURE = """
<script>
let renderer = null;
map.eachLayer((layer) => { if (layer instanceof L.Canvas) renderer = layer; });
const times = [];
for (const step of [1, 1, 1, -1, -1, -1]) {
  const start = performance.now();
  map.setZoom(map.getZoom() + step, { animate: false });
  L.Util.cancelAnimFrame(renderer._redrawRequest);
  renderer._redraw();
  renderer._ctx.getImageData(0, 0, 1, 1);
  times.push(Math.round(performance.now() - start));
}
document.title = `${Math.round(performance.now())} ${times.join(" ")}`;
</script>
"""


def roofs(count: int, bounds: tuple[float, float, float, float], crs: object) -> geopandas.GeoDataFrame:
    """Outlines of some 40 corners, as pixels have them."""
    rng = np.random.default_rng(0)
    left, bottom, right, top = bounds
    angles = np.linspace(0, 2 * np.pi, 21)[:-1]
    size = (right - left) / np.sqrt(count) / 3
    shapes = []
    for place in rng.uniform((left, bottom), (right, top), (count, 2)):
        corners = np.round((place + size * np.column_stack([np.cos(angles), np.sin(angles)])) / 0.15) * 0.15
        stairs = np.repeat(corners, 2, axis=0)
        stairs[1::2, 0] = np.roll(corners[:, 0], -1)
        shapes.append(shapely.Polygon(stairs).buffer(0))
    columns = {"class_name": "building", "area_m2": shapely.area(shapes), "confidence": rng.random(count)}
    return geopandas.GeoDataFrame(columns, geometry=shapes, crs=crs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--polygons", type=int, nargs="+", default=[100, 5000, 50000])
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    scene = geoglnet.demo(options.folder, shape=(2048, 2048), overwrite=True)
    picture = scene_picture([scene], size=800)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    print(f"{'polygons':>9} {'MB':>6} {'made in':>8} {'shown in':>9}  ms per zoom (3 in, 3 out)")
    for count in options.polygons:
        frame = roofs(count, picture.bounds, picture.crs)
        start = time.process_time()
        world = MapBuilder()
        world.add_picture("scene", picture)
        world.add_polygons(frame, {"building": "#e64b32"})
        page = world.finished({}).html
        made = time.process_time() - start
        path = options.folder / f"{count}.html"
        path.write_text(page.replace("</body>", f"{MEASURE}</body>"), encoding="utf-8")
        shown, *zooms = ["?"] if chromium is None else measured(chromium, path)
        print(f"{count:>9} {len(page) / 1e6:>6.2f} {made:>6.2f} s {shown:>6} ms  {' '.join(zooms)}", flush=True)


def measured(chromium: str, path: Path) -> list[str]:
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={path.parent / 'profile'}",
        "--window-size=1200,900",
    ]
    dom = subprocess.run([chromium, *flags, "--dump-dom", path.resolve().as_uri()], capture_output=True, check=True).stdout
    title = re.search(rb"<title>([^<]*)</title>", dom)
    return title[1].decode().split() if title else ["?"]


if __name__ == "__main__":
    main()
