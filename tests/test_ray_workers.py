"""Rendering on a Ray cluster, made of this machine's processors."""

import os
import signal
import threading

import pytest
from conftest import ROOT
from data_helpers import Vanishing, are_equal
from test_workers import corpus, light

from data_gen.workers import Workers

ray = pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("ray.data", reason="Ray Data is not installed")

from data_gen.ray_workers import RayWorkers  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Ray on this machine, with two processors."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {"env_vars": {"PYTHONPATH": paths}}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    yield
    ray.shutdown()


def render_processes() -> list[int]:
    """Process numbers of Ray's actors that render."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline") as file:
                if "MapWorker" in file.read():
                    found.append(int(name))
        except OSError:
            continue
    return found


@pytest.fixture
def nothing_under_way_after_close():
    """Threads that ask Ray for data end the whole process if they meet `ray.shutdown()`; one that sleeps is no harm."""
    before = set(threading.enumerate())
    yield
    assert {thread.name for thread in set(threading.enumerate()) - before} <= {"Prefetcher"}


@pytest.mark.usefixtures("nothing_under_way_after_close")
def test_the_visits_are_those_of_one_process_although_a_render_process_is_killed():
    plain = light(corpus("a", "b", "c"))
    with Workers(plain, 0, first_visit=5) as workers:
        expected = [next(workers) for _ in range(60)]
    with RayWorkers(plain, first_visit=5) as workers:
        workers.start()
        visits = [next(workers) for _ in range(5)]
        os.kill(render_processes()[0], signal.SIGKILL)
        visits += [next(workers) for _ in range(55)]
        assert workers.next_visit == 65
        assert workers.lost == 0
    assert all(are_equal(visit, other) for visit, other in zip(visits, expected))


@pytest.mark.usefixtures("nothing_under_way_after_close")
def test_a_visit_that_fails_is_left_out_and_the_rest_comes():
    failing = light(corpus("one", "gone", "three", kind=Vanishing))
    with Workers(failing, 0) as workers:
        expected = [next(workers) for _ in range(5)]
        lost = workers.lost
    with RayWorkers(failing) as workers:
        workers.start()
        visits = [next(workers) for _ in range(5)]
        assert workers.lost == lost > 0
    assert all(are_equal(visit, other) for visit, other in zip(visits, expected))
