"""Engines do a job on items: here, in processes, and on Ray; who dies is replaced, and only its item is blamed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from geoglnet.engines import processes
from geoglnet.engines.port import Engine, Here, Queue, Result, WorkerDiedError
from geoglnet.engines.processes import Processes
from geoglnet.errors import GeoglnetError, SceneError
from tests.engines_job import Square


def on_ray() -> Engine:
    pytest.importorskip("ray")
    from geoglnet.engines.on_ray import OnRay

    return OnRay(2)


@pytest.fixture(params=["here", "processes", pytest.param("ray", marks=pytest.mark.slow)])
def engine(request: pytest.FixtureRequest) -> Engine:
    return {"here": Here, "processes": lambda: Processes(2), "ray": on_ray}[request.param]()


def started(folder: Path) -> int:
    return len([*folder.glob("started-*")])


def test_outcomes_come_in_order_and_errors_of_ours_are_among_them(engine: Engine, tmp_path: Path) -> None:
    results = [*engine.map(Square(str(tmp_path), fails_at=3), range(8), ordered=True)]
    assert [result.item for result in results] == [*range(8)]
    assert [result.value for result in results] == [0, 1, 4, None, 16, 25, 36, 49]
    assert isinstance(results[3].error, SceneError)
    assert str(results[3].error) == "3 cannot be read"
    assert started(tmp_path) == (1 if isinstance(engine, Here) else 2), "a job is started once in each process"


@pytest.mark.parametrize("made", [lambda: Processes(2), pytest.param(on_ray, marks=pytest.mark.slow)])
def test_who_dies_is_replaced_and_its_item_done_by_another(made: Any, tmp_path: Path) -> None:
    results = [*made().map(Square(str(tmp_path), dies_at=2, lives_from=1), range(6), ordered=True)]
    assert [result.value for result in results] == [0, 1, 4, 9, 16, 25]
    assert len([*tmp_path.glob("died-*")]) == 1


@pytest.mark.parametrize("made", [lambda: Processes(2), pytest.param(on_ray, marks=pytest.mark.slow)])
def test_an_item_at_which_all_die_is_named_and_all_others_are_done(made: Any, tmp_path: Path) -> None:
    results = {one.item: one for one in made().map(Square(str(tmp_path), dies_at=1), range(5), tries=2)}
    assert [results[number].value for number in (0, 2, 3, 4)] == [0, 4, 9, 16]
    assert isinstance(results[1].error, WorkerDiedError)
    assert str(results[1].error) == "2 processes began it and died"
    assert len([*tmp_path.glob("died-*")]) == 2


def test_items_are_taken_as_they_are_wanted_and_workers_end_with_the_iterator(tmp_path: Path) -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(10**6):
            taken.append(number)
            yield number

    engine = Processes(1)
    with closing(engine.map(Square(str(tmp_path)), items(), ordered=True)) as results:
        assert next(results).value == 0
    assert len(taken) <= 4


def test_a_line_lets_go_in_order_and_gives_blamed_items_again() -> None:
    queue = Queue[str, int]("abcd", ordered=True, tries=2, most_waiting=3)
    first, second, third = queue.take(), queue.take(), queue.take()
    assert (first, second, third, queue.take()) == ((0, "a"), (1, "b"), (2, "c"), None), "three are out, none has left"
    queue.settle(1, Result("b", 1))
    assert not [*queue.leaving()]
    queue.blame(0, "a")
    assert queue.take() == (0, "a")
    queue.blame(0, "a")
    assert [result.item for result in queue.leaving()] == ["a", "b"]
    assert queue.take() == (3, "d")


@pytest.mark.parametrize(("variable", "names"), [("0,2", ("0", "2")), ("", ()), ("GPU-1a, GPU-2b", ("GPU-1a", "GPU-2b"))])
def test_processes_share_the_gpus_that_may_be_seen(
    variable: str, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert processes.visible_gpus() == names
    with processes._seeing("7"):
        assert processes.visible_gpus() == ("7",)
    assert processes.visible_gpus() == names


def test_a_worker_that_died_is_an_error_of_ours() -> None:
    assert issubclass(WorkerDiedError, GeoglnetError)
