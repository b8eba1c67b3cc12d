"""`training.fit` where something goes wrong: a full disk, two at once, an interrupt at an evaluation, other threads."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from toy_methods import Game, Regressor, ToyBatches, interrupt

from reidlib import training
from reidlib.files import InUseError
from reidlib.training import checkpoints, plain_update

QUIET = {"device": "cpu", "precision": "fp32", "progress": False}
PATIENCE = 300  # seconds for another process, on a machine that is busy with other tests


def assert_same(a: torch.nn.Module, b: torch.nn.Module) -> None:
    for name, tensor in a.state_dict().items():
        assert torch.equal(tensor, b.state_dict()[name]), name


def test_a_full_disk_is_said_in_words_and_the_last_good_checkpoint_goes_on(tmp_path, monkeypatch):
    real, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    method, straight, six = Regressor(), Regressor(), Regressor()
    said = (
        r"step 6 could not be written \(No space left on device\): it needs [0-9.]+ MB, [0-9.e+]+ MB are free; the "
        r"last good one, .*checkpoint\.pt, stays"
    )
    with pytest.raises(OSError, match=said) as caught:
        training.fit(method, ToyBatches(), 9, tmp_path, checkpoint_every=3, **QUIET)
    assert caught.value.errno == errno.ENOSPC
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
    training.fit(six, ToyBatches(), 6, **QUIET)
    assert_same(method, six)  # what was learned is still in memory
    assert training.fit(method, ToyBatches(), 9, tmp_path, **QUIET).resumed_from == 3
    training.fit(straight, ToyBatches(), 9, **QUIET)
    assert_same(method, straight)


def test_a_file_that_may_not_grow_ends_the_training_in_words(tmp_path):
    """The same by the system's own limit, at the first checkpoint."""
    code = f"""
import resource, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from toy_methods import Regressor, ToyBatches
from reidlib import training
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
training.fit(Regressor(), ToyBatches(), 3, {str(tmp_path)!r}, device="cpu", progress=False)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "the checkpoint of step 3 could not be written (File too large): it needs" in ended.stderr, ended.stderr
    assert f"there is none before it in {tmp_path}" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_two_trainings_at_once_in_one_folder(tmp_path):
    """The second is told who works there, and leaves the first one's half-written file alone."""
    inside, go_on = threading.Event(), threading.Event()

    def wait(method, step):
        inside.set()
        assert go_on.wait(60)
        return {}

    first, straight = Regressor(), Regressor()
    options = {**QUIET, "evaluate": wait, "evaluate_every": 2}
    thread = threading.Thread(target=lambda: training.fit(first, ToyBatches(), 4, tmp_path, **options))
    thread.start()
    try:
        assert inside.wait(60)
        writing = tmp_path / ".checkpoint.0badcafe.part.pt"
        writing.write_bytes(b"half a file of a living process")
        for resume in (True, False):
            with pytest.raises(InUseError, match=rf"checkpoint\.pt is in use by process {os.getpid()} on "):
                training.fit(Regressor(), ToyBatches(), 4, tmp_path, resume=resume, **QUIET)
        assert writing.exists()
        training.fit(Regressor(), ToyBatches(), 4, tmp_path / "another folder", **QUIET)
    finally:
        go_on.set()
        thread.join()
    training.fit(straight, ToyBatches(), 4, **QUIET)
    assert_same(first, straight)
    again = Regressor()  # now the folder is free, and what a killed process left there is removed
    assert training.fit(again, ToyBatches(), 4, tmp_path, **QUIET).resumed_from == 4
    assert not writing.exists() and not (tmp_path / ".checkpoint.pt.lock").exists()


class Interrupting(ToyBatches):
    """Presses Ctrl-C while these steps' batches are made, once each."""

    def __init__(self, *steps: int) -> None:
        super().__init__()
        self.steps = list(steps)

    def __call__(self, step: int):
        if self.steps and step == self.steps[0]:
            signal.raise_signal(signal.SIGINT)
            self.steps.pop(0)
        return super().__call__(step)


def noisy(method, step: int) -> dict[str, float]:
    """An evaluation that draws random numbers, as one that generates from noise does."""
    return {"weight": float(method.state_dict()["net.0.weight"].sum()), "noise": float(torch.rand(()))}


@pytest.mark.parametrize("options", [{}, {"ema": 0.9}])
@pytest.mark.parametrize("stops", [[5], [5, 8], [4, 11]])  # steps counted from 0: 5 is the one that ends at step 6
def test_an_interrupt_loses_no_evaluation(tmp_path, stops, options):
    options = {**QUIET, **options, "evaluate": noisy, "evaluate_every": 3}
    straight = training.fit(Regressor(), ToyBatches(), 12, **options)
    batches = Interrupting(*stops)
    for _ in stops:
        with pytest.raises(training.Interrupted):
            training.fit(Regressor(), batches, 12, tmp_path, **options)
    resumed = training.fit(Regressor(), batches, 12, tmp_path, **options)
    assert straight.evaluations["step"].tolist() == [3, 6, 9, 12]
    same = ["step", "weight", "noise"]
    assert resumed.evaluations[same].equals(straight.evaluations[same])


def test_another_number_of_threads_is_said_and_recorded(tmp_path, recwarn):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with pytest.raises(training.Interrupted):
            training.fit(Game(), Interrupting(3), 6, tmp_path, **QUIET)
        torch.set_num_threads(2)
        with pytest.warns(
            UserWarning, match=r"1 threads\), now there are 1 on cpu \(.*2 threads\): the numbers will not"
        ):
            history = training.fit(Game(), Interrupting(), 6, tmp_path, **QUIET)
        assert "1 threads), then cpu (" in history.device and history.device.endswith("2 threads)")
        torch.set_num_threads(1)
        recwarn.clear()
        assert training.fit(Game(), Interrupting(), 6, tmp_path, **QUIET).device == history.device  # only loaded
        assert not recwarn.list
    finally:
        torch.set_num_threads(threads)


def test_peak_memory_is_that_of_the_training():
    """In a process of its own: after other tests, freed memory is still resident and may hold the 256 MB."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from toy_methods import Regressor, ToyBatches
import torch
from reidlib import training

class Large(Regressor):
    def training_step(self, batch, step, update):
        torch.ones(64 << 20).sum()  # 256 MB, freed at once
        return super().training_step(batch, step, update)

for method in (Regressor(), Large(), Regressor()):
    print(training.fit(method, ToyBatches(), 2, device="cpu", precision="fp32", progress=False).peak_memory)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    if "None" in ended.stdout:
        assert not sys.platform.startswith("linux")
        return
    small, large, again = map(int, ended.stdout.split())
    assert large - small > 200e6
    assert again - small < 100e6


class Growing(Regressor):
    """Reports losses that grow by a factor a step: one soon out of hand, one that stays below, one that began high."""

    def training_step(self, batch, step, update):
        super().training_step(batch, step, update)
        return {"wild": torch.tensor(10.0**step), "tame": torch.tensor(900.0), "high": torch.tensor(1e6 * (1 + step))}


def test_a_loss_that_grows_out_of_hand_is_said_once(recwarn):
    history = training.fit(Growing(), ToyBatches(), 12, log_every=2, **QUIET)
    said = [str(warning.message) for warning in recwarn if "diverges" in str(warning.message)]
    assert said == ["at step 6 this training diverges: wild = 5.5e+04 (at first 5.5); try a lower rate"]
    assert history.steps == 12


class Late(Regressor):
    """One loss begins high, late; one is seen at every other step; one grows in the last steps alone."""

    def training_step(self, batch, step, update):
        super().training_step(batch, step, update)
        odd = {"odd": torch.tensor(1e9 if step > 4 else 1.0)} if step % 2 == 0 else {}
        late = {"late": torch.tensor(2000.0)} if step >= 4 else {}
        return odd | late | {"end": torch.tensor(1e6 if step >= 10 else 1.0)}


def test_growth_is_seen_in_every_loss_and_to_the_end_and_said_once_over_a_resumed_run(tmp_path, recwarn):
    options = dict(run_dir=tmp_path, log_every=4, **QUIET)
    with pytest.raises(training.Interrupted):
        training.fit(Late(), ToyBatches(), 11, evaluate=interrupt, evaluate_every=8, **options)
    training.fit(Late(), ToyBatches(), 11, **options)
    said = [str(warning.message) for warning in recwarn if "diverges" in str(warning.message)]
    assert said == [
        "at step 8 this training diverges: odd = 5e+08 (at first 1); try a lower rate",
        "at step 11 this training diverges: end = 3.33e+05 (at first 1); try a lower rate",
    ]


def test_a_step_that_somebody_looked_at_leaves_nothing_to_the_training():
    looked, fresh = Game(norm=False), Game(norm=False)
    looked.training_step(ToyBatches()(0), 0, plain_update(looked))
    assert any(p.grad is not None for p in looked.parameters())
    fresh.load_state_dict(looked.state_dict())
    for method in (looked, fresh):
        training.fit(method, ToyBatches(), 2, **QUIET)
    assert_same(looked, fresh)


INTERRUPTED = """
import os, signal, sys, torch
sys.path.insert(0, {tests!r})
from toy_methods import Regressor, ToyBatches
from reidlib import training
batches = ToyBatches()
class Killed(ToyBatches):
    def __call__(self, step):
        if step == 7:
            os.kill(os.getpid(), signal.{signal})
        return batches(step)
training.fit(Regressor(), Killed(), 12, {run_dir!r}, device="cpu", precision="fp32", checkpoint_every=3, log_every=4)
"""


@pytest.mark.parametrize(("name", "kept"), [("SIGKILL", 6), ("SIGINT", 8)])
def test_a_kill_and_an_interrupt_leave_a_checkpoint_to_go_on_from(tmp_path: Path, name: str, kept: int):
    script = INTERRUPTED.format(tests=str(Path(__file__).parent), signal=name, run_dir=str(tmp_path))
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode != 0
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == kept
    if name == "SIGINT":
        assert "stopped after step 8, saved in" in ended.stderr and "Interrupted" in ended.stderr
    straight, resumed = Regressor(), Regressor()
    training.fit(straight, ToyBatches(), 12, **QUIET)
    (tmp_path / ".checkpoint.0badcafe.part.pt").write_bytes(b"half a file")  # what a kill while writing leaves
    history = training.fit(resumed, ToyBatches(), 12, tmp_path, **QUIET)
    assert history.resumed_from == kept
    assert_same(straight, resumed)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["checkpoint.pt"]


def test_an_interrupt_in_a_notebook_is_a_keyboard_interrupt_with_the_history():
    before = signal.getsignal(signal.SIGINT)

    class Interrupting(ToyBatches):
        def __call__(self, step):
            if step == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return super().__call__(step)

    with pytest.raises(KeyboardInterrupt, match="after step 3, not saved") as caught:
        training.fit(Regressor(), Interrupting(), 9, log_every=2, **QUIET)
    assert caught.value.history.stopped_early and caught.value.history.losses["step"].tolist() == [2, 3]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_notebooks_stop_button_saves_and_ends_the_cell(tmp_path: Path):
    from jupyter_client.manager import start_new_kernel

    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from toy_methods import Regressor, ToyBatches
from reidlib import training
training.fit(Regressor(), ToyBatches(), 10**6, {str(tmp_path)!r}, device="cpu", checkpoint_every=10, progress=False)
"""
    manager, client = start_new_kernel(kernel_name="python3", startup_timeout=PATIENCE)
    try:
        client.execute(code)
        end = time.monotonic() + PATIENCE
        while not (tmp_path / "checkpoint.pt").exists():
            assert manager.is_alive() and time.monotonic() < end, "the cell does not train"
            time.sleep(0.05)
        manager.interrupt_kernel()
        reply = client.get_shell_msg(timeout=PATIENCE)["content"]
        assert reply["ename"] == "Interrupted" and "the same call goes on from there" in reply["evalue"]
        assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] >= 10
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
