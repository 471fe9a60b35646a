"""An output file appears whole or not at all."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from geoglnet.errors import ConfigError, OutputError, OutputExistsError
from geoglnet.output import OutputFile, refuse_inputs, refuse_sharing
from geoglnet.types import Shape


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
    assert OutputFile(tmp_path / "out.gpkg").part_path == tmp_path / "out.gpkg.part" / "part.gpkg"


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
    left = tmp_path / "labels.tif.part"
    left.mkdir()
    for name in ("geoglnet.lock", "part.tif", "part.tif.ovr.tmp"):
        (left / name).write_text("left by a killed run")
    with OutputFile(tmp_path / "labels.tif") as part_path:
        assert not part_path.exists()
        part_path.write_text("new")
    assert names_in(tmp_path) == ["labels.tif"]


def test_an_existing_file_is_refused_without_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "labels.tif"
    path.write_text("old")
    with pytest.raises(OutputExistsError, match=r"labels\.tif exists; pass overwrite=True"):
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


# Names


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a\nb.tif", "line break or a control character"),
        ("a\udcffb.tif", "not a UTF-8 name"),
        (f"{'x' * 250}.tif", "10 bytes too long"),
    ],
)
def test_a_name_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(OutputError, match=reason) as caught:
        OutputFile(tmp_path / name)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


def test_a_device_is_no_output() -> None:
    with pytest.raises(OutputError, match="is a device or a pipe"):
        OutputFile(Path(os.devnull), overwrite=True)


# Links


def test_of_a_link_the_target_is_written_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    for name, old in (("old.tif", "old"), ("new.tif", None)):
        link, target = tmp_path / name, tmp_path / "scratch" / name
        link.symlink_to(Path("scratch", name))
        if old is not None:
            target.write_text(old)
        with OutputFile(link, overwrite=True) as part_path:
            part_path.write_text("new")
        assert link.is_symlink()
        assert target.read_text() == "new"
    assert sorted(names_in(tmp_path / "scratch")) == ["new.tif", "old.tif"]
    (tmp_path / "loop.tif").symlink_to("loop.tif")
    with pytest.raises(OutputError, match="is a broken link"):
        OutputFile(tmp_path / "loop.tif", overwrite=True)


# What is not ours


@pytest.mark.parametrize("kind", ["file", "folder", "link", "lock that is a link"])
def test_what_lies_where_the_part_would_go_is_refused_and_kept(tmp_path: Path, kind: str) -> None:
    precious, place = tmp_path / "precious", tmp_path / "labels.tif.part"
    precious.mkdir()
    (precious / "geoglnet.lock").write_text("notes")
    if kind == "file":
        place.write_text("half a download")
    elif kind == "folder":
        place.mkdir()
        (place / "notes.txt").write_text("notes")
    elif kind == "link":
        place.symlink_to(precious)
    else:
        place.mkdir()
        (place / "geoglnet.lock").symlink_to(precious / "geoglnet.lock")
    with pytest.raises(OutputError, match=r"labels\.tif\.part was not made by geoglnet"), OutputFile(tmp_path / "labels.tif"):
        pass
    assert (precious / "geoglnet.lock").read_text() == "notes"
    assert place.exists()


def test_files_whose_names_begin_like_ours_survive(tmp_path: Path) -> None:
    others = ("q.part.tif", "q.part.tif.backup", "q.tif.part.backup", "q.tif.old", "q.tif~", "q.tif.aux.xml.bak")
    for name in (*others, "q.tif"):
        (tmp_path / name).write_text(name)
    with OutputFile(tmp_path / "q.tif", overwrite=True) as part_path:
        part_path.write_text("new")
    assert {name: (tmp_path / name).read_text() for name in others} == {name: name for name in others}
    assert sorted(names_in(tmp_path)) == sorted([*others, "q.tif"])


def test_companions_of_a_replaced_file_are_removed_or_set_aside(tmp_path: Path) -> None:
    made_again = ("a.tif.aux.xml", "a.tif.ovr", "a.tif.msk", "a.tif.vat.dbf")
    by_hand = ("a.qml", "a.tfw", "a.wld", "a.qmd", "a.tif.xml")
    for name in ("a.tif", *made_again, *by_hand, "a.qml.old"):
        (tmp_path / name).write_text("old")
    with OutputFile(tmp_path / "a.tif", overwrite=True) as part_path:
        part_path.write_text("new")
    kept = {f"{name}.old" for name in by_hand} | {"a.qml.old2"}
    assert set(names_in(tmp_path)) == {"a.tif"} | kept


def test_journals_of_a_replaced_database_do_not_meet_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    for suffix in ("", "-wal", "-shm", "-journal"):
        Path(f"{path}{suffix}").write_text("old", encoding="utf-8")
    with OutputFile(path, overwrite=True) as part_path:
        part_path.write_text("new")
    assert names_in(tmp_path) == ["a.gpkg"]


def test_a_style_that_another_file_shares_or_that_was_laid_ready_stays(tmp_path: Path) -> None:
    for name in ("shared.shp", "shared.qml", "shared.gpkg", "ready.qml"):
        (tmp_path / name).write_text("old")
    for name in ("shared.gpkg", "ready.gpkg"):
        with OutputFile(tmp_path / name, overwrite=True) as part_path:
            part_path.write_text("new")
    assert set(names_in(tmp_path)) == {"shared.shp", "shared.qml", "shared.gpkg", "ready.qml", "ready.gpkg"}


def make_database(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)
    return path


OURS = "CREATE TABLE {} (fid, class_id, class_name, area_m2, perimeter_m, confidence, part_of, scene, model, geom)"
STYLES = "CREATE TABLE layer_styles (f_table_name)"


@pytest.mark.parametrize(
    ("statements", "lost"),
    [
        ([OURS.format("a"), "CREATE TABLE parcels (x)"], r"\(parcels\)"),
        (["CREATE TABLE parcels (x)"], r"\(parcels\)"),
        ([OURS.format("a"), "CREATE TABLE qgis_projects (x)"], r"\(qgis_projects\)"),
        ([OURS.format("a"), STYLES, "INSERT INTO layer_styles VALUES ('b')"], r"\(style of b\)"),
        ([OURS.format("a"), OURS.format("b")], r"\(b\)"),
        ([OURS.format("a"), STYLES, "INSERT INTO layer_styles VALUES ('a')", "CREATE TABLE gpkg_contents (x)"], None),
        ([OURS.format("before_it_was_renamed")], None),
        (["CREATE TABLE a (x)"], None),
    ],
)
def test_a_geopackage_that_holds_more_than_our_layer_is_not_replaced(
    tmp_path: Path, statements: list[str], lost: str | None
) -> None:
    path = make_database(tmp_path / "a.gpkg", *statements)
    if lost is None:
        OutputFile(path, overwrite=True)
        return
    with pytest.raises(OutputError, match=f"holds more than a layer of ours {lost}, which would be lost"):
        OutputFile(path, overwrite=True)


def test_what_came_under_the_name_meanwhile_is_kept_and_so_is_the_result(tmp_path: Path) -> None:
    path, database = tmp_path / "a.tif", make_database(tmp_path / "b.gpkg", "CREATE TABLE b (x)")

    def write_meanwhile() -> None:
        with OutputFile(path) as part_path:
            part_path.write_text("ours")
            path.write_text("theirs")

    def add_layer_meanwhile() -> None:
        with OutputFile(database, overwrite=True) as part_path:
            part_path.write_text("ours")
            make_database(database, "CREATE TABLE parcels (x)")

    with pytest.raises(OutputExistsError, match=r"another program meanwhile; the new one is kept as .*a \(2\)\.tif"):
        write_meanwhile()
    with pytest.raises(OutputError, match=r"\(parcels\).*; the new one is kept as .*b \(2\)\.gpkg"):
        add_layer_meanwhile()
    assert (path.read_text(), (tmp_path / "a (2).tif").read_text()) == ("theirs", "ours")
    assert set(names_in(tmp_path)) == {"a.tif", "a (2).tif", "b.gpkg", "b (2).gpkg"}


# Inputs


def test_no_output_is_an_input_under_any_name(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("mask.gpkg", "other.tif", "other.tif.ovr"):
        (tmp_path / name).write_text("input")
    (tmp_path / "link.gpkg").symlink_to("mask.gpkg")
    (tmp_path / "hard.gpkg").hardlink_to(tmp_path / "mask.gpkg")
    for name in ("mask.gpkg", "sub/../mask.gpkg", "link.gpkg", "hard.gpkg"):
        with pytest.raises(OutputError, match="is the mask; choose another output"):
            refuse_inputs([OutputFile(tmp_path / name, overwrite=True)], [("the mask", tmp_path / "mask.gpkg")])
    with pytest.raises(OutputError, match=r"other\.tif\.ovr, the scene, would be lost when .*other\.tif is replaced"):
        refuse_inputs([OutputFile(tmp_path / "other.tif", overwrite=True)], [("the scene", tmp_path / "other.tif.ovr")])
    refuse_inputs([OutputFile(tmp_path / "new.gpkg")], [("the mask", tmp_path / "mask.gpkg"), ("a scene", "/vsicurl/x")])


@pytest.mark.parametrize(
    "names", [("a.tif", "sub/../a.tif"), ("a.tif", "link/a.tif"), ("a.tif", "a.tif.ovr"), ("b.tif", "hard.tif")]
)
def test_two_outputs_are_never_one_file(tmp_path: Path, names: tuple[str, str]) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to(".")
    (tmp_path / "b.tif").write_text("old")
    (tmp_path / "hard.tif").hardlink_to(tmp_path / "b.tif")
    with pytest.raises(ConfigError, match="outputs share a file"):
        refuse_sharing([OutputFile(tmp_path / name, overwrite=True) for name in names])


# Locks


def test_two_runs_do_not_write_one_file_and_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom geoglnet.output import OutputFile\n"
        "with OutputFile(sys.argv[1]) as part_path:\n"
        "    part_path.write_text('half')\n    print('claimed', flush=True)\n    time.sleep(600)\n"
    )
    path = tmp_path / "a.tif"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == b"claimed"
        with pytest.raises(OutputError, match=r"another run is writing a\.tif; wait for it, or stop it"), OutputFile(path):
            pass
        other.kill()
    assert names_in(tmp_path) == ["a.tif.part"]
    with OutputFile(path) as part_path:
        assert not part_path.exists()
        part_path.write_text("whole")
    assert names_in(tmp_path) == ["a.tif"]


# Failing disks


def test_everything_is_on_the_disk_before_it_gets_its_name_and_the_name_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, str]] = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append(("sync", Path(f"/proc/self/fd/{fd}").readlink().name)), sync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append(("rename", Path(b).name)), replace(a, b)))
    with OutputFile(tmp_path / "a.tif") as part_path:
        part_path.write_text("labels")
        part_path.with_name("part.tif.aux.xml").write_text("names")
        calls.clear()
    renames = [("rename", "a.tif"), ("rename", "a.tif.aux.xml")]
    assert calls == [
        ("sync", "part.tif"),
        ("sync", "part.tif.aux.xml"),
        ("sync", "a.tif.part"),
        *renames,
        ("sync", tmp_path.name),
    ]


def test_a_result_that_may_not_get_its_name_is_kept_and_the_reason_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def write() -> None:
        with OutputFile(tmp_path / "a.tif") as part_path:
            part_path.write_text("new")
            monkeypatch.setattr(os, "replace", fail)

    with pytest.raises(OutputError, match=r"a\.tif cannot be replaced \(Permission denied\)") as caught:
        write()
    assert Path(str(caught.value).rpartition(" kept as ")[2]).read_text() == "new"


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_failing_sync_or_rename_is_named_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, number: int
) -> None:
    path = tmp_path / "a.tif"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    def write() -> None:
        with OutputFile(path, overwrite=True) as part_path:
            part_path.write_text("new")
            monkeypatch.setattr(os, failing, fail)

    expected = "disk full while writing .*free some space" if number == errno.ENOSPC else r"a\.tif cannot be written \(Input"
    with pytest.raises(OutputError, match=expected) as caught:
        write()
    assert ("free some space" in str(caught.value)) == (number == errno.ENOSPC)
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["a.tif"]


@pytest.mark.parametrize(("number", "words"), [(errno.EIO, r"a\.tif\.part cannot be made"), (errno.EDQUOT, "disk full while")])
@pytest.mark.parametrize("failing", ["fsync", "open"])
def test_a_folder_for_the_part_that_cannot_be_kept_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, number: int, words: str
) -> None:
    file = OutputFile(tmp_path / "a.tif")

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        with pytest.raises(OutputError, match=words), file.claimed():
            pass
    assert names_in(tmp_path) == []
