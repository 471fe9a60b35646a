"""A study: systems trained and scored over seeds in one folder, where everything is kept and nothing is done twice."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from geoglnet.config import to_plain
from geoglnet.errors import ConfigError
from geoglnet.message import Keyword
from geoglnet.models.backbone import is_name_of_weights
from geoglnet.models.checkpoint import load_checkpoint
from geoglnet.output import OutputFile
from geoglnet.paper.systems import System, find_system
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.progress import Progress, SilentProgress
from geoglnet.training.fit import Start, fit
from geoglnet.training.savepoint import savepoint_path
from geoglnet.training.scoring import score
from geoglnet.training.train_config import CHANGING_NO_WEIGHT, TrainConfig

Figures = Mapping[str, Any]

_PARTS = ("model", "region", "sample", "augment", "optim")


@dataclass(frozen=True, slots=True)
class Study:
    """What is compared, on what, and where it is kept.

    Every system is trained by ``fit`` and scored by ``score``, as with ``geoglnet train`` and ``evaluate``: the same scenes,
    samples, losses, optimizer and blending. What begins with another system's branches takes that system's checkpoint of the
    same seed. Checkpoints and scores lie in the folder under the system's name and seed; a training that was cut off goes on.

    Args:
        config: training configuration of the GLNet that all systems are changes of.
        data: folder that its patterns start from.
        folder: for checkpoints and figures; made.
        checkpoints: of systems that are not to be trained, by system name; ``{seed}`` in a file's name is the seed.
        device: to score and measure on.
        progress: receiver of steps and of what is being done.
    """

    config: TrainConfig
    data: Path
    folder: Path
    checkpoints: Mapping[str, Path] = field(default_factory=dict)
    device: str = "auto"
    progress: Progress = SilentProgress()  # noqa: RUF009 - it has no state

    def checkpoint(self, system: System, seed: int) -> Path:
        """Return the path of a system's checkpoint for a seed."""
        path = self.checkpoints.get(system.name, self.folder / f"{system.name}.{{seed}}.safetensors")
        return path.with_name(path.name.replace("{seed}", str(seed)))

    def trained(self, system: System, seed: int) -> Path:
        """Return the checkpoint of a system; train it first if it is missing, as well as the system it starts from."""
        path = self.checkpoint(system, seed)
        if path.exists():
            return path
        if system.name in self.checkpoints:
            raise ConfigError(f"no checkpoint {path} of {system.name}; check " + Keyword("checkpoints"))
        # fit refuses a savepoint that it was not asked to resume; a study goes on by itself.
        start = Start(resume=savepoint_path(path).exists())
        if system.begins_with:
            before = self.trained(find_system(system.begins_with), seed)
            is_global = system.begins_with == "global"
            start = replace(
                start, global_branch_from=before if is_global else None, branches_from=None if is_global else before
            )
        self.progress.log(f"trains {system.name}, seed {seed}")
        started = time.process_time()
        fit(self._config(system, seed), self.data, path, start=start, progress=self.progress)
        # Of this process, and of the last part only where the training was cut off.
        write_json(path.with_suffix(".cost.json"), {"training_cpu_s": round(time.process_time() - started, 1)})
        return path

    def scored(self, system: System, seed: int) -> Figures:
        """Return the scores of a system; train and score it first if they are missing."""
        path = self.folder / f"{system.name}.{seed}.json"
        if path.exists():
            return read_json(path)
        checkpoint = self.trained(system, seed)
        network, manifest = load_checkpoint(checkpoint)
        self.progress.log(f"scores {system.name}, seed {seed}")
        predict = PredictConfig(device=self.device, coarse_to_fine=system.is_coarse_to_fine)
        evaluation = score(network, manifest, self.config.validation, self.data, config=predict, progress=self.progress)
        cost = checkpoint.with_suffix(".cost.json")
        figures = {
            "system": system.name,
            "seed": seed,
            "steps": self.steps(system),
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            **(read_json(cost) if cost.exists() else {}),
            **evaluation.to_dict(),
        }
        write_json(path, figures)
        return figures

    def known(self, system: System, seed: int) -> Figures | None:
        """Return the scores of a system if they exist."""
        path = self.folder / f"{system.name}.{seed}.json"
        return read_json(path) if path.exists() else None

    def steps(self, system: System) -> int:
        """Count the optimizer steps that a system's weights have seen in all stages."""
        own: int = getattr(system.configured(self.config).optim, f"{system.own_stage.value}_steps")
        return own + (self.steps(find_system(system.begins_with)) if system.begins_with else 0)

    def check_settings(self) -> None:
        """Refuse a folder that holds figures of another configuration; make it and store the configuration if it is new.

        Raises:
            ConfigError: they are not.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        config, path = self.config, self.folder / "settings.json"
        parts = {name: to_plain(getattr(config, name)) for name in _PARTS}
        for name in CHANGING_NO_WEIGHT:
            parts["optim"].pop(name)
        sources = {name: [to_plain(source) for source in getattr(config, name)] for name in ("train", "validation")}
        names = {"name": config.name, "classes": list(config.legend.names), "resolution_m": config.resolution_m}
        # Through JSON once, because that is what it is compared with: tuples are lists there.
        plain = json.loads(json.dumps({**names, **parts, **sources}, default=str))
        if path.exists() and (other := _differing(read_json(path), plain)):
            raise ConfigError(
                f"{self.folder} holds figures of another configuration (other {', '.join(other)}); give the same, or another -o"
            )
        # Even if nothing differs: settings that an older geoglnet did not know are added.
        write_json(path, plain)

    def _config(self, system: System, seed: int) -> TrainConfig:
        config = system.configured(self.config, seed)
        weights = config.optim.backbone_weights
        if not weights and self.config.optim.backbone_weights:
            self.progress.warn(f"{system.name} starts from random weights: there are none of {config.model.backbone}")
        elif weights and not is_name_of_weights(weights) and not (self.data / weights).is_file():
            if weights == self.config.optim.backbone_weights:
                return config  # its own error says what is missing
            self.progress.warn(f"{system.name} starts from random weights: no file {self.data / weights}")
            return replace(config, optim=replace(config.optim, backbone_weights=""))
        return config


def _differing(old: Figures, new: Figures) -> list[str]:
    """List the parts of two configurations that differ; settings unknown to an older geoglnet count as defaults."""

    def is_other(key: str) -> bool:
        then, now = old.get(key), new[key]
        if isinstance(then, dict) and isinstance(now, dict):
            return any(then[name] != now.get(name) for name in then)
        return bool(then != now)

    return sorted(filter(is_other, new))


def read_json(path: Path) -> Figures:
    """Read figures that were kept."""
    figures: Figures = json.loads(path.read_text(encoding="utf-8"))
    return figures


def write_json(path: Path, figures: Figures) -> None:
    """Keep figures."""
    with OutputFile(path, overwrite=True) as part_path:
        part_path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
