"""The floors of docs/design.md, checked on the source: imports point down only, and each library stays in its room."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

import geoglnet

PACKAGE = Path(geoglnet.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

FLOORS: dict[str, float] = {
    **dict.fromkeys(("errors", "types", "progress", "filenames", "plain", "escaping"), 0),
    **dict.fromkeys(("windows", "blending", "legend", "config", "existing", "output"), 1),
    **dict.fromkeys(("models", "losses", "metrics", "raster", "vector"), 2),
    "datasets": 3,
    **dict.fromkeys(("training", "prediction", "benchmark", "export"), 4),
    **dict.fromkeys(("api", "cli", "__main__", "__init__"), 5),
}
TORCH_SIDE, GEO_SIDE = {"models", "losses", "metrics"}, {"raster", "vector"}
NO_TORCH = GEO_SIDE | {
    "errors",
    "types",
    "progress",
    "filenames",
    "plain",
    "existing",
    "output",
    "windows",
    "blending",
    "foreground",
    "legend",
    "config",
    "cli",
    "api",
    "__init__",
}
ROOMS = {  # library: where it may be imported
    "torchgeo": {"datasets"},
    "lightning": {"training", "datasets"},
    "click": {"cli"},
    "geopandas": {"vector", "api"},
    "numba": {"vector"},
}
GEO_LIBRARIES = {"rasterio", "fiona", "geopandas", "shapely", "pyogrio", "pyproj"}
BANNED_NAMES = {"utils", "helpers", "common", "misc", "core", "base", "manager"}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def iter_imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every imported module of a file, with whether it is imported when the file is."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    at_top = {id(node) for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))}
    for function in ast.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            at_top -= {id(node) for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in at_top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            inside = [f"geoglnet.{alias.name}" for alias in node.names] if node.module == "geoglnet" else [node.module or ""]
            yield from ((name, id(node) in at_top) for name in inside)


def own_rooms(path: Path) -> set[str]:
    """Rooms of ours that a file imports from, anywhere in it."""
    return {name.split(".")[1] for name, _ in iter_imports(path) if name.startswith("geoglnet.")} & FLOORS.keys()


def libraries(path: Path, *, top_only: bool = False) -> set[str]:
    return {name.split(".")[0] for name, at_top in iter_imports(path) if at_top or not top_only}


every_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))


@every_module
def test_imports_point_down_only(path: Path) -> None:
    room = room_of(path)
    assert room in FLOORS, f"{room} stands on no floor"
    above = {other for other in own_rooms(path) if FLOORS[other] > FLOORS[room]}
    assert not above or room == "__init__"


@every_module
def test_the_halves_of_floor_2_do_not_meet(path: Path) -> None:
    room = room_of(path)
    if room in TORCH_SIDE:
        assert not own_rooms(path) & GEO_SIDE
        assert not libraries(path) & GEO_LIBRARIES
        assert own_rooms(path) <= TORCH_SIDE | {"config", "legend", "errors", "types", "progress", "plain", "output"}
    if room in GEO_SIDE:
        assert not own_rooms(path) & TORCH_SIDE


@every_module
def test_no_torch_at_the_top_of_doors_words_and_the_geo_side(path: Path) -> None:
    if room_of(path) in NO_TORCH:
        assert not libraries(path, top_only=True) & {"torch", "torchvision", "lightning", "torchgeo"}


@every_module
def test_each_library_stays_in_its_rooms(path: Path) -> None:
    found = libraries(path)
    strays = {library for library, rooms in ROOMS.items() if library in found and room_of(path) not in rooms}
    assert not strays


def test_torchgeo_is_read_in_one_file() -> None:
    """So that what changes between its releases is met in one place."""
    assert [path.name for path in MODULES if "torchgeo" in libraries(path)] == ["geodatasets.py"]


@every_module
def test_imports_stand_at_the_top_except_in_doors(path: Path) -> None:
    if room_of(path) in {"cli", "api", "__init__"}:
        return
    late = {name for name, at_top in iter_imports(path) if not at_top}
    assert not late


@every_module
def test_only_doors_print_and_nobody_catches_everything_or_asserts(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not isinstance(node, ast.Assert), f"{path}:{node.lineno}: assert in library code"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            assert room_of(path) == "cli", f"{path}:{node.lineno}: print outside cli"
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else ""
            raises_again = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
            assert raises_again or caught not in {"", "Exception", "BaseException"}, f"{path}:{node.lineno}: catches everything"


@every_module
def test_modules_and_functions_keep_to_their_sizes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= (110 if room_of(path) == "cli" and "@click.command" in text else 500)
    assert not BANNED_NAMES & {part.removesuffix(".py") for part in path.relative_to(PACKAGE).parts}
    for function in iter_functions(text):
        assert length_of(function) <= 80, function.name
        arguments = function.args
        names = [
            a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs) if a.arg not in ("self", "cls")
        ]
        assert len(names) <= 10 or room_of(path) in {"cli", "api"}, function.name


def iter_functions(text: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (n for n in ast.walk(ast.parse(text)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)))


def length_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    docstring = ast.get_docstring(function, clean=False)
    return (function.end_lineno or function.lineno) - function.lineno + 1 - (docstring.count("\n") + 1 if docstring else 0)


def test_most_functions_are_short() -> None:
    lengths = sorted(length_of(f) for path in MODULES for f in iter_functions(path.read_text(encoding="utf-8")))
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


def test_predicting_loads_neither_lightning_nor_torchgeo() -> None:
    names = [m for m in MODULES if room_of(m) in {"prediction", "models"} or m.parts[-2:] == ("api", "prediction.py")]
    imports = "\n".join(f"import geoglnet.{'.'.join(p.relative_to(PACKAGE).with_suffix('').parts)}" for p in names)
    assert not modules_after(imports.replace(".__init__", "")) & {"lightning", "torchgeo"}
