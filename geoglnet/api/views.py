"""What handles show: tables, figures and maps of files that may be larger than memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from geoglnet.api.session import options
from geoglnet.errors import ConfigError, MemoryLimitError

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from matplotlib.axes import Axes

    from geoglnet.api.maps import WebMap
    from geoglnet.legend import Legend
    from geoglnet.raster.picture import Picture
    from geoglnet.types import Bounds, StrPath


@dataclass(frozen=True, slots=True)
class Views:
    """Views of what lies in some files.

    Args:
        legend: classes; colors are made up where there is none.
        scene_paths: the scene beneath; none where it is not known.
        labels_path: label raster, if there is one.
        vector_path: polygons, if there are some.
    """

    legend: Legend | None
    scene_paths: Sequence[StrPath]
    labels_path: Path | None
    vector_path: Path | None

    def polygons(self, bounds: Bounds | None, limit_mb: float | None) -> GeoDataFrame:
        """Read the polygons from the file."""
        from geoglnet.vector.polygon_reader import read_frame

        if self.vector_path is None:
            raise ConfigError("no polygons were written; give predict(…, vector_path=…), or geoglnet.vectorize(labels, path)")
        return read_frame(self.vector_path, limit_mb=options.limit_mb if limit_mb is None else limit_mb, bounds=bounds)

    def plot(self, bounds: Bounds | None, size: int, axes: Axes | None) -> Axes:
        """Draw the scene under its labels or polygons, on axes with the CRS's coordinates."""
        from geoglnet.api.figures import draw_legend, draw_picture, draw_polygons, new_axes

        axes = new_axes() if axes is None else axes
        if self.scene_paths:
            draw_picture(axes, self.scene(size, bounds))
        if self.labels_path is not None and self.legend is not None:
            # Labels where there are both: a picture costs the same however many polygons it stands for.
            draw_picture(axes, self.labels(self.labels_path, self.legend, size, bounds), opacity=0.55)
        elif self.vector_path is not None:
            self.check_count(bounds, None)
            draw_polygons(axes, self.polygons(bounds, None), self.colors)
        draw_legend(axes, self.colors)
        return axes

    def explore(self, bounds: Bounds | None, size: int, limit: int | None) -> WebMap:
        """Make a web map of the scene, labels and polygons."""
        from geoglnet.api.maps import MapBuilder

        if self.vector_path is not None:
            self.check_count(bounds, limit)
        # After the count, so that nothing of the scene is read for a map that is refused.
        world = MapBuilder()
        if self.scene_paths:
            world.add_picture("scene", self.scene(size, bounds))
        if self.labels_path is not None and self.legend is not None:
            picture = self.labels(self.labels_path, self.legend, size, bounds)
            # Hidden at first where polygons lie over it: both would show the same classes twice.
            world.add_picture("labels", picture, opacity=0.6, shown=self.vector_path is None)
        if self.vector_path is not None:
            world.add_polygons(self.polygons(bounds, None), self.colors)
        return world.finished(self.colors)

    def scene(self, size: int, bounds: Bounds | None) -> Picture:
        """Read the scene, decimated."""
        from geoglnet.raster.picture import scene_picture

        return scene_picture(self.scene_paths, size=size, bounds=bounds)

    def labels(self, path: Path, legend: Legend, size: int, bounds: Bounds | None) -> Picture:
        """Read the labels, decimated and in color."""
        from geoglnet.raster.picture import labels_picture

        return labels_picture(path, legend, size=size, bounds=bounds)

    @property
    def colors(self) -> dict[str, str]:
        """Colors of the classes that become polygons, as ``#rrggbb`` by name; empty where the classes are not known."""
        if self.legend is None:
            return {}
        values = self.legend.polygon_values
        return {self.legend.names[v]: "#{:02x}{:02x}{:02x}".format(*self.legend.colors[v]) for v in values}

    def check_count(self, bounds: Bounds | None, limit: int | None) -> None:
        """Refuse more polygons than a figure or a browser can handle, before they are read."""
        from geoglnet.vector.polygon_reader import count_polygons

        limit = options.limit_polygons if limit is None else limit
        count = 0 if self.vector_path is None else count_polygons(self.vector_path, limit_mb=options.limit_mb, bounds=bounds)
        if count > limit:
            raise MemoryLimitError(
                f"{self.vector_path}: {count:,} polygons are more than one map takes ({limit:,}); give bounds = (left, bottom, "
                "right, top), raise geoglnet.options.limit_polygons, or open the file in QGIS"
            )
