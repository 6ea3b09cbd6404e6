"""The settings of the task: other, informed."""

import dataclasses

import numpy as np
import pytest
import soundfile
import tensorflow as tf
from conftest import TINY, change
from model_helpers import noise, scatter_weights

from data_gen import InputError
from sourcesep import sources
from sourcesep.models import build, unconditioned
from sourcesep.separate.file_plan import FilePlan
from sourcesep.separate.inputs import play_held_out
from sourcesep.separate.separate_one import separate_one
from sourcesep.separate.separation import Separator
from sourcesep.train import training
from sourcesep.train.conditioning import add_conditions


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"other": True}, "--other: every instrument is a target"),
        ({"other": True, "instruments": ("drums", "other:5"), "targets": ("drums",)}, "'other' already"),
        ({"consistent": True, "targets": ("bass",)}, "--consistent.*do not make up the mixture.*--other"),
        ({"consistent": True, "conditioning": "embedding"}, "--consistent.*one stem"),
        (
            {"model": "tasnet", "mask": "softmax", "targets": ("bass",)},
            "--mask=softmax.*--other, or use --mask=sigmoid",
        ),
        ({"model": "wave_u_net", "targets": ("bass",)}, "--difference.*--nodifference"),
        ({"loss": "mae+nmse", "targets": ("bass",)}, "--loss=mae.nmse.*do not make up the mixture.*without nmse"),
        ({"model": "wave_u_net", "conditioning": "binary"}, "--conditioning=binary.*wavenet, tasnet, bandnet can"),
        ({"blind": True}, "--blind needs --require=any"),
        ({"blind": True, "require": "any", "conditioning": "binary"}, "--blind contradicts"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_by_name(config, changes, named):
    with pytest.raises(InputError, match=named):
        change(config, **{"targets": (), **changes})


# ---- Other -----------------------------------------------------------------------------------------------------------
def test_other_is_the_sum_of_all_that_is_no_target_and_completes_the_mixture(config):
    everything = dataclasses.replace(config, instruments=("drums", "piano", "bass"), targets=())
    some = dataclasses.replace(everything, targets=("piano",), other=True)
    assert some.stem_names == ("piano", "other")
    all_stems = sources.make_chunker(everything, "train").visit(0)
    visit = sources.make_chunker(some, "train").visit(0)
    drums, piano, bass = np.moveaxis(all_stems.stems, 2, 0)
    assert (drums.any(), piano.any(), bass.any()) == (True, True, True)
    np.testing.assert_array_equal(visit.stems, np.stack([piano, drums + bass], axis=2))
    np.testing.assert_array_equal(visit.mixture[..., 0], visit.stems[..., 0] + visit.stems[..., 1])


def test_a_run_with_other_separates_and_scores_it(config, tmp_path):
    config = dataclasses.replace(config, targets=("bass",), other=True)
    training.train(config, tmp_path / "run")
    separator = Separator.from_run(tmp_path / "run")
    song = play_held_out(sources.open_source(config), config, separator.stem_names)
    separated = separate_one(separator, song, FilePlan(str(tmp_path / "out")), "song")
    assert set(separated.sdr_db) == {"bass", "other"}
    mixture, bass, other = (
        soundfile.read(separated.folder / name, dtype="float32")[0]
        for name in ("mixture.wav", "reference/bass.wav", "reference/other.wav")
    )
    np.testing.assert_allclose(bass + other, mixture, atol=1e-6)


# ---- Informed --------------------------------------------------------------------------------------------------------
def conditioned(config, conditioning, **changes):
    return change(config, **TINY, conditioning=conditioning, **changes)


def batch_of(config, stems):
    """What the model is given for these stems [batch, time, output], and what it is to give."""
    stems = tf.constant(stems, tf.float32)
    batches = tf.data.Dataset.from_tensors((tf.reduce_sum(stems, 2, keepdims=True), stems)).repeat()
    return next(iter(add_conditions(batches, config)))


def test_while_training_an_instrument_is_present_if_it_sounds_within_the_chunk(config):
    config = dataclasses.replace(config, conditioning="binary")
    stems = np.zeros((2, config.chunk_samples + 2 * config.context_samples, 2))
    stems[0, 300:] = [0.1, 1e-4]  # the second is 20 dB below the threshold
    stems[1, : config.context_samples, 0] = 0.1  # only in the context
    stems[1, 300:, 1] = 0.1
    (_, presences), _ = batch_of(config, stems)
    np.testing.assert_array_equal(presences, [[1, 0], [0, 1]])


def test_with_an_embedding_one_stem_is_drawn_for_each_example(config):
    config = dataclasses.replace(config, conditioning="embedding")
    stems = np.broadcast_to([10.0, 11.0], (64, 820, 2))
    (mixture, wanted), wanted_stems = batch_of(config, stems)
    assert mixture.shape == (64, 820, 1)
    assert set(wanted.numpy()) == {0, 1}
    np.testing.assert_array_equal(wanted_stems, np.broadcast_to(10.0 + wanted.numpy()[:, None, None], (64, 820, 1)))


@pytest.mark.parametrize("name", ["wavenet", "tasnet"])
def test_the_condition_reaches_every_block(config, name):
    config = conditioned(config, "binary", model=name)
    films = [layer for layer in build(config).layers if layer.name.endswith("film")]
    assert len(films) == config.network.stacks * config.network.blocks
    model = build(config)
    mixture = noise(1, 200, 1)
    scatter_weights(model)
    both, one = (model([mixture, np.array([presences])]).numpy() for presences in ([1.0, 1.0], [1.0, 0.0]))
    assert np.abs(both[..., 0] - one[..., 0]).max() > 1e-3  # the presence of one changes the stem of the other
    assert not one[..., 1].any()  # the stem of an absent instrument is silent


def test_what_is_missing_from_the_mixture_is_shared_among_those_present(config):
    model = build(conditioned(config, "binary", instruments=("drums", "bass", "piano"), targets=(), consistent=True))
    scatter_weights(model)
    mixture = noise(1, 100, 1)
    stems = model([mixture, np.array([[1.0, 0.0, 1.0]])]).numpy()
    assert not stems[..., 1].any()
    np.testing.assert_allclose(stems.sum(axis=2), mixture[..., 0], atol=1e-5)


@pytest.mark.parametrize("conditioning", ["binary", "embedding"])
def test_the_unconditioned_model_gives_the_stems_that_are_wanted(config, conditioning):
    config = conditioned(config, conditioning, model="tasnet", instruments=("drums", "bass", "piano"), targets=())
    model = build(config)
    scatter_weights(model)
    mixture = noise(2, 200, 1)
    stems = unconditioned(model, config, ("piano", "drums"))(mixture).numpy()
    if conditioning == "binary":
        expected = model([mixture, np.array([[1.0, 0.0, 1.0]] * 2)]).numpy()[..., [2, 0]]
    else:
        each = [model([mixture, np.array([number] * 2)]).numpy() for number in (2, 0)]
        expected = np.concatenate(each, axis=2)
    assert np.abs(stems[..., 0] - stems[..., 1]).max() > 1e-3
    np.testing.assert_allclose(stems, expected, atol=1e-6)
    with pytest.raises(InputError, match="--present=harp: the model's stems are drums, bass, piano"):
        unconditioned(model, config, ("harp",))


def test_a_model_without_conditioning_refuses_to_extract_some_of_its_stems(config):
    with pytest.raises(InputError, match="--conditioning=none"):
        unconditioned(build(config), config, ("bass",))


@pytest.mark.parametrize("conditioning", ["binary", "embedding"])
def test_a_run_is_trained_informed_and_separates_what_is_present(config, tmp_path, conditioning):
    config = dataclasses.replace(config, conditioning=conditioning)
    training.train(config, tmp_path / "run")
    assert Separator.from_run(tmp_path / "run").stem_names == ("drums", "bass")
    separator = Separator.from_run(tmp_path / "run", present=("bass",))
    assert list(separator.separate(noise(1_000), 8_000)) == ["bass"]
