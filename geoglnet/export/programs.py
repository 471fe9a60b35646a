"""Write a model as one file that other programs run: ONNX, or a program of ``torch.export``."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from geoglnet.config import suggestion
from geoglnet.errors import ConfigError, OutputError
from geoglnet.export.parity import LEAST_EQUAL, Parity, Values, parity
from geoglnet.export.region_graph import RegionGraph, planned_region
from geoglnet.models.checkpoint import load_checkpoint
from geoglnet.models.checks import trusted
from geoglnet.models.deepness import deepness_metadata
from geoglnet.models.foreign.items import item_path_of
from geoglnet.models.manifest import Manifest, model_digest
from geoglnet.models.mlm import ImageProgram, mlm_item, mlm_properties
from geoglnet.models.network import Network
from geoglnet.models.shipped import model_path
from geoglnet.optional import needed
from geoglnet.output import OutputFile, refuse_inputs, refuse_sharing
from geoglnet.progress import Progress, SilentProgress
from geoglnet.types import StrPath

OPSETS = (18, 19, 20, 21)
IR_VERSION = 8  # of opset 18: what runtimes of 2023 read
FORMATS = (".onnx", ".pt2")
PRECISIONS = ("float32", "float16")
_MOST_IMAGES = 1024


@dataclass(frozen=True, slots=True)
class ExportConfig:
    """What can be chosen about an exported model.

    Args:
        size: side of the image that it takes, in pixels; the model's region, or its patch where it sees patches only.
        precision: ``"float32"``, or ``"float16"`` for half the size; images and probabilities are float32 either way.
        opset: of ONNX.

    Raises:
        ConfigError: a value that cannot be used.
    """

    size: int | None = None
    precision: str = "float32"
    opset: int = OPSETS[0]

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigError(f"unknown precision {self.precision!r}{suggestion(self.precision, PRECISIONS)}")
        if self.opset not in OPSETS:
            raise ConfigError(f"opset {self.opset} is none that is written; use {OPSETS[0]} to {OPSETS[-1]}")


@dataclass(frozen=True, slots=True)
class Exported:
    """What :func:`export_model` wrote.

    Args:
        path: of the model.
        item_path: of its description as a STAC item.
        program: sizes, precision, opset.
        parity: how far it is from the network.
    """

    path: Path
    item_path: Path
    program: ImageProgram
    parity: Parity


def export_model(
    model: StrPath,
    path: StrPath,
    config: ExportConfig | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Exported:
    """Write a model as one file that other programs run, and a STAC item (MLM) beside it that describes it.

    The file takes one image, a region at the model's resolution with values from 0 to 1, and gives class probabilities of its
    pixels; normalization, the overview, patches and blending are inside. It is compared with the predictor before it gets its
    name.

    >>> done = geoglnet.export_model("buildings", "buildings.onnx")  # doctest: +SKIP

    Args:
        model: name of a shipped model, or a ``.safetensors`` file.
        path: ``.onnx``, which Deepness, GeoDeep and ONNX Runtime open (needs ``geoglnet[onnx]``), or ``.pt2``.
        config: size, precision, opset.
        overwrite: replace existing files.
        progress: told of the steps.

    Returns:
        What was written, and how near its results are to the predictor's.

    Raises:
        ConfigError: another format, a network that cannot be exported, or one whose export differs from it.
        ModelNotFoundError: no such model.
        CheckpointError: the model file cannot be used.
        OutputExistsError: a file exists.
        OutputError: it cannot be written.
        ModuleNotFoundError: ONNX is not installed.
    """
    config, progress = config or ExportConfig(), progress or SilentProgress()
    target = Path(path)
    if target.is_dir():
        raise OutputError(f"{target} is a folder; give a file name")
    suffix = target.suffix.lower()
    if suffix not in FORMATS:
        raise ConfigError(f"{target.name}: models are exported as {' or '.join(FORMATS)}; let the name end in one of them")
    source = model_path(str(model))
    files = [OutputFile(target, overwrite), OutputFile(item_path_of(target), overwrite)]
    refuse_sharing(files)
    refuse_inputs(files, [("the model", source)])
    if suffix == ".onnx":
        for library in ("onnx", "onnxscript", "onnxruntime"):
            needed(library, "onnx")
    network, manifest = load_checkpoint(source)
    program = _planned(network, manifest, config, suffix)
    progress.plan("export", 3, "step")
    ready = copy.deepcopy(network.for_inference())  # half precision would change the network itself
    graph = RegionGraph(ready, manifest, program.side, getattr(torch, program.precision)).eval()
    traced = _traced(graph, program, len(manifest.bands))
    progress.advance()
    with files[0] as part_path:
        if suffix == ".onnx":
            _write_onnx(traced, part_path, manifest, program, model_digest(source))
        else:
            texts = {"mlm.json": json.dumps(mlm_properties(manifest, program))}
            torch.export.save(traced, part_path, extra_files=texts)
        progress.advance()
        found = parity(network, manifest, program.side, _runner(part_path, suffix), batch=program.batch)
        _check(found, program, target)
        progress.advance()
        size, digest = part_path.stat().st_size, _digest(part_path)
        with files[1] as item_path:
            item = mlm_item(manifest, target.name, program=program, sha256=digest, size=size)
            item_path.write_text(json.dumps(item, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return Exported(target, files[1].path, program, found)


def _planned(network: Network, manifest: Manifest, config: ExportConfig, suffix: str) -> ImageProgram:
    region = manifest.region
    side = config.size or (region.region_size if network.sees_overviews else region.patch_size)
    planned_region(manifest, side)
    # Neighboring images of a network that sees regions share what regions share, others what patches do.
    overlap = 2 * region.margin if network.sees_overviews else region.patch_overlap
    return ImageProgram(
        side,
        min(overlap, side // 2),
        batch=1 if network.has_two_rounds else None,  # the merged maps of several regions would be one sum
        precision=config.precision,
        opset=config.opset if suffix == ".onnx" else None,
    )


def _traced(graph: RegionGraph, program: ImageProgram, bands: int) -> Any:
    image = torch.zeros(program.batch or 2, bands, program.side, program.side)
    batches = None if program.batch else ({0: torch.export.Dim("batch", min=1, max=_MOST_IMAGES)},)
    with torch.no_grad(), trusted(), _quiet():
        traced = torch.export.export(graph, (image,), dynamic_shapes=batches)
    for node in traced.graph.nodes:  # names of folders here are nobody's business
        node.meta.pop("stack_trace", None)
    return traced


def _write_onnx(traced: Any, path: Path, manifest: Manifest, program: ImageProgram, digest: str) -> None:
    onnx = needed("onnx", "onnx")
    with torch.no_grad(), _quiet():
        found: Any = torch.onnx.export(
            traced,
            dynamo=True,
            opset_version=program.opset,
            input_names=[program.input_name],
            output_names=[program.output_name],
        )
    proto = found.model_proto
    proto.ir_version = min(proto.ir_version, IR_VERSION)
    proto.producer_name, proto.producer_version = "geoglnet", ""
    proto.doc_string = f"{manifest.name}: {', '.join(manifest.legend.names)} at {manifest.resolution_m:g} m"
    _tidy(proto, program)
    texts = deepness_metadata(manifest, program) | {
        "mlm": json.dumps(mlm_properties(manifest, program)),
        "geoglnet_model": f"{manifest.name} sha256:{digest}",
    }
    onnx.helper.set_model_props(proto, texts)
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())


def _tidy(proto: Any, program: ImageProgram) -> None:
    """Name the batch, and leave out where in our files each node came from: half of the graph's text."""
    for value in (*proto.graph.input, *proto.graph.output):
        if program.batch is None:
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
        del value.metadata_props[:]
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.ClearField("doc_string")
    for part in (*proto.graph.value_info, *proto.graph.initializer):
        del part.metadata_props[:]


def _runner(path: Path, suffix: str) -> Any:
    if suffix == ".onnx":
        runtime = needed("onnxruntime", "onnx")
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return lambda images: session.run(None, {session.get_inputs()[0].name: images})[0]

    with _quiet():
        module = torch.export.load(path).module()

    def run(images: Values) -> Values:
        with torch.no_grad():
            found: Values = module(torch.from_numpy(images)).numpy()
        return found

    return run


def _check(found: Parity, program: ImageProgram, path: Path) -> None:
    least = LEAST_EQUAL[program.precision]
    if not found.equal_labels >= least:  # NaN is refused too
        raise ConfigError(
            f"{path.name} in {program.precision} differs from its network: {found}, at least {least:.2%} must be equal; "
            "nothing was written" + ("" if program.precision == "float32" else ", export it in float32")
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what torch's exporter tells its developers to itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
