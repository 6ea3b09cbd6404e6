"""Training on several devices and machines: real processes, real collectives."""

import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT, as_flags

PROGRAM = pathlib.Path(__file__).with_name("distributed_program.py")


def free_ports(n):
    sockets = [socket.socket() for _ in range(n)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def cluster(n=2):
    """TF_CONFIG of each of so many machines on this one."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(n)]
    return [
        json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}) for index in range(n)
    ]


def run_program(output, n_shares, share, name, tf_config=None):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **({"TF_CONFIG": tf_config} if tf_config else {})}
    command = [sys.executable, str(PROGRAM), str(output), str(n_shares), str(share), name]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def result_of(process, output):
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    with np.load(output) as stored:
        return stored["weights"], stored["averages"], json.loads(str(stored["losses"]))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one device makes of the whole batches."""
    output = tmp_path_factory.mktemp("alone") / "alone.npz"
    return result_of(run_program(output, 1, 0, "one"), output)


def assert_same(result, expected):
    weights, averages, losses = result
    np.testing.assert_allclose(weights, expected[0], atol=1e-5)
    np.testing.assert_allclose(averages, expected[1], atol=1e-5)
    assert [taken for _, taken, _ in losses] == [True, True, False, True, True]
    for (loss, taken, progress), (loss_alone, _, _) in zip(losses, expected[2]):
        assert not taken or loss == pytest.approx(loss_alone, rel=1e-4)
        assert progress == pytest.approx(0.4)  # the mean of the machines' clocks, which gives one learning rate to all


def test_two_devices_train_as_one_with_twice_the_batch(alone, tmp_path):
    assert_same(result_of(run_program(tmp_path / "a.npz", 2, -1, "mirrored"), tmp_path / "a.npz"), alone)


def test_two_machines_train_as_one_with_twice_the_batch_and_end_alike(alone, tmp_path):
    outputs = [tmp_path / "0.npz", tmp_path / "1.npz"]
    processes = [
        run_program(output, 2, index, "multi_worker", tf_config)
        for index, (output, tf_config) in enumerate(zip(outputs, cluster()))
    ]
    results = [result_of(process, output) for process, output in zip(processes, outputs)]
    for result in results:
        assert_same(result, alone)
    np.testing.assert_array_equal(results[0][0], results[1][0])


def machine_of(tf_config, run_dir, flags):
    return subprocess.Popen(
        [sys.executable, "train.py", f"--run_dir={run_dir}", *flags],
        cwd=ROOT,
        env={**os.environ, "TF_CONFIG": tf_config},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def newest_step(run_dir):
    return max((int(path.name[5:]) for path in (run_dir / "checkpoints").glob("step-*")), default=0)


def wait_for_step(run_dir, step, processes):
    deadline = time.monotonic() + 120
    while newest_step(run_dir) < step:
        assert time.monotonic() < deadline, [
            process.communicate()[1][-2000:] for process in processes if process.kill()
        ]
        time.sleep(0.1)


def test_a_machine_killed_and_started_again_brings_the_run_back_from_its_checkpoint(config, tmp_path):
    config = dataclasses.replace(config, steps=1_000_000, checkpoint_minutes=0.0, average=0.9, validate_every=10)
    flags = as_flags(config)
    configs = cluster()
    machines = [machine_of(tf_config, tmp_path / "run", flags) for tf_config in configs]
    try:
        wait_for_step(tmp_path / "run", 5, machines)
        os.killpg(machines[1].pid, signal.SIGKILL)
        machines[1].communicate()
        machines[1] = machine_of(configs[1], tmp_path / "run", flags)
        next_validation = (newest_step(tmp_path / "run") // config.validate_every + 1) * config.validate_every
        wait_for_step(tmp_path / "run", next_validation + 2, machines)
        for machine in machines:
            os.killpg(machine.pid, signal.SIGTERM)
        outputs = [machine.communicate(timeout=120) for machine in machines]
        assert [machine.returncode for machine in machines] == [130, 130], outputs
        assert "another machine" in outputs[0][1]
        assert "resuming after step" in outputs[1][1]
    finally:
        for machine in machines:
            if machine.poll() is None:
                os.killpg(machine.pid, signal.SIGKILL)
                machine.communicate()
