"""Resampling by matrix products equals torch's own, in either layout."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from geoglnet.models.resampling import centers, enlarge, resample, weights_at
from geoglnet.models.sharing import crop

sides = st.integers(1, 12)


@settings(max_examples=60, deadline=None)
@given(height=sides, width=sides, h=sides, w=sides, count=st.integers(1, 3), is_last=st.booleans(), seed=st.integers(0, 99))
def test_a_crop_equals_that_of_grid_sample(
    height: int, width: int, h: int, w: int, count: int, is_last: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    source = torch.randn(1, 3, height, width)
    source = source.contiguous(memory_format=torch.channels_last) if is_last else source
    places = torch.cat([torch.rand(count, 2) / 2, 0.5 + torch.rand(count, 2) / 2], dim=1)
    top, left, bottom, right = places.unbind(dim=1)
    y, x = centers(top, bottom, h), centers(left, right, w)
    grid = torch.stack([x[:, None].expand(-1, h, -1), y[:, :, None].expand(-1, -1, w)], dim=-1) * 2 - 1
    many = source.expand(count, -1, -1, -1)
    expected = F.grid_sample(many, grid, mode="bilinear", padding_mode="border", align_corners=False)
    torch.testing.assert_close(crop(source, places, (h, w)), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(resample(source, weights_at(y, height), weights_at(x, width)), expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(height=sides, width=sides, h=sides, w=sides)
def test_enlarging_equals_interpolation(height: int, width: int, h: int, w: int) -> None:
    source = torch.randn(2, 3, height, width)
    expected = F.interpolate(source, size=(h, w), mode="bilinear", align_corners=False)
    torch.testing.assert_close(enlarge(source, (h, w)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("is_last", [False, True])
def test_a_crop_keeps_type_and_layout(is_last: bool) -> None:
    source = torch.randn(1, 4, 8, 8, dtype=torch.bfloat16)
    source = source.contiguous(memory_format=torch.channels_last) if is_last else source
    cropped = crop(source, torch.tensor([[0.1, 0.2, 0.6, 0.7]]), (6, 6))
    assert cropped.dtype is torch.bfloat16
    assert cropped.is_contiguous(memory_format=torch.channels_last) == is_last
