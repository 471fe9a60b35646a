"""The plugin gives the program its user's environment, without what QGIS and its launchers put there."""

from __future__ import annotations

import pytest
from geoglnet_qgis.environment import CERTIFICATES, DROPPED, SET, clean_environment

OSGEO4W = r"C:\Program Files\QGIS 3.34"


def windows(**more: str) -> dict[str, str]:
    inherited = {
        "OSGEO4W_ROOT": OSGEO4W,
        "PYTHONHOME": OSGEO4W + r"\apps\Python312",
        "PROJ_LIB": OSGEO4W + r"\share\proj",
        "Path": rf"{OSGEO4W}\bin;c:\program files\qgis 3.34\apps\qt5\bin;C:\Windows;C:\Users\ü\venv\Scripts",
        "SystemRoot": r"C:\Windows",
    }
    return clean_environment({**inherited, **more}, platform="win32", exists=lambda _: True)


@pytest.mark.parametrize("name", sorted(DROPPED))
def test_a_variable_of_the_other_python_is_dropped(name: str) -> None:
    assert clean_environment({name: "wrong", "HOME": "/home/me"}) == {"HOME": "/home/me", **SET}


@pytest.mark.parametrize(
    "name", ["PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONPYCACHEPREFIX", "PYTHONWARNINGS", "LD_PRELOAD", "LD_AUDIT"]
)
def test_what_would_load_code_before_the_programs_own_is_dropped(name: str) -> None:
    assert name not in clean_environment({name: "wrong"})
    assert clean_environment({name: "wrong"}, kept=[name])[name] == "wrong"


def test_everything_else_is_kept() -> None:
    inherited = {"HOME": "/home/me", "PATH": "/usr/bin", "CUDA_VISIBLE_DEVICES": "1", "https_proxy": "http://proxy:3128"}
    assert clean_environment(inherited) == {**inherited, **SET}


def test_the_user_may_keep_a_variable() -> None:
    child = clean_environment({"LD_LIBRARY_PATH": "/opt/cuda/lib64", "LD_PRELOAD": "x.so"}, kept=["ld_library_path"])
    assert child["LD_LIBRARY_PATH"] == "/opt/cuda/lib64"
    assert "LD_PRELOAD" not in child


def test_windows_has_qgis_folders_taken_out_of_its_path_and_nothing_else() -> None:
    child = windows()
    assert child["Path"] == r"C:\Windows;C:\Users\ü\venv\Scripts"
    assert child["SystemRoot"] == r"C:\Windows"
    assert not {"PYTHONHOME", "PROJ_LIB"} & set(child)


def test_a_folder_that_only_begins_like_qgis_stays_in_the_path() -> None:
    assert windows(Path=OSGEO4W + r"-mine\bin")["Path"] == OSGEO4W + r"-mine\bin"


def test_variables_are_known_by_any_case_on_windows() -> None:
    assert "PythonHome" not in windows(PythonHome="x")


@pytest.mark.parametrize("name", CERTIFICATES)
def test_certificates_go_when_they_are_qgis_own_or_nowhere(name: str) -> None:
    assert name not in windows(**{name: OSGEO4W + r"\bin\curl-ca-bundle.crt"})
    assert windows(**{name: r"C:\corp\ca.pem"})[name] == r"C:\corp\ca.pem"
    assert name not in clean_environment({name: "/nowhere/ca.pem"}, exists=lambda _: False)


def test_a_qgis_in_usr_does_not_take_the_systems_certificates() -> None:
    inherited = {"QGIS_PREFIX_PATH": "/usr", "SSL_CERT_FILE": "/usr/share/ca.pem"}
    assert clean_environment(inherited, platform="linux", exists=lambda _: True)["SSL_CERT_FILE"] == "/usr/share/ca.pem"
