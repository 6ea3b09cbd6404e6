"""The pool of processes: what is shared, what becomes of work when it ends, and what ends it."""

from __future__ import annotations

import os
import pathlib
import time
from concurrent.futures.process import BrokenProcessPool

import pytest

from data_gen.processes import ProcessPool


class Shared:
    """Counts in a file how often it is sent to a process, and how often set up."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    def __setstate__(self, state):
        self.__dict__.update(state)
        self.note("received")

    def note(self, what: str) -> None:
        with open(self.folder / what, "a") as file:
            file.write("x")

    def noted(self, what: str) -> str:
        path = self.folder / what
        return path.read_text() if path.exists() else ""


def set_up(shared):
    shared.note("set up")


def add(shared, one, other):
    assert shared.noted("set up")
    return one + other


def wait_for_file(shared, name):
    shared.note("began")
    while not (shared.folder / name).exists():
        time.sleep(0.01)
    shared.note("ended")
    return name


def die(shared):
    os._exit(1)


@pytest.fixture
def shared(tmp_path):
    return Shared(tmp_path)


@pytest.fixture
def pool(shared):
    pool = ProcessPool(1, shared, set_up)
    yield pool
    pool.kill()


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_process_receives_the_shared_object_once_however_much_it_does(pool, shared):
    assert [pool.submit(add, i, 1).result(30) for i in range(5)] == [1, 2, 3, 4, 5]
    assert (shared.noted("received"), shared.noted("set up")) == ("x", "x")
    assert pool.process_ids and os.getpid() not in pool.process_ids


def test_shutting_down_waits_for_the_function_that_runs_and_cancels_what_waits(pool, shared):
    running = pool.submit(wait_for_file, "go")
    waiting = [pool.submit(wait_for_file, "go") for _ in range(5)]
    wait_until(lambda: shared.noted("began"))
    shared.note("go")
    pool.shut_down()
    assert running.result(0) == "go"
    assert waiting[-1].cancelled()
    assert shared.noted("ended") == shared.noted("began")


def test_killing_does_not_wait_for_a_function_that_hangs(pool, shared):
    pool.submit(wait_for_file, "never")
    wait_until(lambda: shared.noted("began"))
    pool.kill()
    assert not shared.noted("ended")


def test_when_a_process_dies_its_work_and_what_comes_after_raises(pool):
    with pytest.raises(BrokenProcessPool):
        pool.submit(die).result(30)
    with pytest.raises(BrokenProcessPool):
        pool.submit(add, 1, 1)
