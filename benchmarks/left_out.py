"""Train one model of buildings for each country that is left out, to adapt it to that country later.

    OMP_NUM_THREADS=1 python benchmarks/left_out.py FOLDER --data DATA [--only tz np] [--globals FOLDER] [--estimate]

The recipe is that of ``examples/configs/buildings.toml``, with fewer steps, on the scenes of all other countries and the
generated ones. FOLDER gets ``without_<place>.safetensors``, each scored on what it has never seen: all scenes of its country.
What is there already is left as it is, and a training that was cut off goes on. ``--globals`` takes the global branches of
``without_<place>.global.safetensors``, where an earlier training has left them. ``--estimate`` says what it costs, and trains
nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import geoglnet
from geoglnet.datasets.sources import ImagesSource, RastersSource, SourceConfig
from geoglnet.models.manifest import read_manifest
from geoglnet.training.savepoint import savepoint_path
from geoglnet.training.train_config import TrainConfig, read_config

CONFIG = Path(__file__).parents[1] / "examples/configs/buildings.toml"
PLACES = {"tz": "zanzibar_tz", "ug": "kampala_ug", "ph": "catanduanes_ph", "np": "banepa_np"}  # how names of files begin
COUNTRIES = {"tz": "Tanzania", "ug": "Uganda", "ph": "the Philippines", "np": "Nepal"}
GLOBAL_STEPS, LOCAL_STEPS = 400, 250
STEP_S = {"global": 0.55, "local": 3.0}  # CPU seconds of one thread with bfloat16, two trainings side by side
REST_S = 90  # imports, decoding, scores


def sources_of(source: SourceConfig, countries: list[str]) -> Iterator[SourceConfig]:
    """Yield the parts of a source that lie in some countries; generated scenes lie in all."""
    if not isinstance(source, (ImagesSource, RastersSource)):
        yield source
        return
    for country in countries:
        patterns = {"images": source.images, "polygons": source.polygons}
        yield replace(source, **{name: pattern.replace("*", f"{PLACES[country]}_*") for name, pattern in patterns.items()})


def without(country: str, config: TrainConfig, data: Path) -> TrainConfig:
    """Configure the training that does not see a country, and its scores on all that there is of it."""
    others = [code for code in COUNTRIES if code != country]
    train = tuple(part for source in config.train for part in sources_of(source, others))
    seen = (*config.train, *config.validation)
    unseen = (part for s in seen if isinstance(s, (ImagesSource, RastersSource)) for part in sources_of(s, [country]))
    held_out = tuple(part for part in unseen if any(data.glob(part.images)))
    split = f"train: {', '.join(COUNTRIES[code] for code in others)}, and generated scenes; validation: {COUNTRIES[country]}"
    name = f"{config.name}-without-{country}"
    return replace(config, name=name, train=train, validation=held_out, data={**config.data, "split": split})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, default=Path())
    parser.add_argument("--only", nargs="+", choices=COUNTRIES, default=list(COUNTRIES))
    parser.add_argument("--global-steps", type=int, default=GLOBAL_STEPS)
    parser.add_argument("--local-steps", type=int, default=LOCAL_STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--globals", type=Path)
    parser.add_argument("--estimate", action="store_true")
    args = parser.parse_args()
    each = args.global_steps * STEP_S["global"] + args.local_steps * STEP_S["local"] + REST_S
    paths = {code: args.folder / f"without_{PLACES[code].partition('_')[0]}.safetensors" for code in args.only}
    todo = {code: path for code, path in paths.items() if not (path.exists() and read_manifest(path).metrics)}
    print(f"{len(todo)} models, {each / 3600:.2f} core-hours each, {len(todo) * each / 3600:.2f} in all", flush=True)
    steps = {"optim.global_steps": args.global_steps, "optim.local_steps": args.local_steps, "optim.seed": args.seed}
    config = read_config(CONFIG, steps)
    if args.estimate:
        return
    args.folder.mkdir(parents=True, exist_ok=True)
    for code, path in todo.items():
        resume = path.exists() or savepoint_path(path).exists()
        branch = (args.globals or Path()) / path.with_suffix(".global.safetensors").name
        given = {"global_branch_from": branch} if args.globals and branch.exists() else {}
        trained = geoglnet.train(without(code, config, args.data), path, folder=args.data, resume=resume, **given)
        print(f"{path}: IoU {trained.manifest.metrics['total']}", flush=True)


if __name__ == "__main__":
    main()
