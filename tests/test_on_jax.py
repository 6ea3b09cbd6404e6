"""Training on Keras' JAX backend: in processes of its own, in which TensorFlow cannot be imported."""

import dataclasses
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, as_flags, change
from helpers import make_run, noise

from benchmarks import runs
from data_gen import InputError
from data_gen.chunks import Visit
from data_gen.workers import Visits
from sourcesep.models import build
from sourcesep.run_dir import RunDir
from sourcesep.sources import make_chunker
from sourcesep.train import device_pool, on_jax, training
from sourcesep.train.augmentation import augment, n_draws
from sourcesep.train.losses import FUNCTIONS, make_loss

needs_jax = pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="JAX is not installed")

TRAIN = "import sys; sys.modules['tensorflow'] = None; from sourcesep import cli; cli.train()"


def start(folder, *arguments):
    """Starts Python with these arguments, on JAX; what it compiles is kept in a folder."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(folder), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **cache, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def small(config):
    """The smallest bandnet, with all that a step may hold."""
    network = {"blocks": 1, "filters": 8, "mix_filters": 3, "band_hz": 500.0, "bands_per_octave": 1}
    return change(
        change(config, model="bandnet"),
        **network,
        chunk_ms=150.0,
        loss="log_nmse",
        remix=0.5,
        drop=0.1,
        learning_rate=1e-2,
        clip_norm=1.0,
        average=0.8,
        steps=10**6,
        checkpoint_minutes=0.01,
    )


@pytest.fixture(scope="module")
def interrupted(small, tmp_path_factory):
    """(run directory, exit status, output, errors) of a run that SIGTERM ends after its first checkpoint."""
    run_dir = tmp_path_factory.mktemp("runs") / "on_jax"
    process = start(run_dir.parent, "-c", TRAIN, *as_flags(small), f"--run_dir={run_dir}")
    while process.poll() is None and not (run_dir / "best.weights.h5").exists():
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate()
    return run_dir, process.returncode, output, errors


@needs_jax
def test_a_run_that_sigterm_ends_is_saved_and_resumed_and_tensorflow_reads_it(small, interrupted):
    run_dir, status, output, errors = interrupted
    assert status == 130, errors
    (stopped_at,) = map(int, re.findall(r"step (\d+)", output))
    with np.load(RunDir(run_dir).jax_checkpoint) as saved:
        assert saved["step"] == stopped_at
    steps = stopped_at + 5
    process = start(run_dir.parent, "-c", TRAIN, *as_flags(small, steps=steps), f"--run_dir={run_dir}")
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert f"resuming after step {stopped_at}\n" in errors
    assert f"step {steps}: loss " in output
    assert re.search(r"0\.\d+ s per step, \d+% of it waiting for chunks; \d[\d,]* s of audio rendered", output)

    training_of_run = runs.read_training(run_dir)
    assert (training_of_run.steps, training_of_run.device) == (steps, "cpu") and training_of_run.seconds > 0

    before, after = build(small).get_weights(), RunDir(run_dir).trained_model().get_weights()
    changed = [(one != other).any() for one, other in zip(before, after)]
    assert np.mean(changed) > 0.5
    with pytest.raises(InputError, match="KERAS_BACKEND=jax"):
        training.train(small, str(run_dir))


COMPUTE = """
import sys
sys.modules["tensorflow"] = None
import jax, keras, numpy as np
from sourcesep.run_dir import RunDir
from sourcesep.train import on_jax
from sourcesep.train.augmentation import augment
from sourcesep.train.losses import FUNCTIONS
from sourcesep.train.schedule import make_optimizer


@jax.jit  # operation by operation, all of them would be compiled for themselves
def compute(mixture, stems, draws):
    found = {name: loss(stems, stems[::-1]) for name, loss in FUNCTIONS.items()}
    found["mixture"], found["stems"] = augment(mixture, stems, 0.5, 0.3, draws)
    return found


given = np.load(sys.argv[1])
mixture, stems, draws = (jax.numpy.array(given[name]) for name in ("mixture", "stems", "draws"))
computed = compute(mixture, stems, draws)
chunks, still = np.arange(4, dtype=np.int32), np.ones_like(draws)  # no stem is remixed or dropped
for folder in sys.argv[2:]:
    run, found = RunDir(folder), dict(computed)
    config, model = run.config(), run.trained_model()
    optimizer = make_optimizer(config, config.learning_rate, model)
    optimizer.build(model.trainable_variables)
    variables = model.trainable_variables, model.non_trainable_variables, optimizer.variables
    state = tuple([variable.value for variable in some] for some in variables)
    step = jax.jit(on_jax.make_step(model, optimizer, config))
    for name, rate, limit, bad in (("taken", 1e-2, np.inf, 0), ("nan", 1e-2, np.inf, np.nan), ("spike", 1e-2, 1e-6, 0)):
        after, found[name] = step(state, (mixture + bad, stems), chunks, still, np.float32(rate), np.float32(limit))
        changed = [bool((one != other).any()) for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(after))]
        assert any(changed) == (name == "taken"), name
    learnt = []
    for _ in range(150):
        state, outcome = step(state, (mixture, stems), chunks, still, np.float32(1e-2), np.float32(np.inf))
        learnt.append(outcome[0])
    found["learnt"] = np.asarray(learnt)
    found["estimates"] = model.predict_on_batch(np.asarray(mixture))
    np.savez(f"{folder}/found.npz", **{name: np.asarray(value) for name, value in found.items()})
"""


@pytest.fixture(scope="module")
def given(small):
    """(mixture float32 [4, time, 1], its stems [4, time, 2], numbers for `augment`)."""
    times_s = np.arange(1_360)[:, None] / small.sample_rate
    stems = noise(4, 1_360, 2, level=0.01) + 0.1 * np.sin(2 * np.pi * np.float32([200, 1_500]) * times_s)
    stems = stems.astype(np.float32)
    return stems.sum(axis=2, keepdims=True), stems, np.random.default_rng(0).random((4, n_draws(2)), np.float32)


@pytest.fixture(scope="module")
def computed(given, small, tmp_path_factory):
    """A run for each optimizer, in whose folder is what COMPUTE finds: in one process, since it starts slowly."""
    folder = tmp_path_factory.mktemp("computed")
    np.savez(folder / "given.npz", **dict(zip(("mixture", "stems", "draws"), given)))
    made = {name: make_run(change(small, optimizer=name), folder / name) for name in ("adam", "muon")}
    process = start(folder, "-c", COMPUTE, folder / "given.npz", *(run.path for run in made.values()))
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return made


@needs_jax
@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_output_losses_and_augmentation_are_those_of_tensorflow_and_a_step_learns_from_good_batches_only(
    optimizer, small, given, computed
):
    run, (mixture, stems, draws) = computed[optimizer], given
    found = np.load(run.path / "found.npz")
    for name, loss in FUNCTIONS.items():
        assert float(found[name]) == pytest.approx(float(loss(stems, stems[::-1])), rel=1e-4), name
    for name, expected in zip(("mixture", "stems"), augment(mixture, stems, 0.5, 0.3, draws)):
        np.testing.assert_allclose(found[name], expected, atol=1e-6)
        assert (found[name] != {"mixture": mixture, "stems": stems}[name]).any()
    model = run.trained_model()
    inner = slice(small.context_samples, -small.context_samples)
    with tf.GradientTape() as tape:
        estimates = model(mixture, training=True)
        expected_loss = make_loss(small.loss)(stems[:, inner], estimates[:, inner])
    expected_norm = tf.linalg.global_norm(tape.gradient(expected_loss, model.trainable_variables))
    np.testing.assert_allclose(found["estimates"], estimates, atol=1e-4)
    loss, norm, taken = found["taken"].tolist()
    assert (loss, norm, taken) == pytest.approx((float(expected_loss), float(expected_norm), 1), rel=1e-3)
    assert found["learnt"][-1] < 0.5 * found["learnt"][0]
    assert np.isnan(found["nan"][0]) and found["nan"][2] == found["spike"][2] == 0


@pytest.mark.parametrize(
    "changes",
    [{"conditioning": "binary"}, {"strategy": "mirrored"}, {"steps": 0}, {"validate_soundfonts": ("x.sf2",)}],
)
def test_what_is_trained_on_tensorflow_only_is_refused(small, tmp_path, changes):
    with pytest.raises(InputError, match="TensorFlow does"):
        on_jax.train(change(small, **changes), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_run_of_tensorflow_is_not_continued_on_jax(small, tmp_path):
    (tmp_path / "checkpoints" / "step-3").mkdir(parents=True)
    with pytest.raises(InputError, match="without KERAS_BACKEND=jax"):
        on_jax.train(small, str(tmp_path))


class Numbered(Visits):
    """Visits of three chunks each that hold nothing but their number."""

    ready_share = 1.0

    def start(self):
        pass

    def close(self):
        self._closed = True

    def _take_visit(self):
        numbers = np.arange(3 * self.next_visit, 3 * self.next_visit + 3, dtype=np.float16)
        self.next_visit += 1
        mixture, stems = (np.tile(numbers[:, None, None], (1, self.chunker.time_samples, n)) for n in (1, 2))
        return Visit(self.next_visit, "song", numbers, mixture, stems, 0, 0)


@needs_jax
def test_each_batch_is_drawn_from_the_chunks_that_came_last_also_where_one_array_cannot_hold_them(small, monkeypatch):
    small = change(small, batch_size=2, pool_chunks=12)
    chunker = dataclasses.replace(make_chunker(small, "train"), dtype="float16")
    block = 2 * chunker.time_samples * len(small.stem_names)
    monkeypatch.setattr(device_pool, "MAX_NUMBERS", 2 * block + 1)  # arrays of two blocks
    with device_pool.Pool(Numbered(chunker), small) as pool:
        while pool.n_received < 8:
            assert pool.receive(wait_s=10)
        rng = np.random.default_rng(0)
        drawn = []
        for _ in range(200):
            (mixtures, stems), chunks = pool.draw(rng)
            assert mixtures.dtype == np.float16 and len(set(chunks.tolist())) == 2
            drawn += [int(mixtures[chunk, 0, 0]) for chunk in chunks]
            assert [int(stems[chunk, -1, -1]) for chunk in chunks] == drawn[-2:]
        assert len(pool.parts) == 3 and pool.is_full and pool.rendered_s == pytest.approx(16 * 0.15)
    assert set(drawn) == set(range(4, 16))
    assert np.bincount(drawn)[4:].min() > 15  # of 33 on average
