"""CONTRIBUTING.md shows a source of stems; here it is trained on."""

from __future__ import annotations

import re

import numpy as np
from conftest import ROOT

from data_gen.chunks import Chunker, hold_out
from data_gen.workers import Workers
from sourcesep.train import training


def shown_source():
    """The object that the page's block of code makes."""
    blocks = re.findall(r"((?:^    .*\n|^\n)+)", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    (code,) = [block for block in blocks if "class Sines" in block]
    namespace: dict = {}
    exec(re.sub(r"^    ", "", code, flags=re.M), namespace)
    return namespace["Sines"]()


def test_the_source_of_the_page_gives_chunks_whose_mixture_is_the_sum_of_their_stems():
    source = shown_source()
    visit = Chunker(source, "train", source.names, chunk_samples=800).visit(0)
    assert visit.stems.shape[1:] == (800, 2)
    assert np.abs(visit.stems).max(axis=(0, 1)).min() > 0.05
    np.testing.assert_array_equal(visit.mixture[..., 0], visit.stems[..., 0] + visit.stems[..., 1])
    assert len(hold_out(source, "test", source.names, False, 4_000, 3)) == 3


def test_a_model_trains_on_the_source_of_the_page(config, tmp_path):
    import dataclasses

    source = shown_source()
    config = dataclasses.replace(config, sample_rate=source.sample_rate, validate_every=3)
    chunker = Chunker(source, "train", source.names, config.chunk_samples, config.context_samples)
    trained = training.train(config, tmp_path, Workers(chunker, 0))
    assert trained.step == 3
    assert set(trained.scores.sdr_db) == {"drums", "bass"}
