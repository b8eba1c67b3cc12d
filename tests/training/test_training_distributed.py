"""Two CPU processes under torchrun train and evaluate as one does."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_methods import N_IMAGES, Regressor, ToyBatches

from reidlib import training


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> dict:
    """What two processes saw."""
    folder = tmp_path_factory.mktemp("two processes")
    worker = Path(__file__).with_name("distributed_worker.py")
    call = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    paths = [str(Path(training.__file__).parents[2]), str(worker.parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*call, str(worker), str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               text=True, env=environment, start_new_session=True)  # fmt: skip
    try:
        _, errors = process.communicate(timeout=90)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # the launcher and its two workers
        raise
    assert process.returncode == 0, errors[-3000:]
    return json.loads((folder / "seen.json").read_text())


def test_there_are_two_processes(seen):
    assert seen["world"] == 2 and seen["processes"] == 2


def test_every_image_is_seen_once_an_epoch(seen):
    first, second = seen["indices"]
    assert len(first) == len(second) == N_IMAGES  # two epochs, half of each
    for epoch in range(2):
        half = slice(epoch * N_IMAGES // 2, (epoch + 1) * N_IMAGES // 2)
        assert sorted(first[half] + second[half]) == list(range(N_IMAGES))
    assert seen["images"] == 2 * N_IMAGES
    first, second = seen["own indices"]  # by reidlib.datasets' Batches, the last one short
    assert sorted(first + second) == list(range(26))


def test_weights_and_buffers_stay_equal_after_steps_of_both_networks(seen):
    first, second = seen["game"]
    assert first == second
    assert {name.split(".")[0] for name in first} == {"G", "D"} and "G.1.running_mean" in first
    from toy_methods import Game

    untrained = {name: tensor.tolist() for name, tensor in Game().state_dict().items()}
    assert all(first[name] != untrained[name] for name in first)  # and they moved


def test_two_processes_take_the_step_of_one_on_the_whole_batch(seen):
    one = Regressor(dropout=0.0)
    one.net[1] = torch.nn.Identity()
    training.fit(one, ToyBatches(batch_size=5), 6, device="cpu", precision="fp32", progress=False)
    for name, tensor in one.state_dict().items():
        np.testing.assert_allclose(seen["regressor"][name], tensor.numpy(), rtol=1e-4, atol=1e-6, err_msg=name)


def test_two_processes_resume_to_the_same_numbers(seen):
    assert seen["interrupted"] == [4, 4]  # process 1 alone was interrupted, in the evaluation of step 3
    assert seen["resumed"] == [seen["straight"], seen["straight"]]


def test_a_loss_that_is_not_finite_on_one_process_stops_both_at_the_same_step(seen):
    first, second = seen["stopped"]
    assert first == second and "step 1: L_G" in first and "L_D = " in first


def test_the_sharded_evaluation_gives_the_metric_of_one_process(seen):
    assert seen["joined"] == seen["whole"] and 0 < seen["whole"]["mAP (plain AP)"] < 1
