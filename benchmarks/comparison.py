"""GLNet beside each of its branches alone and beside U-Nets in a sliding window: IoU on held-out scenes, over several seeds.

    python benchmarks/comparison.py CONFIG --data DATA --out FOLDER [--seeds 0 1 2] [--systems global local …]
        [--set KEY=VALUE …] [--table]

Needs the extra `train` and, for U-Net and DeepLabV3+, segmentation-models-pytorch (built on its release 0.6).

One bidirectional training per seed gives three systems: what each of its stages leaves. The local branch alone, U-Net and
DeepLabV3+ are trained apart, by the same code: the same patches of the same regions in the same order, the same losses,
optimizer, schedule and moving average, and the same encoder from the same file. GLNet's stages add up, so its last one has
seen more steps than a local branch has; `unet_long` is the U-Net trained for as many steps as all of them together.

All systems are scored by the predictor that `predict` uses, on the validation scenes of CONFIG: same patches, same blending.

Every score is written to FOLDER as soon as it is known, and what is there is not done again; a training that was cut off goes
on from its savepoint. The tables are made from those files alone (`--table` makes them of what there is).
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import time
import tomllib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from geoglnet.config import Sharing, Stage, to_plain
from geoglnet.datasets.reader import PairReader, open_dataset
from geoglnet.models.backbone import load_backbone_weights
from geoglnet.models.baselines.baseline import Baseline
from geoglnet.models.baselines.library import STRIDE, LibraryDecoder
from geoglnet.models.checkpoint import load_checkpoint
from geoglnet.models.manifest import Manifest
from geoglnet.output import OutputFile
from geoglnet.progress import SilentProgress
from geoglnet.training.fit import Start, fit, local_only, make_manifest
from geoglnet.training.runlog import RunLog, run_folder
from geoglnet.training.savepoint import Saving, read_savepoint, savepoint_path
from geoglnet.training.scoring import score
from geoglnet.training.stages import StageRun, run_stage
from geoglnet.training.train_config import TrainConfig, read_config


@dataclass(frozen=True, slots=True)
class System:
    """Something to be compared.

    Args:
        title: for people.
        training: name of the training that makes it.
        kept: what that training's checkpoint is called where it is what a stage left.
        stages: whose steps it has seen.
        architecture: of segmentation-models-pytorch; empty for our own networks.
    """

    title: str
    training: str
    kept: str
    stages: tuple[Stage, ...]
    architecture: str = ""

    def steps(self, config: TrainConfig) -> int:
        return sum(getattr(config.optim, f"{stage.value}_steps") for stage in self.stages)

    def path(self, folder: Path, seed: int) -> Path:
        return folder / f"{self.training}.{seed}{self.kept}.safetensors"


_ALL = (Stage.GLOBAL, Stage.LOCAL, Stage.BIDIRECTIONAL)
SYSTEMS = {
    "global": System("global branch alone", "glnet", ".global", _ALL[:1]),
    "local": System("local branch alone", "local", "", _ALL[1:2]),
    "one_way": System("GLNet 𝒢 → ℒ", "glnet", ".local", _ALL[:2]),
    "bidirectional": System("GLNet 𝒢 ⇌ ℒ", "glnet", "", _ALL),
    "unet": System("U-Net", "unet", "", _ALL[1:2], "unet"),
    "unet_long": System("U-Net, GLNet's steps", "unet_long", "", _ALL, "unet"),
    "deeplabv3plus": System("DeepLabV3+", "deeplabv3plus", "", _ALL[1:2], "deeplabv3plus"),
}


class SlidingNetwork(Baseline):
    """A network of segmentation-models-pytorch that sees patches; its encoder learns as a backbone does."""

    def __init__(self, architecture: str, config: TrainConfig) -> None:
        import segmentation_models_pytorch as smp  # only where it is compared with

        model = config.model
        whole = smp.create_model(architecture, model.backbone, encoder_weights=None, classes=model.num_classes)
        head = LibraryDecoder(whole.decoder, whole.segmentation_head)
        super().__init__(model, whole.encoder, head, stride=STRIDE)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is compared, on what, and where the figures are kept.

    Args:
        config: of the bidirectional training.
        data: folder that the configuration's patterns start from.
        folder: for checkpoints and scores.
    """

    config: TrainConfig
    data: Path
    folder: Path

    def seeded(self, seed: int) -> TrainConfig:
        """Stages draw from their seed plus their number: seeds that lie further apart than that share no samples."""
        return replace(self.config, optim=replace(self.config.optim, seed=seed * len(Stage)))

    def score_path(self, name: str, seed: int) -> Path:
        return self.folder / f"{name}.{seed}.json"

    def run(self, name: str, seed: int) -> None:
        """Train what is missing, and score it."""
        system, started = SYSTEMS[name], time.process_time()
        if not system.path(self.folder, seed).exists():
            say(f"seed {seed}: training {system.training}")
            self.train(system, seed)
        trained = time.process_time()
        network, manifest = self.load(system, seed)
        say(f"seed {seed}: scoring {name}")
        evaluation = score(network, manifest, self.config.validation, self.data)  # type: ignore[arg-type]
        figures = {
            "system": name,
            "seed": seed,
            "steps": system.steps(self.config),
            "parameters": sum(p.numel() for p in network.parameters()),
            "scoring_cpu_s": round(time.process_time() - trained, 1),
            "training_cpu_s": round(trained - started, 1),  # of this process: less than all where it was resumed
            **evaluation.to_dict(),
        }
        write_json(self.score_path(name, seed), figures)
        say(f"seed {seed}: {name} mean IoU {figures['total']['mean_iou']:.3f}")

    def train(self, system: System, seed: int) -> None:
        path, config = self.folder / f"{system.training}.{seed}.safetensors", replace(self.seeded(seed), validation=())
        if system.architecture:
            self.train_sliding(system, config, path)
            return
        config = local_only(config) if system.training == "local" else config
        fit(config, self.data, path, start=Start(resume=savepoint_path(path).exists()), progress=Steps())

    def train_sliding(self, system: System, config: TrainConfig, path: Path) -> None:
        """As :func:`fit` trains a local branch, with another network in its place."""
        config = self.sliding_config(system, config)
        torch.manual_seed(config.optim.seed)
        network = SlidingNetwork(system.architecture, config)
        load_backbone_weights(network.backbone, str(self.data / config.optim.backbone_weights))
        reader = PairReader(self.data, config.legend, config.resolution_m, SilentProgress(), config.sample.skip_corrupt)
        dataset = open_dataset(config.train, reader, config.region, config.sample, config.augment)
        save_path = savepoint_path(path)
        saved = read_savepoint(save_path, config) if save_path.exists() else None
        keepers = Saving(save_path, config, Stage.LOCAL), RunLog(run_folder(path), Stage.LOCAL, [])
        run = StageRun(Stage.LOCAL, config, make_manifest(config), saved, keepers)
        run_stage(network, run, dataset, Steps())  # type: ignore[arg-type]
        with OutputFile(path, overwrite=True) as part_path:
            save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, part_path)
        save_path.unlink(missing_ok=True)

    def sliding_config(self, system: System, config: TrainConfig) -> TrainConfig:
        optim = replace(config.optim, local_steps=system.steps(config))
        return replace(local_only(config), name=f"{config.name}-{system.training}", optim=optim)

    def load(self, system: System, seed: int) -> tuple[nn.Module, Manifest]:
        path = system.path(self.folder, seed)
        if not system.architecture:
            return load_checkpoint(path)
        config = self.sliding_config(system, self.seeded(seed))
        network = SlidingNetwork(system.architecture, config)
        network.load_state_dict(load_file(path))
        return network.eval(), make_manifest(config)


class Steps(SilentProgress):
    """A line now and then: trainings go on for hours, unwatched."""

    def __init__(self) -> None:
        self.stage, self.done, self.total = "", 0, 0

    def plan(self, stage: str, total: int, unit: str, **figures: float) -> None:
        self.stage, self.done, self.total = stage, 0, total

    def advance(self, amount: int = 1, **figures: float) -> None:
        self.done += amount
        if self.done % 25 == 0 and figures:
            say(f"  {self.stage}: {self.done}/{self.total}, loss {figures['loss']:.3f}")


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def write_json(path: Path, plain: Mapping[str, Any]) -> None:
    with OutputFile(path, overwrite=True) as part_path:
        part_path.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


def check_settings(comparison: Comparison) -> None:
    """Figures of one folder are of one configuration.

    Raises:
        SystemExit: they are not.
    """
    config, path = comparison.config, comparison.folder / "settings.json"
    parts = {name: to_plain(getattr(config, name)) for name in ("model", "region", "sample", "augment", "optim")}
    parts["optim"].pop("save_every_s")
    sources = {name: [to_plain(source) for source in getattr(config, name)] for name in ("train", "validation")}
    names = {"classes": list(config.legend.names), "resolution_m": config.resolution_m}
    plain = json.loads(json.dumps({"name": config.name, **names, **parts, **sources}, default=str))
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != plain:
        raise SystemExit(f"{path} has other settings than CONFIG with --set; give the same, or another --out")
    write_json(path, plain)


# Tables: of what the folder holds, and nothing else.

Figures = Mapping[str, Any]


def read_figures(folder: Path, names: Sequence[str]) -> dict[str, dict[int, Figures]]:
    """Figures by system and seed."""
    found: dict[str, dict[int, Figures]] = {}
    for name in names:
        for path in sorted(folder.glob(f"{name}.*.json")):
            figures = json.loads(path.read_text(encoding="utf-8"))
            found.setdefault(name, {})[figures["seed"]] = figures
    return found


def spread(values: Sequence[float]) -> str:
    """Mean, ± the standard deviation of the sample where there are several."""
    if not values:
        return "–"
    mean = statistics.fmean(values)
    return f"{mean:.3f}" if len(values) == 1 else f"{mean:.3f} ± {statistics.stdev(values):.3f}"


def row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def head(*cells: str) -> Iterator[str]:
    yield row(*cells)
    yield "|" + "---|" * len(cells)


def iter_scores(found: dict[str, dict[int, Figures]], classes: Sequence[str]) -> Iterator[str]:
    """All scenes' pixels together: mean IoU, IoU per class, accuracy."""
    yield from head("system", "steps", "parameters", "seeds", "mean IoU", *classes, "accuracy", "boundary F1")
    for name, seeds in found.items():
        runs = list(seeds.values())
        totals = [spread([run["total"][key] for run in runs if key in run["total"]]) for key in ("mean_iou", *classes)]
        others = [spread([run["conventions"][key] for run in runs]) for key in ("accuracy", "boundary_f1")]
        size = f"{runs[0]['parameters'] / 1e6:.1f} M"
        yield row(SYSTEMS[name].title, runs[0]["steps"], size, " ".join(map(str, seeds)), *totals, *others)


def iter_scene_scores(found: dict[str, dict[int, Figures]], scenes: Sequence[str]) -> Iterator[str]:
    """Mean IoU of each scene."""
    yield from head("system", *(Path(scene).stem for scene in scenes))
    for name, seeds in found.items():
        yield row(SYSTEMS[name].title, *(spread([run["scenes"][s]["mean_iou"] for run in seeds.values()]) for s in scenes))


def iter_differences(found: dict[str, dict[int, Figures]], scenes: Sequence[str], rival: str) -> Iterator[str]:
    """Mean IoU less the rival's of the same seed, and how often a scene of a seed was better."""
    title = SYSTEMS[rival].title
    yield from head("system", "seeds", f"mean IoU less that of {title}", "seeds ahead", "scenes of a seed ahead")
    for name, seeds in found.items():
        shared = [(seeds[seed], found[rival][seed]) for seed in seeds if seed in found[rival]]
        if name == rival or not shared:
            continue
        lead = [ours["total"]["mean_iou"] - theirs["total"]["mean_iou"] for ours, theirs in shared]
        by_scene = [ours["scenes"][s]["mean_iou"] > theirs["scenes"][s]["mean_iou"] for ours, theirs in shared for s in scenes]
        mean = f"{statistics.fmean(lead):+.3f}" + (f" ± {statistics.stdev(lead):.3f}" if len(lead) > 1 else "")
        ahead, ahead_by_scene = sum(value > 0 for value in lead), sum(by_scene)
        yield row(SYSTEMS[name].title, len(lead), mean, f"{ahead} of {len(lead)}", f"{ahead_by_scene} of {len(by_scene)}")


def iter_tables(folder: Path, systems: Sequence[str], classes: Sequence[str]) -> Iterator[str]:
    found = read_figures(folder, systems)
    if not found:
        yield f"no figures in {folder}"
        return
    scenes = sorted({scene for seeds in found.values() for run in seeds.values() for scene in run["scenes"]})
    yield from iter_scores(found, classes)
    yield ""
    yield from iter_scene_scores(found, scenes)
    for rival in ("unet", "unet_long"):
        if rival in found and len(found) > 1:
            yield ""
            yield from iter_differences(found, scenes, rival)


def override(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value  # a bare word is a string


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--systems", nargs="+", choices=list(SYSTEMS), default=["global", "local", "one_way", "bidirectional", "unet"]
    )
    parser.add_argument("--set", dest="overrides", type=override, nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    parser.add_argument("--table", action="store_true", help="train nothing: the tables of what there is")
    return parser.parse_args()


def main() -> None:
    arguments = read_arguments()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)  # lightning 2.6 with torch 2.15
    warnings.filterwarnings("ignore", category=UserWarning, module="lightning")  # about workers, and what we froze
    config = read_config(arguments.config, dict(arguments.overrides))
    config = replace(config, model=replace(config.model, sharing=Sharing.BIDIRECTIONAL))
    if not arguments.table:
        arguments.out.mkdir(parents=True, exist_ok=True)
        comparison = Comparison(config, arguments.data, arguments.out)
        check_settings(comparison)
        for seed in arguments.seeds:
            for name in arguments.systems:
                if not comparison.score_path(name, seed).exists():
                    comparison.run(name, seed)
    print("\n".join(iter_tables(arguments.out, arguments.systems, config.legend.names)))


if __name__ == "__main__":
    main()
