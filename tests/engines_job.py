"""Jobs for tests of engines, in a file of their own that other processes import."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoglnet.errors import SceneError


@dataclass(frozen=True)
class Square:
    """Squares numbers; raises at some, dies at others, and tells where it was at work."""

    folder: str
    fails_at: int = -1
    dies_at: int = -1
    lives_from: int = 99  # at its n-th death it does not die

    def start(self) -> Callable[[Any], int]:
        (Path(self.folder) / f"started-{os.getpid()}").touch()

        def work(number: int) -> int:
            if number == self.fails_at:
                raise SceneError(f"{number} cannot be read")
            if number == self.dies_at:
                deaths = len([*Path(self.folder).glob("died-*")])
                if deaths < self.lives_from:
                    (Path(self.folder) / f"died-{deaths}").touch()
                    os._exit(9)
            return number * number

        return work
