"""QGIS 4 has Qt 6. There is none here, so every module is imported, and every dialog part built, with PyQt6 under stand-ins for
QGIS's own classes; and no enumeration of QGIS's is used in the form that Qt 6 lost."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from machine import PLUGINS

SCRIPT = Path(__file__).parent / "qt6" / "build_everything.py"
MODULES = sorted((PLUGINS / "geoglnet_qgis").rglob("*.py"))


def test_every_module_and_dialog_part_works_with_pyqt6(tmp_path: Path) -> None:
    pytest.importorskip("PyQt6", reason="needs PyQt6 (pip install PyQt6)")
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(SCRIPT), str(PLUGINS)],
        env={"QT_QPA_PLATFORM": "offscreen", "PATH": "/usr/bin", "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    built = set(ran.stdout.split())
    assert built == {".".join(path.relative_to(PLUGINS).with_suffix("").parts).removesuffix(".__init__") for path in MODULES}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_enumerations_are_scoped(path: Path) -> None:
    import qgis.core
    from qgis.PyQt.QtCore import Qt

    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = Qt if node.value.id == "Qt" else getattr(qgis.core, node.value.id, None)
            if isinstance(owner, type):
                value = getattr(owner, node.attr, None)
                assert not isinstance(value, int), f"{path.name}:{node.lineno}: {ast.unparse(node)} has no scope"
