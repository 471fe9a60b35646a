"""The floors of docs/design.md, checked on the source: imports point down only, and each library stays in its room."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from statistics import median

import numpy as np
import pytest

import geoglnet
from tests.rasters import noise, write_raster

PACKAGE = Path(geoglnet.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

FLOORS: dict[str, float] = {
    **dict.fromkeys(("errors", "message", "types", "progress", "filenames", "plain", "escaping", "optional"), 0),
    **dict.fromkeys(("windows", "blending", "legend", "bands", "config", "existing", "output", "engines"), 1),
    **dict.fromkeys(("models", "losses", "metrics", "raster", "vector"), 2),
    "synthetic": 2.5,
    "datasets": 3,
    **dict.fromkeys(("training", "prediction", "paper", "torchgeo", "adaptation", "cluster", "export"), 4),
    **dict.fromkeys(("api", "cli", "__main__", "__init__"), 5),
}
TORCH_SIDE, GEO_SIDE = {"models", "losses", "metrics"}, {"raster", "vector"}
NO_TORCH = GEO_SIDE | {
    "errors",
    "message",
    "types",
    "progress",
    "filenames",
    "plain",
    "existing",
    "output",
    "windows",
    "blending",
    "optional",
    "synthetic",
    "legend",
    "bands",
    "config",
    "cli",
    "api",
    "__init__",
}
ROOMS = {  # library: where it may be imported
    "torchgeo": {"torchgeo"},
    "lightning": {"training", "datasets", "torchgeo", "adaptation"},
    "click": {"cli"},
    "geopandas": {"vector", "api", "torchgeo"},
    "numba": {"vector"},
    "ray": {"engines"},
}
GEO_LIBRARIES = {"rasterio", "fiona", "geopandas", "shapely", "pyogrio", "pyproj"}
SLOW = {"torchvision", "scipy", "pyogrio", "geopandas", "geoglnet.vector.polygonizer", "geoglnet.vector.polygon_reader"}
"""What takes half a second or more to import while most runs need nothing of it; functions may import it."""
BANNED_NAMES = {"utils", "helpers", "common", "misc", "core", "base", "manager"}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@cache
def nodes_of(path: Path) -> tuple[tuple[ast.AST, bool], ...]:
    """Every node of a file, with whether it is run when the file is imported: it stands in no function."""
    found: list[tuple[ast.AST, bool]] = []
    todo: list[tuple[ast.AST, bool]] = [(parsed(path), True)]
    while todo:
        node, at_top = todo.pop()
        found.append((node, at_top))
        inside = at_top and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        todo += ((child, inside) for child in ast.iter_child_nodes(node))
    return tuple(found)


@cache
def imports_of(path: Path) -> tuple[tuple[str, bool], ...]:
    """Every imported module of a file, with whether it is imported when the file is."""
    found: list[tuple[str, bool]] = []
    for node, at_top in nodes_of(path):
        if isinstance(node, ast.Import):
            found += ((alias.name, at_top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            inside = [f"geoglnet.{alias.name}" for alias in node.names] if node.module == "geoglnet" else [node.module or ""]
            found += ((name, at_top) for name in inside)
    return tuple(found)


def own_rooms(path: Path) -> set[str]:
    """Rooms of ours that a file imports from, anywhere in it."""
    return {name.split(".")[1] for name, _ in imports_of(path) if name.startswith("geoglnet.")} & FLOORS.keys()


def libraries(path: Path, *, top_only: bool = False) -> set[str]:
    return {name.split(".")[0] for name, at_top in imports_of(path) if at_top or not top_only}


def module_name(path: Path) -> str:
    return ".".join(("geoglnet", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


NAMES = {module_name(path) for path in MODULES}


def modules_imported(path: Path) -> set[str]:
    """Files of ours that a file imports, anywhere in it."""
    found = set()
    for node, _ in nodes_of(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} & NAMES or {node.module}
    return found & NAMES


def circles(needed: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups that cannot be put into an order in which each comes after what it needs."""
    reached: dict[str, set[str]] = {}
    for start in needed:
        seen, todo = set[str](), list(needed[start])
        while todo:
            if (name := todo.pop()) not in seen:
                seen.add(name)
                todo += needed.get(name, ())
        reached[start] = seen
    groups = {tuple(sorted(b for b in reached[a] if a in reached.get(b, ()))) for a in needed if a in reached[a]}
    return [list(group) for group in sorted(groups)]


def remarks(rule: Callable[[Path], Iterator[str]]) -> list[str]:
    """What breaks a rule, by file: a rule is one test, and says all at once."""
    return [f"{path.relative_to(PACKAGE)}: {remark}" for path in MODULES for remark in rule(path)]


def test_imports_point_down_only() -> None:
    def rule(path: Path) -> Iterator[str]:
        room = room_of(path)
        if room not in FLOORS:
            yield "stands on no floor"
        elif room != "__init__":
            yield from (f"imports {other}, which is above" for other in own_rooms(path) if FLOORS[other] > FLOORS[room])

    assert not remarks(rule)


def test_the_halves_of_floor_2_do_not_meet() -> None:
    below = {"config", "bands", "legend", "errors", "message", "types", "progress", "plain", "output", "optional"}

    def rule(path: Path) -> Iterator[str]:
        room, rooms = room_of(path), own_rooms(path)
        if room in TORCH_SIDE:
            yield from (f"imports {name}" for name in libraries(path) & GEO_LIBRARIES | rooms - TORCH_SIDE - below)
        if room in GEO_SIDE:
            yield from (f"imports {name}" for name in rooms & TORCH_SIDE)

    assert not remarks(rule)


def test_no_file_needs_itself_through_others() -> None:
    needed = {module_name(path): {name for name in modules_imported(path) if name != module_name(path)} for path in MODULES}
    assert not circles(needed)


def test_no_room_needs_another_of_its_floor_that_needs_it() -> None:
    needed: dict[str, set[str]] = {room: set() for room in FLOORS}
    for path in MODULES:
        needed[room_of(path)] |= own_rooms(path) - {room_of(path), "__init__"}
    assert not circles({room: {other for other in found if FLOORS[other] == FLOORS[room]} for room, found in needed.items()})


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == [["b", "c"]]
    assert not circles({"a": {"b", "c"}, "b": {"c"}, "c": set()})


def test_nothing_inside_imports_the_package_itself() -> None:
    """``from geoglnet import predict`` would load a door, and need what needs it."""

    def rule(path: Path) -> Iterator[str]:
        for node, _ in nodes_of(path):
            if isinstance(node, ast.ImportFrom) and node.module == "geoglnet":
                names = {alias.name for alias in node.names} - FLOORS.keys()
                yield from (f"{node.lineno}: from geoglnet import {name}" for name in names)
            if isinstance(node, ast.Import) and any(alias.name == "geoglnet" for alias in node.names):
                yield f"{node.lineno}: import geoglnet"

    assert not remarks(rule)


def test_no_torch_at_the_top_of_doors_words_and_the_geo_side() -> None:
    def rule(path: Path) -> Iterator[str]:
        if room_of(path) in NO_TORCH:
            found = libraries(path, top_only=True) & {"torch", "torchvision", "lightning", "torchgeo"}
            yield from (f"imports {name}" for name in found)

    assert not remarks(rule)


def test_each_library_stays_in_its_rooms() -> None:
    def rule(path: Path) -> Iterator[str]:
        found = libraries(path)
        yield from (f"imports {library}" for library, rooms in ROOMS.items() if library in found and room_of(path) not in rooms)

    assert not remarks(rule)


def test_torchgeo_is_read_in_one_file() -> None:
    """So that what changes between its releases is met in one place; its base classes are imported where they are derived."""
    importers = [path.name for path in MODULES if "torchgeo" in libraries(path)]
    assert importers == ["adapter.py", "glnet_datamodule.py", "glnet_task.py"]


def test_imports_stand_at_the_top_except_in_doors_and_of_slow_libraries() -> None:
    def rule(path: Path) -> Iterator[str]:
        if room_of(path) not in {"cli", "api", "__init__"}:
            inside = (name for name, at_top in imports_of(path) if not at_top and not {name, name.split(".")[0]} & SLOW)
            yield from (f"imports {name} in a function" for name in inside)

    assert not remarks(rule)


def test_only_doors_print_and_nobody_catches_everything_or_asserts() -> None:
    def rule(path: Path) -> Iterator[str]:
        for node, _ in nodes_of(path):
            if isinstance(node, ast.Assert):
                yield f"{node.lineno}: assert in library code"
            is_print = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
            if is_print and room_of(path) != "cli":
                yield f"{node.lineno}: print outside cli"
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type else ""
                raises_again = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
                if not raises_again and caught in {"", "Exception", "BaseException"}:
                    yield f"{node.lineno}: catches everything"

    assert not remarks(rule)


def test_only_the_command_line_names_its_options() -> None:
    """A message of the library has a :class:`~geoglnet.message.Keyword`, which each door spells in its own way."""

    def rule(path: Path) -> Iterator[str]:
        nodes = [node for node, _ in nodes_of(path)] if room_of(path) != "cli" else []
        documented = (node for node in nodes if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)))
        docstrings = {ast.get_docstring(node, clean=False) for node in documented}
        for node in nodes:
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in docstrings
            if is_text and re.search(r"(^|[ (])--[a-z]", node.value):
                yield f"{node.lineno}: {node.value!r}"

    assert not remarks(rule)


def test_modules_and_functions_keep_to_their_sizes() -> None:
    def rule(path: Path) -> Iterator[str]:
        text = path.read_text(encoding="utf-8")
        lines, most = len(text.splitlines()), 110 if room_of(path) == "cli" and "@click.command" in text else 500
        if lines > most:
            yield f"{lines} lines of {most}"
        yield from BANNED_NAMES & {part.removesuffix(".py") for part in path.relative_to(PACKAGE).parts}
        for function in functions_of(path):
            if length_of(function) > 80:
                yield f"{function.name} has {length_of(function)} lines of 80"
            arguments = function.args
            given = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
            names = [argument.arg for argument in given if argument.arg not in ("self", "cls")]
            if len(names) > 10 and room_of(path) not in {"cli", "api"}:
                yield f"{function.name} takes {len(names)} arguments of 10"

    assert not remarks(rule)


def functions_of(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node, _ in nodes_of(path) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def length_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    docstring = ast.get_docstring(function, clean=False)
    return (function.end_lineno or function.lineno) - function.lineno + 1 - (docstring.count("\n") + 1 if docstring else 0)


def test_most_functions_are_short() -> None:
    lengths = sorted(length_of(function) for path in MODULES for function in functions_of(path))
    assert median(lengths) <= 10
    assert lengths[int(0.9 * (len(lengths) - 1))] <= 35


def modules_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after a statement."""
    code = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    return set(ran.stdout.splitlines()[-1].split())


HEAVY = {"torch", "torchvision", "rasterio", "numpy", "scipy", "geopandas", "shapely", "lightning", "torchgeo"}


def test_importing_geoglnet_loads_nothing_heavy() -> None:
    assert not modules_after("import geoglnet") & HEAVY


def test_help_of_the_group_and_of_every_verb_loads_nothing_heavy() -> None:
    statement = (
        "from click.testing import CliRunner\n"
        "from geoglnet.cli.main import VERBS, geoglnet\n"
        "for arguments in ([], *([verb] for verb in VERBS)):\n"
        "    assert CliRunner().invoke(geoglnet, [*arguments, '--help']).exit_code == 0, arguments\n"
    )
    assert not modules_after(statement) & HEAVY


def test_the_geo_side_loads_no_torch() -> None:
    names = [m for m in MODULES if room_of(m) in GEO_SIDE]
    imports = "\n".join(f"import geoglnet.{'.'.join(p.relative_to(PACKAGE).with_suffix('').parts)}" for p in names)
    assert not modules_after(imports.replace(".__init__", "")) & {"torch", "torchvision"}


def test_predicting_needs_no_data_sets_and_no_training() -> None:
    """Which import torchgeo and lightning."""

    def rule(path: Path) -> Iterator[str]:
        if room_of(path) in {"prediction", "models"} or path.parts[-2:] == ("api", "prediction.py"):
            yield from (f"imports {name}" for name in own_rooms(path) & {"datasets", "training", "paper"})

    assert not remarks(rule)


SLOW_LIBRARIES = {
    *("torch", "torch._dynamo", "torchvision", "lightning", "torchgeo"),
    *("scipy.ndimage", "numba", "pandas", "geopandas", "pyogrio", "matplotlib", "rasterio", "pyproj"),
}


def libraries_after(folder: Path, commands: list[list[str]]) -> list[set[str]]:
    """Slow libraries that a program has loaded after each of several commands, all of them in one process."""
    code = (
        "import json, sys\n"
        "from click.testing import CliRunner\n"
        "from geoglnet.cli.main import geoglnet\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    ended = CliRunner().invoke(geoglnet, words)\n"
        "    assert ended.exit_code == ('missing.tif' in words), (words, ended.output)\n"
        "    print(json.dumps(sorted(sys.modules)))\n"
    )
    argv = [sys.executable, "-c", code, json.dumps(commands)]
    ran = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=600, cwd=folder)
    return [set(json.loads(line)) & SLOW_LIBRARIES for line in ran.stdout.splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_raster(tmp_path / "scene.tif", noise(3, 64, 64), pixel_size=1)
    write_raster(tmp_path / "labels.tif", np.kron(np.eye(4, dtype=np.uint8), np.ones((16, 16), np.uint8))[None])
    return tmp_path


def test_a_run_loads_only_what_it_uses(folder: Path, tiny_model_path: Path) -> None:
    refused, scene, model, polygons = libraries_after(
        folder,
        [
            ["predict", "missing.tif", "-o", "new.tif"],
            ["info", "scene.tif"],
            ["info", str(tiny_model_path)],
            ["vectorize", "labels.tif", "labels.gpkg"],
        ],
    )
    assert refused == {"rasterio"}
    assert scene == model == {"rasterio", "pyproj"}
    # pyogrio, which writes the polygons, imports geopandas.
    assert polygons == {"rasterio", "pyproj", "numba", "pyogrio", "pandas", "geopandas"}


def test_predicting_loads_only_torch_unless_there_are_polygons_to_write(folder: Path, tiny_model_path: Path) -> None:
    model = ["--model", str(tiny_model_path), "--device", "cpu"]
    doctor, labels, polygons = libraries_after(
        folder,
        [
            ["doctor"],
            ["predict", "scene.tif", "-o", "new.tif", *model],
            ["predict", "scene.tif", "--vector", "new.gpkg", *model],
        ],
    )
    assert doctor == {"rasterio", "torch"}
    assert labels == {"rasterio", "pyproj", "torch"}
    assert polygons == {"rasterio", "pyproj", "torch", "numba", "pyogrio", "pandas", "geopandas"}
