import dataclasses
import itertools
import json

import numpy as np
import pytest
from conftest import ROOT, SOUNDFONT

from data_gen import InputError
from sourcesep.cluster import machine_number
from sourcesep.config import Config
from sourcesep.run_dir import RunDir
from sourcesep.sources import make_chunker, start_workers

CLUSTER = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}


def set_tf_config(monkeypatch, cluster, kind, index):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}}))


@pytest.mark.parametrize("kind, index, expected", [("chief", 0, 0), ("worker", 0, 1), ("worker", 1, 2)])
def test_machines_are_numbered_from_the_chief_on(config, monkeypatch, kind, index, expected):
    set_tf_config(monkeypatch, CLUSTER, kind, index)
    assert machine_number(config) == expected
    assert machine_number(dataclasses.replace(config, strategy="one")) == 0


def test_each_machine_renders_from_a_seed_of_its_own(config, monkeypatch):
    visits = []
    for index in range(2):
        set_tf_config(monkeypatch, {"worker": ["a:1", "b:1"]}, "worker", index)
        with start_workers(config) as workers:
            visits.append(next(workers))
    np.testing.assert_array_equal(visits[0].mixture, make_chunker(config, "train").visit(0).mixture)
    assert visits[0].mixture.shape != visits[1].mixture.shape or (visits[0].mixture != visits[1].mixture).any()


def test_a_run_that_starts_from_another_hears_other_chunks_than_all_before_it(config, tmp_path):
    configs = [config]
    for name in ("first", "second"):
        RunDir(tmp_path / name).create_or_resume(configs[-1])
        configs.append(dataclasses.replace(config, start_from=str(tmp_path / name)))
    configs += [dataclasses.replace(config, start_from=start) for start in ("pretrained", str(tmp_path / "deleted"))]
    heard = []
    for one in configs:
        with start_workers(one) as workers:
            heard.append(next(workers).mixture)
    np.testing.assert_array_equal(heard[0], make_chunker(config, "train").visit(0).mixture)
    for one, other in itertools.combinations(heard[:3], 2):
        assert one.shape != other.shape or (one != other).any()
    assert all(mixture.shape != heard[0].shape or (mixture != heard[0]).any() for mixture in heard[3:])


def test_runs_that_started_from_each_other_are_counted_once(config, tmp_path):
    for name, start_from in (("a", "b"), ("b", "a")):  # a was deleted, and made again from b
        RunDir(tmp_path / name).create_or_resume(dataclasses.replace(config, start_from=str(tmp_path / start_from)))
    with start_workers(RunDir(tmp_path / "a").config()) as workers:
        assert next(workers).mixture.size


@pytest.mark.parametrize(
    "text", ["", "no json", "{}", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}']
)
def test_a_cluster_that_is_not_described_is_one_clear_line(config, monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError, match="--strategy=multi_worker reads the cluster from .* TF_CONFIG"):
        machine_number(dataclasses.replace(config, strategy="multi_worker"))


@pytest.mark.parametrize("n_workers", [0, 1])
def test_workers_that_were_started_early_begin_where_they_are_told(config, n_workers):
    with start_workers(dataclasses.replace(config, workers=n_workers)) as workers:
        workers.next_visit = 7
        visit = next(workers)
    expected = make_chunker(config, "train")
    index = visit.index
    assert index >= 7
    assert all(not len(expected.visit(earlier).starts_s) for earlier in range(7, index))
    np.testing.assert_array_equal(visit.mixture, expected.visit(index).mixture)


def test_the_chunks_of_a_seed_stay_what_they_were():
    """100 chunks recorded with version 0.1.0: visit, start in seconds, RMS of drums, piano, strings and bass.

    Levels and not bits, since processors and releases of FluidSynth differ in the last ones.
    """
    recorded = np.array(json.loads((ROOT / "tests" / "recorded_chunks.json").read_text()))
    varied = Config(sample_rate=16_000, chunks_per_piece=10, vary_reverb=0.5, vary_chorus=0.5, soundfonts=(SOUNDFONT,))
    chunker = make_chunker(varied, "train")
    rows = []
    for index in range(int(recorded[-1, 0]) + 1):
        visit = chunker.visit(index)
        levels = np.sqrt(np.square(visit.stems, dtype=np.float64).mean(axis=1))
        rows += [[index, start_s, *level] for start_s, level in zip(visit.starts_s, levels)]
    np.testing.assert_allclose(rows[:100], recorded, rtol=1e-3, atol=1e-4)
