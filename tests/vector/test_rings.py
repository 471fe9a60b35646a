"""Rings as flat arrays are the polygons that shapely would make of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from geoglnet.vector import compiled as compiled_module
from geoglnet.vector.compiled import compiled
from geoglnet.vector.rings import Rings, to_wkb
from geoglnet.vector.tracing import NO_CODE, label_components, trace_components

sides = st.integers(1, 12)
small_labels = arrays(np.uint8, st.tuples(sides, sides), elements=st.sampled_from([0, 1, 255]))
far_away = pytest.mark.parametrize("origin", [(0, 0), (4_000_000, 30_000_000)])


def traced(labels: np.ndarray, origin: tuple[int, int] = (0, 0)) -> Rings:
    rings = trace_components(label_components(labels).ids, origin=origin)
    assume(len(rings) > 0)
    return rings


@far_away
@settings(max_examples=50, deadline=None)
@given(small_labels)
def test_wkb_is_that_of_shapely(origin: tuple[int, int], labels: np.ndarray) -> None:
    rings = traced(labels, origin)
    assert to_wkb(rings).to_pylist() == shapely.to_wkb(rings.polygons()).tolist()


@far_away
@settings(max_examples=50, deadline=None)
@given(small_labels)
def test_measures_are_those_of_shapely(origin: tuple[int, int], labels: np.ndarray) -> None:
    rings = traced(labels, origin)
    polygons = rings.polygons()
    bounds, areas, lengths = rings.measures()
    np.testing.assert_array_equal(bounds, shapely.bounds(polygons))
    np.testing.assert_array_equal(areas, shapely.area(polygons))
    np.testing.assert_array_equal(lengths, shapely.length(polygons))
    np.testing.assert_array_equal(rings.num_points(), shapely.get_num_coordinates(polygons))


@settings(max_examples=50, deadline=None)
@given(small_labels, st.randoms(use_true_random=False))
def test_some_of_the_polygons_are_those_of_shapely(labels: np.ndarray, random: Any) -> None:
    rings = traced(labels)
    chosen = np.array([random.random() < 0.5 for _ in range(len(rings))])
    for some in (chosen, slice(1, 3), slice(0, 0)):
        assert rings[some].polygons().tolist() == rings.polygons()[some].tolist()


def test_an_oblique_outline_is_measured_too() -> None:
    oblique = np.array([shapely.Polygon([(0, 0), (3, 4), (0, 8)], [[(0.5, 3), (0.5, 4), (1, 3.5)]])], dtype=object)
    bounds, areas, lengths = Rings.from_polygons(oblique).measures()
    assert (bounds.tolist(), areas.tolist()) == ([[0, 0, 3, 8]], [shapely.area(oblique[0])])
    np.testing.assert_allclose(lengths, shapely.length(oblique))


def test_no_polygons_are_no_polygons() -> None:
    none = trace_components(np.zeros((3, 4), dtype=np.int32))
    assert (len(none), len(none.polygons()), len(to_wkb(none))) == (0, 0, 0)


def test_components_are_numbered_by_their_first_pixels() -> None:
    labels = np.array([[3, 1, 3, 255], [3, 3, 3, 1], [0, 3, 0, 0]], dtype=np.uint8)
    found = label_components(labels, np.array([[10, 255, 20, 9], [30, 40, 255, 7], [1, 60, 254, 254]], dtype=np.uint8))
    assert found.ids.tolist() == [[1, 2, 1, 0], [1, 1, 1, 3], [4, 1, 5, 5]]
    assert found.class_id.tolist() == [3, 1, 1, 0, 0]
    assert found.totals.tolist() == [[6, 160, 5], [1, 0, 0], [1, 7, 1], [1, 1, 1], [2, 508, 2]]
    assert label_components(labels, without_label=True).class_id.tolist() == [3, 1, NO_CODE, 1, 0, 0]


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="file size limits are POSIX")
def test_machine_code_that_finds_no_room_on_the_disk_is_used_all_the_same(tmp_path: Path) -> None:
    script = """
        import resource, signal
        import numpy as np
        from geoglnet.vector.tracing import label_components
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        print(len(label_components(np.eye(3, dtype=np.uint8))))
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.stdout == "5\n", done.stderr
    assert not [*tmp_path.rglob("*.nbc")]


def test_machine_code_is_made_anew_where_there_is_no_folder_to_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_folder(function: object) -> None:
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(compiled_module, "_ForgivingCache", no_folder)
    assert compiled(lambda number: number + 1)(1) == 2
