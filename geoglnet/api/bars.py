"""Progress of what the doors start: bars where somebody watches, messages to the logger, and a record of both."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from geoglnet.api.session import options
from geoglnet.progress import Progress

logger = logging.getLogger("geoglnet")


@dataclass(slots=True)
class Bars:
    """A bar per stage (tqdm: a widget in a notebook, a line in a terminal); messages go to the logger ``geoglnet``."""

    bar: Any = None

    def plan(self, stage: str, total: int, unit: str, **figures: float) -> None:
        # Progress has no event for the end of a stage: the next one's plan is where its bar is closed.
        self.close()
        if options.draws_bars:
            self.bar = _tqdm()(total=total, desc=stage, unit=f" {unit}", disable=False)

    def advance(self, amount: int = 1, **figures: float) -> None:
        if self.bar is not None:
            if figures:
                # refresh=True would draw at every step, past tqdm's limit on how often it draws.
                self.bar.set_postfix(figures, refresh=False)
            self.bar.update(amount)

    def log(self, message: str) -> None:
        logger.info(message)

    def warn(self, message: str) -> None:
        logger.warning(message)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.bar = None


@dataclass(slots=True)
class Recorder:
    """Passes everything on to a receiver, and keeps what was said."""

    receiver: Progress
    rules: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def plan(self, stage: str, total: int, unit: str, **figures: float) -> None:
        self.receiver.plan(stage, total, unit, **figures)

    def advance(self, amount: int = 1, **figures: float) -> None:
        self.receiver.advance(amount, **figures)

    def log(self, message: str) -> None:
        self.rules.append(message)
        self.receiver.log(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)
        self.receiver.warn(message)


@contextmanager
def watched(progress: Progress | None) -> Iterator[Recorder]:
    """Yield the progress for a tool: the caller's, or bars that are closed at the end; what is logged is recorded."""
    bars = Bars()
    try:
        yield Recorder(bars if progress is None else progress)
    finally:
        bars.close()


def _tqdm() -> Any:
    """Import the tqdm that suits the place; a notebook without ipywidgets gets the text bar."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TqdmWarning: ipywidgets is missing
        from tqdm.auto import tqdm

        return tqdm
