"""Render processes: the same visits however many render them, and whatever becomes of them."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from data_helpers import SOUNDFONT, Deadly, Handmade, Hanging, Vanishing, are_equal, band_rows, chunker, note, piece

from data_gen import InputError, workers
from data_gen.workers import Workers

TESTS = pathlib.Path(__file__).parent
PATIENCE_S = 30  # for what must happen soon; a wait ends as soon as it has happened


def wait_until(condition) -> bool:
    """Whether the condition came true while there was patience."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it is more than a body waiting for its parent."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = pathlib.Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return not pathlib.Path("/proc/self").exists()


def pids(running: Workers) -> list[int]:
    return running._pool.process_ids


def corpus(*names: str, kind=Handmade):
    return kind(*(piece(band_rows(0, 2, seed=seed), name=name) for seed, name in enumerate(names)))


def light(some_corpus, **changes):
    return chunker(some_corpus, **{"chunks_per_song": 4, "chunk_samples": 800, **changes})


@pytest.fixture(scope="module")
def plain():
    return light(corpus("one", "two", "three"))


@pytest.fixture(scope="module")
def undisturbed(plain):
    """The first visits, rendered here."""
    return [plain.visit(index) for index in range(10)]


def same(visits, expected) -> bool:
    visits = list(visits)
    assert [visit.index for visit in visits] == [visit.index for visit in expected]
    return all(are_equal(one, other) for one, other in zip(visits, expected))


@pytest.mark.parametrize("n_workers", [0, 1, 2])
def test_the_visits_are_the_same_however_many_processes_render_them(plain, undisturbed, n_workers):
    with Workers(plain, n_workers) as running:
        assert same((next(running) for _ in range(6)), undisturbed[:6])
        assert running.next_visit == 6
        assert running.lost == 0


@pytest.mark.parametrize("n_workers", [0, 1])
def test_new_workers_go_on_where_others_left_off(plain, undisturbed, n_workers):
    with Workers(plain, 0, first_visit=2) as first:
        visits = [next(first), next(first)]
    with Workers(plain, n_workers, first_visit=first.next_visit) as second:
        visits += [next(second), next(second)]
    assert same(visits, undisturbed[2:6])


def test_iteration_is_endless_and_ends_when_closed(plain):
    running = Workers(plain, 0)
    assert iter(running) is running
    assert [visit.index for visit, _ in zip(running, range(5))] == list(range(5))
    running.close()
    assert list(running) == []


# ---- Processes that die ---------------------------------------------------------------------------------------------
def test_when_a_process_is_killed_at_work_the_visits_go_on_as_if_nothing_had_happened(plain, undisturbed):
    with Workers(plain, 2) as running:
        visits = [next(running)]
        os.kill(pids(running)[0], signal.SIGKILL)
        visits += [next(running) for _ in range(7)]
        assert same(visits, undisturbed[:8])
        assert running.lost == 0


def test_when_an_idle_process_is_killed_the_visits_go_on_as_if_nothing_had_happened(plain, undisturbed):
    with Workers(plain, 1) as running:
        visits = [next(running)]
        assert wait_until(lambda: running.ready_share == 1)
        (pid,) = pids(running)
        os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda: not is_alive(pid))
        visits += [next(running) for _ in range(7)]
        assert same(visits, undisturbed[:8])
        assert running.lost == 0


def test_when_the_processes_are_killed_again_and_again_the_visits_go_on(plain, undisturbed):
    visits = []
    with Workers(plain, 1) as running:
        for _ in range(3):
            visits.append(next(running))
            os.kill(pids(running)[0], signal.SIGKILL)
        visits += [next(running) for _ in range(3)]
    assert same(visits, undisturbed[:6])


def test_a_visit_that_kills_its_process_is_left_out_and_the_rest_comes():
    harmless = light(corpus("one", "two", "deadly", "four", "five"))
    expected = [visit for visit in map(harmless.visit, range(8)) if visit.song != "deadly"]
    assert 0 < len(expected) < 8
    with Workers(light(corpus("one", "two", "deadly", "four", "five", kind=Deadly)), 1) as running:
        assert same((next(running) for _ in expected), expected)
        assert running.lost == expected[-1].index + 1 - len(expected)


def test_a_process_that_hangs_is_replaced_and_its_visit_asked_for_again(tmp_path, monkeypatch):
    pieces = corpus("one", "two").pieces
    expected = [light(Handmade(*pieces)).visit(index) for index in range(8)]
    flag = tmp_path / "hang once"
    with Workers(light(Hanging(str(flag), *pieces)), 1) as running:
        visits = [next(running)]
        assert wait_until(lambda: running.ready_share == 1)
        flag.touch()  # the next one that is asked for hangs
        monkeypatch.setattr(workers, "MAX_VISIT_S", 3.0)
        visits += [next(running) for _ in range(7)]
        assert not flag.exists()
        assert same(visits, expected)
        assert running.lost == 0


# ---- Visits that fail -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n_workers", [0, 1])
def test_a_visit_that_fails_is_left_out_and_the_rest_comes(n_workers):
    whole = light(corpus("one", "gone", "three"))
    expected = [visit for visit in map(whole.visit, range(12)) if visit.song != "gone"]
    assert 0 < len(expected) < 12
    with Workers(light(corpus("one", "gone", "three", kind=Vanishing)), n_workers) as running:
        assert same((next(running) for _ in expected), expected)
        assert running.next_visit == expected[-1].index + 1
        assert running.lost == running.next_visit - len(expected)


@pytest.mark.parametrize("n_workers", [0, 1])
def test_when_every_visit_fails_the_reason_is_given(n_workers):
    with Workers(light(corpus("gone", kind=Vanishing)), n_workers) as running:
        with pytest.raises(InputError, match="no training data: 50 visits in a row.*gone: No such file or directory"):
            next(running)


def test_when_every_chunk_is_dropped_the_reason_is_given():
    solo = Handmade(piece(*(note(i / 4, 0.25, 60) for i in range(8))))
    with Workers(light(solo, keep_solo=0.0), 0) as running:
        with pytest.raises(InputError, match="no training data: .*every chunk was silent or had one instrument"):
            next(running)


def test_a_reason_is_logged_once_however_many_visits_it_costs(caplog):
    with Workers(light(corpus("gone", "two", kind=Vanishing)), 0) as running:
        for _ in range(6):
            next(running)
        assert running.lost > 1
    assert caplog.text.count("a visit is left out: gone: No such file or directory") == 1


@pytest.mark.parametrize("n_workers", [0, 1])
def test_an_empty_visit_is_skipped(n_workers):
    solo = piece(*(note(i / 4, 0.25, 60) for i in range(8)), name="solo")
    mixed = light(Handmade(solo, piece(band_rows(0, 2), name="band")), keep_solo=0.0)
    visits = [mixed.visit(index) for index in range(12)]
    expected = [visit for visit in visits if len(visit.starts_s)]
    assert {visit.song for visit in visits} == {"solo", "band"}
    assert {visit.song for visit in expected} == {"band"}
    with Workers(mixed, n_workers) as running:
        assert same((next(running) for _ in expected), expected)
        assert running.lost == 0


# ---- Nothing is left behind -----------------------------------------------------------------------------------------
def test_closing_leaves_no_process(plain):
    with Workers(plain, 2) as running:
        next(running)
        children = pids(running)
        assert len(children) == 2
        assert all(map(is_alive, children))
    assert not any(map(is_alive, children))


def test_closing_twice_or_before_the_start_does_no_harm(plain):
    running = Workers(plain, 1)
    running.close()
    running.close()
    with pytest.raises(StopIteration):
        next(running)


def test_closing_from_another_thread_ends_the_wait_of_one_that_reads(tmp_path):
    flag = tmp_path / "hang"
    flag.touch()
    running = Workers(light(Hanging(str(flag), *corpus("one").pieces)), 1)
    ended = []
    reader = threading.Thread(target=lambda: ended.append(list(running)), daemon=True)
    reader.start()
    assert wait_until(lambda: not flag.exists())  # it hangs now
    children = pids(running)
    running.close()
    reader.join(PATIENCE_S)
    assert ended == [[]]
    assert not any(map(is_alive, children))


def test_ready_share_says_how_much_is_rendered_ahead(plain):
    with Workers(plain, 1) as running:
        assert running.ready_share == 0
        next(running)
        assert wait_until(lambda: running.ready_share == 1)


def test_a_parent_killed_outright_leaves_no_render_process_behind():
    script = f"""
import sys
sys.path[:0] = [{str(TESTS)!r}, {str(TESTS.parent)!r}]
from data_helpers import Handmade, band_rows, piece, chunker
from data_gen.workers import Workers
if __name__ == "__main__":
    running = Workers(chunker(Handmade(piece(band_rows(0, 2)))), 2)
    next(running)
    print(*running._pool.process_ids, flush=True)
    sys.stdin.read()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=TESTS.parent
    )
    try:
        children = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(children) == 2
        assert all(map(is_alive, children))
    finally:
        parent.kill()
        parent.wait()
        parent.stdin.close()
        parent.stdout.close()
    try:
        assert wait_until(lambda: not any(map(is_alive, children)))
    finally:
        for child in filter(is_alive, children):
            os.kill(child, signal.SIGKILL)


def test_an_interrupt_from_the_keyboard_does_not_reach_the_render_processes(plain, undisturbed):
    with Workers(plain, 1) as running:
        visits = [next(running)]
        before = pids(running)
        os.kill(before[0], signal.SIGINT)
        visits += [next(running) for _ in range(6)]
        assert same(visits, undisturbed[:7])
        assert pids(running) == before


def test_visits_differ_from_one_another(undisturbed):
    assert len({visit.stems.tobytes() for visit in undisturbed}) == len(undisturbed)
    assert all(np.abs(visit.stems).max() > 0 for visit in undisturbed)


@pytest.mark.skipif(not pathlib.Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_the_memory_of_a_worker_does_not_grow_with_its_visits(plain):
    def resident_mb(pid):
        return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    with Workers(plain, 1) as running:
        for _ in range(50):
            next(running)
        (pid,) = pids(running)
        before_mb = resident_mb(pid)
        for _ in range(400):
            next(running)
        assert resident_mb(pid) < before_mb + 10
        assert resident_mb(pid) < pathlib.Path(SOUNDFONT).stat().st_size / 2**20 + 300
