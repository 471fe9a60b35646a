"""From a name such as ``table3`` to files: what is missing is trained, scored and measured, then written and drawn."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib.figure import Figure

from geoglnet.datasets.sources import GeneratedSource
from geoglnet.errors import CapacityError, ConfigError
from geoglnet.output import OutputFile
from geoglnet.paper.balance import balance
from geoglnet.paper.drawing import draw_balance, draw_panels, draw_scatter
from geoglnet.paper.measuring import MeasuringError, measured
from geoglnet.paper.panels import sheet
from geoglnet.paper.published import Row, best_published, family
from geoglnet.paper.sheet import Line, iter_markdown, write_csv
from geoglnet.paper.study import Study
from geoglnet.paper.systems import System, find_system
from geoglnet.paper.targets import Kind, Target
from geoglnet.prediction.device import resolve_device


@dataclass(frozen=True, slots=True)
class Wishes:
    """What of a table or figure is wanted.

    Args:
        seeds: of the trainings; means and spreads are over them.
        sizes: of the overview or the patch, where the figure sweeps them.
        only: names of the systems to train and show, also such as the paper does not have; all of the target's when empty.
        is_dry: train and measure nothing: write what the folder holds.
        measures: measure memory and speed too.
        is_own_data: the data are not the paper's; its numbers are left out.
    """

    seeds: tuple[int, ...] = (0,)
    sizes: tuple[int, ...] = ()
    only: tuple[str, ...] = ()
    is_dry: bool = False
    measures: bool = True
    is_own_data: bool = False


@dataclass(frozen=True, slots=True)
class Reported:
    """What was made.

    Args:
        text: Markdown.
        paths: files written.
    """

    text: str
    paths: tuple[Path, ...]


def report(target: Target, study: Study, wishes: Wishes) -> Reported:
    """Make a table or figure, training and measuring what it lacks.

    Args:
        target: which.
        study: on what.
        wishes: how much of it.

    Raises:
        ConfigError: the configuration is of other data, has no validation scenes, or is not the one that the folder is of.
        DatasetError: training or validation data are missing.
    """
    target.check(study.config.legend, is_own_data=wishes.is_own_data)
    if not study.config.validation:
        raise ConfigError(f"{study.config.name} has no [[validation]] source to score on; name at least one")
    # Before the first training: figures of two configurations in one folder could not be told apart.
    study.check_settings()
    if target.kind is Kind.PANELS:
        return _panels(target, study, wishes)
    if target.kind is Kind.HISTOGRAM:
        return _histogram(target, study, wishes)
    lines = [_line(system, target, study, wishes) for system in _chosen(target, study, wishes)]
    convention = target.data.convention
    text = "\n".join([f"## {target.title}", "", *iter_markdown(lines, convention)]) + "\n"
    paths = [_written(study.folder / f"{target.name}.md", text), study.folder / f"{target.name}.csv"]
    write_csv(paths[1], lines, convention)
    if target.kind is Kind.SCATTER:
        swept = [line.system for line in lines if target.sweeps and line.system.size]
        sizes = {system.name: system.size / _reference(system, study) for system in swept}
        points = lines if target.sweeps else best_lines(lines, convention)
        paths += _drawn(draw_scatter(target.title, points, convention, sizes), study.folder / target.name)
    return Reported(text, tuple(paths))


def best_lines(lines: Sequence[Line], convention: str) -> list[Line]:
    """Choose the lines of Fig. 1(a): of each method the better of its two inferences, by our scores and by the paper's."""
    best: dict[str, Line] = {}
    for line in sorted(lines, key=lambda line: line.miou(convention) or 0.0):
        best[family(line.row.title)] = line
    rows = best_published()
    return [replace(line, row=rows[name] if line.row.miou is not None else line.row) for name, line in best.items()]


def _reference(system: System, study: Study) -> int:
    """Return the size that scale annotations refer to: the region, or for patches the usual patch (as in the paper)."""
    return study.config.region.region_size if system.sees_whole else study.config.region.patch_size


def _chosen(target: Target, study: Study, wishes: Wishes) -> list[System]:
    systems = [_at_full_size(s, target, study) for s in target.systems(wishes.sizes or _default_sizes(target, study))]
    if not wishes.only:
        return systems
    chosen: list[System] = []
    for name in wishes.only:
        own = [system for system in systems if name in (system.name, system.name.partition("@")[0])]
        chosen += own or [_at_full_size(find_system(name), target, study)]  # any that one likes to see beside them
    return chosen


def _at_full_size(system: System, target: Target, study: Study) -> System:
    """Give baselines in global inference the image at full size, unless the target compares sizes."""
    is_global_baseline = system.sees_whole and "architecture" in system.model
    if target.sweeps or system.size or not is_global_baseline:
        return system
    return system.at(study.config.region.region_size)


def _default_sizes(target: Target, study: Study) -> tuple[int, ...]:
    """Choose four sizes from a model's overview (or half its patch) up to the whole region (or twice the patch)."""
    region = study.config.region
    if target.sweeps == "patch":
        return tuple(min(region.region_size, round(region.patch_size * factor)) for factor in (0.5, 1, 1.5, 2))
    span = region.region_size - region.overview_size
    return tuple(region.overview_size + round(span * share) for share in (0, 1 / 3, 2 / 3, 1))


def _line(system: System, target: Target, study: Study, wishes: Wishes) -> Line:
    rows: Mapping[str, Row] = {row.system: row for row in target.rows}
    # At a swept size a baseline has no printed number.
    row = rows.get(system.name if target.sweeps else system.name.partition("@")[0], Row(system.name, system.title))
    if wishes.is_own_data:
        row = Row(row.system, row.title)
    known = {seed: study.known(system, seed) for seed in wishes.seeds}
    failure, memory = "", {}
    try:
        if not wishes.is_dry:
            known |= {seed: study.scored(system, seed) for seed in wishes.seeds}
        memory = dict(_memory(system, study, wishes))
    except (CapacityError, MeasuringError) as error:
        # One system that does not fit the device leaves the other rows of the table as they are.
        study.progress.warn(str(error))
        failure = str(error).rstrip(".")
    scores = {seed: figures for seed, figures in known.items() if figures is not None}
    return Line(system, row, scores, memory, study.steps(system), failure)


def _memory(system: System, study: Study, wishes: Wishes) -> Mapping[str, object]:
    """Measure memory and speed once per system: neither seeds nor training change them."""
    device = str(resolve_device(study.device))
    path = study.folder / f"{system.name}.{device.replace(':', '')}.memory.json"
    checkpoint = study.checkpoint(system, wishes.seeds[0])
    if not path.exists() and (wishes.is_dry or not wishes.measures or not checkpoint.exists()):
        return {}
    return measured(checkpoint, device, path, system.is_coarse_to_fine)


def _panels(target: Target, study: Study, wishes: Wishes) -> Reported:
    seed = wishes.seeds[0]
    systems = _chosen(target, study, wishes)
    paths = [(s.title, study.checkpoint(s, seed) if wishes.is_dry else study.trained(s, seed)) for s in systems]
    there = [(title, path) for title, path in paths if path.exists()]
    drawn = sheet(there, study.config.validation, study.data, study.device, study.progress)
    files = _drawn(draw_panels(target.title, drawn.panels, drawn.zooms), study.folder / target.name)
    return Reported(f"## {target.title}\n\nScene, truth, then: {', '.join(title for title, _ in there)}.\n", tuple(files))


def _histogram(target: Target, study: Study, wishes: Wishes) -> Reported:
    system, seed = _chosen(target, study, wishes)[0], wishes.seeds[0]
    path = study.checkpoint(system, seed) if wishes.is_dry else study.trained(system, seed)
    config = study.config
    sources = [s for s in (*config.train, *config.validation) if not isinstance(s, GeneratedSource)]
    ratios = balance(path, sources, study.data, study.device, study.progress)
    if not ratios.before:
        raise ConfigError(f"{config.name}: no region of its scenes has foreground; nothing to draw")
    medians = [statistics.median(values) if values else float("nan") for values in ratios]
    text = f"## {target.title}\n\n| | regions | median foreground : background |\n|---|---|---|\n"
    text += f"| whole regions | {len(ratios.before)} | {medians[0]:.2f} |\n"
    text += f"| inside the box | {len(ratios.after)} | {medians[1]:.2f} |\n"
    paths = [_written(study.folder / f"{target.name}.md", text)]
    return Reported(text, (*paths, *_drawn(draw_balance(target.title, *ratios), study.folder / target.name)))


def _written(path: Path, text: str) -> Path:
    with OutputFile(path, overwrite=True) as part:
        part.write_text(text, encoding="utf-8")
    return path


def _drawn(figure: Figure, stem: Path) -> list[Path]:
    """Save a figure as PNG and SVG."""
    paths = [stem.with_name(f"{stem.name}{suffix}") for suffix in (".png", ".svg")]
    for path in paths:
        with OutputFile(path, overwrite=True) as part:
            figure.savefig(part, dpi=130, facecolor="white")
    return paths
