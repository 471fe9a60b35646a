"""ONNX files of anybody: what they are, read without running them, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from geoglnet.errors import CheckpointError
from geoglnet.models.foreign.described import Facts, bands_of, facts_of_deepness, facts_of_mlm
from geoglnet.models.foreign.items import facts_beside
from geoglnet.models.manifest import Manifest
from geoglnet.optional import needed
from geoglnet.plain import shortened

_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
_PASSED = ("Identity", "Cast", "Resize", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Clip", "Slice", "Pad", "Upsample")
_LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # whose results are no probabilities, whatever they are
_FLOATS = {1: "float32", 10: "float16"}  # by TensorProto.DataType
_LARGEST_TILE = 8192


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """What an ONNX file is, as far as it can be seen without running it.

    Args:
        path: of the file.
        facts: of the model.
        batch: images at a time; ``None`` for any number.
        result_size: side of the result of an image; ``None`` where the file does not say.
        results: channels of the result.
        opset: of its operations.
        is_fixed: whether it takes images of one size only.
        dtype: of its images.
        head: ``"logits"`` where its last operation cannot give probabilities; else ``None``.
    """

    path: Path
    facts: Facts
    batch: int | None
    result_size: int | None
    results: int
    opset: int
    is_fixed: bool
    dtype: str
    head: str | None

    @property
    def ring(self) -> int:
        """Pixels along an image's border that get no result, as those of networks that fill up nothing."""
        tile, size = self.facts.tile_size, self.result_size
        if not tile or not size or size >= tile or tile % size == 0:
            return 0
        return -(-(tile - size) // 2)

    @property
    def manifest(self) -> Manifest:
        """What the predictor works with."""
        return self.facts.manifest("onnx", self.ring)


def read_onnx(path: Path, *, is_described: bool = True) -> OnnxFile:
    """Read what an ONNX file says about itself; nothing of it is run, and no other file is opened.

    Args:
        path: of the file.
        is_described: whether a description beside it counts.

    Raises:
        CheckpointError: it is damaged, or no network of one image that segments.
        ModuleNotFoundError: ONNX is not installed.
    """
    onnx = needed("onnx", "onnx")
    decode_error = needed("google.protobuf.message", "onnx").DecodeError
    try:
        proto = onnx.load_model(path, load_external_data=False)
    except (decode_error, ValueError, TypeError, OSError) as error:
        raise CheckpointError(f"{path} is not a whole ONNX file ({_line(error)}); copy or download it again") from error
    name = str(path)
    if not proto.graph.node:
        raise CheckpointError(f"{name} is not a whole ONNX file (no operations); copy or download it again")
    _check_operations(name, proto, onnx)
    _check_weights(path, proto, onnx)
    image, result = _image(name, proto), _result(name, proto)
    channels, tile = _sides(name, image)
    results = result[1]
    if not isinstance(results, int) or not 1 <= results <= 255:
        raise CheckpointError(f"{name} gives results of the shape {_shown(result)}; (batch, classes, height, width) is read")
    facts = (facts_beside(path) if is_described else None) or _facts(name, proto, channels, results)
    if facts.bands is None:
        facts = replace(facts, bands=bands_of(name, channels))
    if facts.bands is not None and len(facts.bands) != channels:
        raise CheckpointError(
            f"{name} takes images of {channels} bands and is described with {len(facts.bands)} ({facts.bands})"
        )
    if tile and facts.tile_size not in (None, tile):
        raise CheckpointError(f"{name} takes images of {tile} px and is described with {facts.tile_size}")
    if facts.classes is not None and len(facts.classes) != max(2, results):
        raise CheckpointError(f"{name} gives {results} classes and is described with {len(facts.classes)}")
    size = result[2] if isinstance(result[2], int) else None
    batch = image[1][0] if isinstance(image[1][0], int) else None
    facts = replace(facts, tile_size=tile or facts.tile_size)
    opset = max((one.version for one in proto.opset_import if one.domain in ("", "ai.onnx")), default=1)
    return OnnxFile(path, facts, batch, size, results, opset, tile is not None, _FLOATS[image[0]], _head(proto))


def _facts(name: str, proto: Any, channels: int, results: int) -> Facts:
    texts = {text.key: text.value for text in proto.metadata_props}
    if "mlm" not in texts:
        return facts_of_deepness(name, texts, channels, results)
    try:
        described = json.loads(texts["mlm"])
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{name} has a description (mlm) that cannot be read ({_line(error)})") from error
    if not isinstance(described, Mapping):
        raise CheckpointError(f"{name} has a description (mlm) that is no table")
    return facts_of_mlm(name, described)


def _check_operations(name: str, proto: Any, onnx: Any) -> None:
    newest = onnx.defs.onnx_opset_version()
    for opset in proto.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version > newest:
            raise CheckpointError(f"{name} has opset {opset.version}, known here up to {newest}; upgrade onnx and onnxruntime")
    own = {(function.domain, function.name) for function in proto.functions}
    for node in _nodes(proto):
        if node.domain not in _DOMAINS and (node.domain, node.op_type) not in own:
            raise CheckpointError(
                f"{name} uses {shortened(node.op_type)} of {shortened(node.domain)}, which ONNX does not have; "
                "export it with standard operations"
            )


def _nodes(proto: Any) -> Iterator[Any]:
    """Generate all nodes, those in branches, loops and functions too."""
    waiting = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    while waiting:
        node = waiting.pop()
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                waiting += graph.node


def _tensors(proto: Any) -> Iterator[Any]:
    graphs = [proto.graph]
    for node in _nodes(proto):
        for attribute in node.attribute:
            graphs += [attribute.g, *attribute.graphs]
            yield from (attribute.t, *attribute.tensors, attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
    for graph in graphs:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)


def _check_weights(path: Path, proto: Any, onnx: Any) -> None:
    """Refuse weights outside of the file's folder: an address, another folder, a link to one."""
    folder = path.resolve().parent
    for tensor in _tensors(proto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        place = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        target = (folder / place).resolve() if place and "\0" not in place else folder
        is_inside = "://" not in place and target.parent.is_relative_to(folder) and target != folder
        if not is_inside:
            raise CheckpointError(f"{path} takes weights from {shortened(place)}, outside of its folder; save it as one file")
        if not target.is_file():
            raise CheckpointError(f"{path} takes weights from {shortened(place)}, which is not beside it; copy that file too")


def _dims(value: Any) -> tuple[int | str | None, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else dim.dim_param or None for dim in dims)


def _shown(dims: tuple[Any, ...]) -> str:
    return "(" + ", ".join("?" if dim is None else str(dim)[:20] for dim in dims) + ")"


def _image(name: str, proto: Any) -> tuple[int, tuple[int | str | None, ...]]:
    """Find the type and the shape of the only input."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(value.name[:40] for value in inputs[:4])
        raise CheckpointError(f"{name} has {len(inputs)} inputs ({names}); networks of one image are run")
    kind = inputs[0].type.tensor_type.elem_type
    if kind not in _FLOATS:
        words = needed("onnx", "onnx").TensorProto.DataType.Name(kind).lower() if kind else "no tensors"
        raise CheckpointError(f"{name} takes images of {words}, as quantized models do; export it with float32 images")
    dims = _dims(inputs[0])
    if len(dims) != 4:
        raise CheckpointError(f"{name} takes images of the shape {_shown(dims)}; (batch, bands, height, width) is read")
    return kind, dims


def _sides(name: str, image: tuple[int, tuple[int | str | None, ...]]) -> tuple[int, int | None]:
    """Find the bands and the side of the images; no side where any will do."""
    _, channels, height, width = image[1]
    if not isinstance(channels, int) or (isinstance(width, int) and width <= 4 < channels):
        raise CheckpointError(f"{name} takes images of the shape {_shown(image[1])}; (batch, bands, height, width) is read")
    if isinstance(height, int) != isinstance(width, int) or (isinstance(height, int) and height != width):
        raise CheckpointError(f"{name} takes images of {_shown(image[1][2:])} px; only squares are predicted with")
    if isinstance(height, int) and not 32 <= height <= _LARGEST_TILE:
        raise CheckpointError(f"{name} takes images of {height} px; 32 to {_LARGEST_TILE} are predicted with")
    return channels, height if isinstance(height, int) else None


def _result(name: str, proto: Any) -> tuple[int | str | None, ...]:
    """Find the shape of the only result, with a channel where it has none."""
    if len(proto.graph.output) != 1:
        names = ", ".join(value.name[:40] for value in proto.graph.output[:4])
        raise CheckpointError(f"{name} gives {len(proto.graph.output)} results ({names}); keep the one to map")
    if proto.graph.output[0].type.tensor_type.elem_type not in _FLOATS:
        raise CheckpointError(
            f"{name} gives no float32 or float16; export it without its last argmax, and without quantization"
        )
    dims = _dims(proto.graph.output[0])
    dims = (dims[0], 1, *dims[1:]) if len(dims) == 3 else dims
    if len(dims) != 4:
        raise CheckpointError(f"{name} gives results of the shape {_shown(dims)}; (batch, classes, height, width) is read")
    return dims


def _head(proto: Any) -> str | None:
    """Look back from the result, through operations that move values, to the one that made them."""
    makers = {output: node for node in proto.graph.node for output in node.output}
    node = makers.get(proto.graph.output[0].name)
    for _ in range(16):
        if node is None or node.op_type not in _PASSED or not node.input:
            break
        node = makers.get(node.input[0])
    return "logits" if node is not None and node.op_type in _LINEAR else None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
