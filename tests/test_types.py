"""An output file appears whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from geoglnet.errors import OutputError, OutputExistsError
from geoglnet.types import OutputFile, Shape


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_shape_is_height_then_width() -> None:
    assert Shape(height=2, width=3) == (2, 3)


def test_the_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "labels.tif"
    with OutputFile(path) as part_path:
        part_path.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert names_in(tmp_path) == ["labels.tif"]


def test_the_part_name_keeps_the_suffix_that_drivers_look_at(tmp_path: Path) -> None:
    assert OutputFile(tmp_path / "out.gpkg").part_path == tmp_path / "out.part.gpkg"


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt()])
def test_an_error_leaves_nothing_behind(tmp_path: Path, error: BaseException) -> None:
    def interrupted() -> None:
        with OutputFile(tmp_path / "labels.tif") as part_path:
            part_path.write_text("half")
            part_path.with_name(f"{part_path.name}.aux.xml").write_text("sidecar")
            raise error

    with pytest.raises(type(error)):
        interrupted()
    assert names_in(tmp_path) == []


def test_an_error_keeps_the_file_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "labels.tif"
    path.write_text("old")

    def interrupted() -> None:
        with OutputFile(path, overwrite=True) as part_path:
            part_path.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"


def test_what_an_earlier_run_left_is_removed_first(tmp_path: Path) -> None:
    (tmp_path / "labels.part.tif").write_text("left by a killed run")
    with OutputFile(tmp_path / "labels.tif") as part_path:
        assert not part_path.exists()
        part_path.write_text("new")
    assert names_in(tmp_path) == ["labels.tif"]


def test_an_existing_file_is_refused_without_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "labels.tif"
    path.write_text("old")
    with pytest.raises(OutputExistsError, match=r"labels\.tif exists; pass --overwrite"):
        OutputFile(path)


def test_an_existing_file_is_replaced_with_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "labels.tif"
    path.write_text("old")
    with OutputFile(path, overwrite=True) as part_path:
        part_path.write_text("new")
    assert path.read_text() == "new"


def test_a_missing_folder_is_named_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nowhere does not exist; create it"):
        OutputFile(tmp_path / "nowhere" / "labels.tif")


def test_a_folder_is_not_an_output(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder; give a file name"):
        OutputFile(tmp_path, overwrite=True)


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root may write anywhere")
def test_a_folder_without_write_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="not writable"):
        OutputFile(tmp_path / "labels.tif")


def test_a_full_disk_is_said_in_our_words(tmp_path: Path) -> None:
    def fill() -> None:
        with OutputFile(tmp_path / "labels.tif") as part_path:
            part_path.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match="disk full while writing"):
        fill()
    assert names_in(tmp_path) == []
