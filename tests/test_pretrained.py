import h5py
import numpy as np
import pytest

from benchmarks.pretrained import pack_weights
from data_gen import InputError
from sourcesep.models import build
from sourcesep.run_dir import RunDir


@pytest.fixture
def packed(config, tmp_path):
    """(the model, the run directory of its packed weights)."""
    model = build(config)
    run = RunDir(tmp_path / "run")
    run.create(config)
    model.save_weights(tmp_path / "model.weights.h5")
    pack_weights(tmp_path / "model.weights.h5", run.weights)
    return model, run


def test_packed_weights_are_those_of_the_model_to_float16(packed):
    model, run = packed
    for before, after in zip(model.weights, run.model().weights):
        assert after.dtype == "float32"
        np.testing.assert_array_equal(np.float16(before), np.asarray(after))


def test_damaged_packed_weights_are_refused(packed):
    _, run = packed
    with h5py.File(run.weights) as file:
        arrays = []
        file.visititems(lambda _, item: arrays.append(item) if isinstance(item, h5py.Dataset) else None)
        chunk = max(arrays, key=lambda item: item.size).id.get_chunk_info(0)
    data = bytearray(run.weights.read_bytes())
    data[chunk.byte_offset + chunk.size // 2] ^= 0x10
    run.weights.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        run.model()
