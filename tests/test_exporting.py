import json
import subprocess
import sys

import numpy as np
import pytest

from data_gen import InputError
from sourcesep.exporting import export
from sourcesep.models import build
from sourcesep.models.receptive_field import receptive_field
from sourcesep.run_dir import RunDir

SERVE = """
import sys, numpy as np, tensorflow as tf
sys.path = [path for path in sys.path if path]
assert "sourcesep" not in sys.modules
model = tf.saved_model.load(sys.argv[1])
serve = model.signatures["serving_default"]
inputs = serve.structured_input_signature[1]
assert list(inputs) == ["mixture"] and inputs["mixture"].dtype == tf.float32, inputs
assert inputs["mixture"].shape.rank == 2 and inputs["mixture"].shape.num_elements() is None
for batch, samples in ((1, 1), (2, 700), (3, 5000)):
    mixture = np.random.default_rng(samples).standard_normal((batch, samples)).astype("f4")
    outputs = serve(mixture=tf.constant(mixture))
    assert sorted(outputs) == ["bass", "drums"]
    np.savez(f"{sys.argv[2]}/{samples}.npz", mixture=mixture, **{k: v.numpy() for k, v in outputs.items()})
"""


@pytest.fixture
def run(config, tmp_path):
    run = RunDir(tmp_path / "run")
    run.create(config)
    run.save_weights(build(config))
    return run


def test_the_savedmodel_loads_alone_and_computes_what_the_model_computes(run, tmp_path):
    exported = export(run.path, tmp_path / "exported")
    subprocess.run([sys.executable, "-c", SERVE, exported.folder, tmp_path], check=True, cwd=tmp_path)
    model = run.model()
    for samples in (1, 700, 5000):
        stored = np.load(tmp_path / f"{samples}.npz")
        expected = model(stored["mixture"][:, :, None], training=False).numpy()
        for position, name in enumerate(("drums", "bass")):
            np.testing.assert_allclose(stored[name], expected[:, :, position], atol=1e-5)


def test_the_asset_tells_what_the_model_is(run, tmp_path):
    exported = export(run.path, tmp_path / "exported")
    asset = json.loads((exported.folder / "assets" / "sourcesep.json").read_text())
    field = receptive_field(run.model())
    assert asset["instruments"] == ["drums", "bass"]
    assert asset["sample_rate_hz"] == 8_000
    assert asset["receptive_field_samples"] == {"before": field.before, "after": field.after}


def test_an_export_replaces_an_older_one_and_leaves_nothing_beside_it(run, tmp_path):
    export(run.path, tmp_path / "out" / "exported")
    export(run.path, tmp_path / "out" / "exported")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["exported"]


def test_a_folder_of_something_else_is_not_replaced(run, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="precious"):
        export(run.path, tmp_path / "precious")
    assert (tmp_path / "precious" / "thesis.txt").exists()
