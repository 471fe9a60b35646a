"""What a network refuses to look at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

from geoglnet.errors import BandsError, ConfigError

_trusts = ContextVar("_trusts", default=False)


@contextmanager
def trusted() -> Iterator[None]:
    """Leave out the checks of values, for images and footprints that were checked where they come from.

    They are passes over every patch, and on a GPU each waits for the device.
    """
    token = _trusts.set(True)
    try:
        yield
    finally:
        _trusts.reset(token)


def check_image(image: Tensor, in_channels: int) -> None:
    """Refuse images that a network with ``in_channels`` bands cannot see.

    Raises:
        BandsError: not ``(B, in_channels, h, w)``.
        ConfigError: NaN or infinite values.
    """
    if image.ndim != 4 or image.shape[1] != in_channels:
        raise BandsError(f"an image of shape {tuple(image.shape)}; the network takes (B, {in_channels}, h, w)")
    if not _trusts.get():
        check_finite(image)


def check_finite(image: Tensor) -> None:
    """Refuse images with NaN or infinite values, which would spread over everything.

    Raises:
        ConfigError: there are some.
    """
    finite = image.isfinite()
    if not finite.all():
        count = int((~finite).sum())
        raise ConfigError(
            f"{count} of {image.numel()} values of an image are NaN or infinite; fill them first, with 0 for the mean"
        )


def check_footprints(footprints: Tensor, count: int) -> None:
    """Refuse footprints that don't fit ``count`` patches inside a region.

    Raises:
        ConfigError: wrong shape, outside 0…1, or empty.
    """
    if footprints.shape != (count, 4):
        raise ConfigError(f"footprints have shape {tuple(footprints.shape)}; {count} patches need ({count}, 4)")
    if _trusts.get():
        return
    inside = (footprints >= 0).all() and (footprints <= 1).all()
    if not inside or not (footprints[:, :2] < footprints[:, 2:]).all():
        raise ConfigError(
            "footprints must be (top, left, bottom, right) fractions with 0 ≤ top < bottom ≤ 1 and 0 ≤ left < right ≤ 1"
        )
