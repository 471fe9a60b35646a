"""A legend is checked when it is made and survives its plain form."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoglnet.errors import LegendError
from geoglnet.legend import Legend

LEGEND = Legend(("ground", "building"), ((0, 0, 0), (220, 60, 40)), background=0)

colors = st.tuples(*[st.integers(0, 255)] * 3)


@st.composite
def legends(draw: st.DrawFn) -> Legend:
    text = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=8)
    names = draw(st.lists(text, min_size=1, max_size=12, unique=True))
    ignore_value = draw(st.integers(len(names), 255))
    background = draw(st.none() | st.integers(0, len(names) - 1))
    return Legend(tuple(names), tuple(draw(colors) for _ in names), ignore_value, background)


@settings(max_examples=50)
@given(legends())
def test_a_legend_survives_json(legend: Legend) -> None:
    assert Legend.from_dict(json.loads(json.dumps(legend.to_dict()))) == legend


@settings(max_examples=50)
@given(legends())
def test_every_class_but_the_background_becomes_polygons(legend: Legend) -> None:
    assert set(legend.polygon_values) | {legend.background} - {None} == set(range(legend.num_classes))
    assert legend.background not in legend.polygon_values


def test_a_class_is_found_by_its_name() -> None:
    assert LEGEND.value_of("building") == 1
    with pytest.raises(LegendError, match="no class 'house' in the legend; it has ground, building"):
        LEGEND.value_of("house")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((), ()), "1 to 255 classes, found 0"),
        ((("a", "a"), ((0, 0, 0), (1, 1, 1))), "repeat: a, a"),
        ((("a", "b"), ((0, 0, 0),)), "2 class names but 1 colors"),
        ((("a",), ((0, 0, 256),)), "not three numbers from 0 to 255"),
        ((("a",), ((0, 0),)), "not three numbers"),
        ((("a",), ((0, 0, 0),), 0), "ignore_value 0 is the label of 'a'"),
        ((("a",), ((0, 0, 0),), 255, 1), "background 1 is not a label"),
        ((("a",), ((0, 0, 0),), 2**40), "ignore_value 1099511627776 does not fit into a label raster"),
        ((("a",), ("red",)), "color 'red' is not three numbers"),
        ((("a",), ((0.5, 0, 0),)), "not three numbers"),
        (((7,), ((0, 0, 0),)), "= 7 must be text"),
        ((("a\x07",), ((0, 0, 0),)), r"'a\\x07' has the character U\+0007"),
        ((("\ud800",), ((0, 0, 0),)), r"has the character U\+D800"),
        ((("a\nb",), ((0, 0, 0),)), r"has the character U\+000A"),
        ((("a" * 256,), ((0, 0, 0),)), "has 256 characters"),
        (("ab", ((0, 0, 0),)), "must be a list"),
    ],
)
def test_parts_that_do_not_fit_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(LegendError, match=message):
        Legend(*arguments)


ONE = {"name": "a", "color": [0, 0, 0]}


@pytest.mark.parametrize(
    "plain",
    [
        {}, {"classes": [{"name": "a"}]}, {"classes": 3}, [], None, {"classes": ["a"]}, {"classes": {"a": 1}},
        {"classes": [ONE], "ignore_value": "255"}, {"classes": [ONE], "ignore_vlaue": 3}, {"classes": [ONE], "background": "a"},
        {"classes": [ONE], "background": True}, {"classes": [ONE | {"colr": 1}]},
    ],
)  # fmt: skip
def test_a_foreign_dictionary_is_refused(plain: dict[str, Any]) -> None:
    with pytest.raises(LegendError, match="not a legend"):
        Legend.from_dict(plain)
