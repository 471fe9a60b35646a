"""Choices that hold for a whole session: whether bars are drawn, and how much may be read at once."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any

from geoglnet.errors import ConfigError

_WRITTEN = dict.fromkeys(("0", "false", "off", "no"), False) | dict.fromkeys(("1", "true", "on", "yes"), True)


@dataclass(slots=True)
class Options:
    """Choices that hold until they are changed; ``geoglnet.options`` is the one that counts.

    >>> import geoglnet
    >>> geoglnet.options.progress = False  # no bars from here on; so does the environment variable GEOGLNET_PROGRESS=0
    >>> geoglnet.options.limit_mb = 2000  # handles may read up to 2 GB at once

    Args:
        progress: ``True`` draws progress bars, ``False`` none, ``"auto"`` only in notebooks and terminals. Warnings and the
            rules applied go to the logger ``geoglnet`` in any case.
        limit_mb: megabytes (10⁶ bytes) that a handle reads into memory at once without being told to; more is refused, and
            the message says what to do instead.
        limit_polygons: polygons that are put into one map for a browser.

    Raises:
        ConfigError: a value of another kind, or a limit that is not positive.
    """

    progress: bool | str = "auto"
    limit_mb: float = 512.0
    limit_polygons: int = 20_000

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "progress" and value not in (True, False, "auto"):
            raise ConfigError(f"options.progress = {value!r} must be True, False or 'auto'")
        # "not >" instead of "<=", so that NaN is refused too.
        if name.startswith("limit_") and not value > 0:
            raise ConfigError(f"options.{name} = {value!r} must be positive")
        # Not super(): slots=True makes the class a second time, and super() would still mean the first.
        object.__setattr__(self, name, value)

    @property
    def draws_bars(self) -> bool:
        """Tell whether bars are to be drawn now."""
        return sys.stderr.isatty() or _in_notebook() if self.progress == "auto" else bool(self.progress)


def _in_notebook() -> bool:
    # Looked up, not imported: where no IPython runs, importing it would only take time.
    ipython = sys.modules.get("IPython")
    # The shell of Jupyter kernels; IPython in a terminal has another, and is found by isatty().
    return ipython is not None and type(ipython.get_ipython()).__name__ == "ZMQInteractiveShell"


def _from_environment() -> Options:
    written = os.environ.get("GEOGLNET_PROGRESS", "").strip().lower()
    return Options(progress=_WRITTEN.get(written, "auto"))


options = _from_environment()
