"""`training.fit`: steps, resume, interruption, precision, and what it refuses."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from toy_methods import Game, Regressor, ToyBatches, interrupt

from reidlib import networks, training
from reidlib.machine import has_fast_bfloat16, pick_device
from reidlib.training.updates import deterministic_kernels

QUIET = {"device": "cpu", "precision": "fp32", "progress": False}
PATIENCE = 300  # seconds for another process, on a machine that is busy with other tests


def state(method: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in method.state_dict().items()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_two_networks_take_the_steps_of_a_hand_written_loop():
    game = Game()
    training.fit(game, ToyBatches(), 7, seed=3, **QUIET)

    from reidlib.training.loop import step_seed

    mine, batches = Game(), ToyBatches()
    d = torch.optim.SGD(mine.D.parameters(), lr=0.05, momentum=0.9)
    g = torch.optim.Adam(mine.G.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.StepLR(g, 5)
    for step in range(7):
        torch.manual_seed(step_seed(3, step, 0))
        d.param_groups[0]["lr"] = 0.05 * 0.5 ** (step // 4)
        real = batches(step)["images"].flatten(1)
        fake = mine.G(torch.randn(len(real), 5))
        d.zero_grad()
        (((mine.D(real) - 1) ** 2).mean() + (mine.D(fake.detach()) ** 2).mean()).backward()
        d.step()
        g.zero_grad()
        ((mine.D(fake) - 1) ** 2).mean().backward()
        g.step()
        schedule.step()
    assert_same(state(game), state(mine))


def test_plain_update_takes_one_step_of_the_named_optimizer():
    """By hand, two training steps: gradients are fresh at each, and a loss through D leaves nothing in it."""
    game, mine, batch = Game(), Game(), ToyBatches()(0)
    update = training.plain_update(game)
    d = torch.optim.SGD(mine.D.parameters(), lr=0.05, momentum=0.9)
    g = torch.optim.Adam(mine.G.parameters(), lr=0.01)
    real = batch["images"].flatten(1)
    for seed in (3, 4):
        torch.manual_seed(seed)
        losses = game.training_step(batch, seed, update)
        torch.manual_seed(seed)
        fake = mine.G(torch.randn(len(real), 5))
        d.zero_grad()
        loss_d = ((mine.D(real) - 1) ** 2).mean() + (mine.D(fake.detach()) ** 2).mean()
        loss_d.backward()
        d.step()
        kept = [p.grad.clone() for p in game.D.parameters()]
        assert all(torch.equal(a, p.grad) for a, p in zip(kept, mine.D.parameters(), strict=True))
        g.zero_grad()
        ((mine.D(fake) - 1) ** 2).mean().backward()
        g.step()
        assert torch.equal(losses["L_D"], loss_d)
        assert_same(state(game), state(mine))
    with pytest.raises(ValueError, match="names no optimizer"):
        training.plain_update(type("Nothing", (Game,), {"optimizers": lambda self: {}})())


@pytest.mark.parametrize("stop", [4, 10])
@pytest.mark.parametrize("options", [{}, {"ema": 0.9}, {"precision": "bf16"}, {"accumulation": 2}])
def test_a_resumed_run_meets_the_same_numbers(tmp_path: Path, stop: int, options: dict):
    arguments = {**QUIET, "log_every": 4, **options}
    straight = Regressor(schedule=lambda step: 1 / (1 + step))
    history = training.fit(straight, ToyBatches(), 12, tmp_path / "straight", **arguments)
    begun = Regressor(schedule=lambda step: 1 / (1 + step))
    stopping = {"evaluate": interrupt, "evaluate_every": stop}
    with pytest.raises(training.Interrupted, match=f"after step {stop}, saved"):
        training.fit(begun, ToyBatches(), 12, tmp_path / "two", **arguments, **stopping)
    resumed = Regressor(schedule=lambda step: 1 / (1 + step))
    again = training.fit(resumed, ToyBatches(), 12, tmp_path / "two", **arguments)
    assert again.resumed_from == stop and again.steps == 12 and again.images == history.images == 96
    assert_same(state(straight), state(resumed))
    same = [c for c in history.losses if c not in ("seconds", "images_per_second")]
    assert history.losses[same].equals(again.losses[same])
    assert history.losses["step"].tolist() == [4, 8, 12]


def test_torch_schedulers_resume_too(tmp_path: Path):
    straight, resumed = Game(), Game()
    training.fit(straight, ToyBatches(), 12, **QUIET)
    with pytest.raises(training.Interrupted):
        training.fit(Game(), ToyBatches(), 12, tmp_path, evaluate=interrupt, evaluate_every=7, **QUIET)
    history = training.fit(resumed, ToyBatches(), 12, tmp_path, **QUIET)
    assert_same(state(straight), state(resumed))
    assert history.losses["lr/G"].iloc[-1] == pytest.approx(0.01 * 0.1**2)  # StepLR(5): twice by step 12
    assert history.losses["lr/D"].iloc[-1] == pytest.approx(0.05 * 0.5**2)  # the function at 0-based step 11


def test_a_finished_run_only_loads(tmp_path: Path, monkeypatch):
    first, again = Regressor(), Regressor()
    done = training.fit(first, ToyBatches(), 5, tmp_path, **QUIET)
    monkeypatch.setattr(Regressor, "training_step", lambda *arguments: pytest.fail("no step is due"))
    history = training.fit(again, ToyBatches(), 5, tmp_path, **QUIET)
    assert_same(state(first), state(again))
    assert history.seconds == done.seconds and history.losses.equals(done.losses)


def test_the_caller_keeps_its_random_state_and_its_batch(monkeypatch):
    layout = {"precision": "fp32", "channels_last": True}  # as on a GPU under bf16
    monkeypatch.setattr("reidlib.training.fitting._numerics", lambda *arguments: layout)
    method, batch = Regressor(), ToyBatches()(0)
    before = batch["images"].clone()
    torch.manual_seed(9)
    expected = torch.rand(2)
    torch.manual_seed(9)
    assert training.fit(method, lambda step: batch, 2, **QUIET).channels_last
    assert method.net[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(torch.rand(2), expected)
    assert (
        torch.equal(batch["images"], before) and batch["images"].is_contiguous() and set(batch) == {"images", "indices"}
    )


def test_accumulation_is_the_same_step_for_losses_that_are_means():
    whole, pieces = Regressor(dropout=0.0), Regressor(dropout=0.0)
    for method in (whole, pieces):
        method.net[1] = nn.Identity()  # BatchNorm alone sees the pieces
    arguments = {**QUIET, "log_every": 1}
    a = training.fit(whole, ToyBatches(), 4, **arguments)
    b = training.fit(pieces, ToyBatches(), 4, accumulation=3, **arguments)  # 8 images in 3, 3, 2
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(pieces.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(a.losses["squared error"], b.losses["squared error"], rtol=1e-5)


def test_accumulation_leaves_batch_normalisation_no_piece_of_a_single_image():
    class Necked(Regressor):
        def __init__(self):
            super().__init__()
            self.neck = nn.BatchNorm1d(6)

    with pytest.raises(ValueError, match="8 images cannot be cut into accumulation=5 pieces of 2 or more"):
        training.fit(Necked(), ToyBatches(), 1, accumulation=5, **QUIET)
    training.fit(Regressor(), ToyBatches(), 1, accumulation=5, **QUIET)  # maps of one image are enough elsewhere


def test_accumulation_leaves_nothing_of_one_loss_in_the_other_network():
    """The generator's loss passes through D; were its gradients kept there, D's summed gradient would be wrong."""

    class Probe(Game):
        def training_step(self, batch, step, update):
            losses = super().training_step(batch, step, update)
            self.left = [p.grad for p in self.D.parameters()]
            return losses

    probe = Probe(norm=False)
    training.fit(probe, ToyBatches(), 1, accumulation=1, **QUIET)
    assert all(gradient is None for gradient in probe.left)
    # deterministic noise: pieces of the same batch give the gradient of the whole for D's first step
    d_whole, d_pieces = Game(norm=False), Game(norm=False)
    for game in (d_whole, d_pieces):
        for parameter in game.G.parameters():
            nn.init.zeros_(parameter)  # the fake is 0 whatever the noise
    training.fit(d_whole, ToyBatches(), 1, **QUIET)
    training.fit(d_pieces, ToyBatches(), 1, accumulation=4, **QUIET)
    for a, b in zip(d_whole.D.parameters(), d_pieces.D.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_a_non_finite_loss_names_every_term_and_the_step_and_keeps_the_weights(tmp_path: Path):
    with pytest.raises(FloatingPointError, match=r"step 5: L_G.*update\('G'\).*L_D = [0-9.]+, L_G = nan"):
        training.fit(Game(poison=5), ToyBatches(), 9, tmp_path, checkpoint_every=5, **QUIET)
    good = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert good["step"] == 5
    assert all(torch.isfinite(tensor).all() for tensor in good["method"].values())

    class Root(Regressor):
        def training_step(self, batch, step, update):
            loss = self.net[0].weight.sum() * 0 + self.net[0].bias.mul(0).square().sum().sqrt()
            update("E", loss)  # the value is 0, its gradient is not a number
            return {"root": loss}

    method = Root()
    before = state(method)
    with pytest.raises(FloatingPointError, match=r"step 0: update\('E'\): loss 0, norm of its gradients nan.*root = 0"):
        training.fit(method, ToyBatches(), 2, **QUIET)
    assert_same(before, state(method))


def test_a_network_used_after_its_own_step_under_bf16_has_its_new_weights():
    """Autocast's cache of casted weights would show the old ones for the rest of the step."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(2, 1, bias=False)
            nn.init.ones_(self.net.weight)

        def optimizers(self):
            parameters = list(self.net.parameters())
            return {"D": (parameters, torch.optim.SGD(parameters, lr=1.0), None)}

        def training_step(self, batch, step, update):
            before = self.net(batch["images"]).float().mean()
            update("D", before)
            with torch.no_grad():
                return {"before": before, "after": self.net(batch["images"]).float().mean()}

    history = training.fit(
        Twice(), lambda step: {"images": torch.ones(4, 2)}, 1, device="cpu", precision="bf16", progress=False
    )
    assert history.losses.loc[0, ["before", "after"]].tolist() == [2.0, 0.0]  # weights 1, 1 then 0, 0


def test_averaged_weights():
    values = []

    class Ramp(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(()))

        def optimizers(self):
            return {"R": ([self.w], torch.optim.SGD([self.w], lr=1.0), None)}

        def training_step(self, batch, step, update):
            values.append(self.w.item())
            update("R", -self.w)  # up by 1 a step
            return {"w": self.w}

    ramp, seen = Ramp(), []

    def evaluate(method, step):
        seen.append(method.w.item())
        return {}

    one = {"images": torch.ones(1)}
    training.fit(ramp, lambda step: one, 3, ema=0.5, evaluate=evaluate, evaluate_every=1, **QUIET)
    average, expected = 0.0, []
    for step in (1, 2, 3):
        decay = min(0.5, step / (9 + step))
        average = decay * average + (1 - decay) * step
        expected.append(average)
    assert values == [0, 1, 2]  # the live weights go on unaveraged
    np.testing.assert_allclose(seen, expected, rtol=1e-6)
    assert ramp.w.item() == pytest.approx(expected[-1])


def test_evaluation_runs_in_eval_mode_and_changes_no_number(tmp_path: Path):
    modes = []

    def evaluate(method: nn.Module, step: int) -> dict[str, float]:
        modes.append((method.training, torch.is_grad_enabled()))
        torch.rand(7)  # whatever it draws
        return {"rank-1": step / 10}

    watched, alone = Regressor(), Regressor()
    history = training.fit(watched, ToyBatches(), 7, evaluate=evaluate, evaluate_every=3, **QUIET)
    training.fit(alone, ToyBatches(), 7, **QUIET)
    assert_same(state(watched), state(alone))
    assert history.evaluations["step"].tolist() == [3, 6, 7] and history.evaluations["rank-1"].tolist() == [
        0.3,
        0.6,
        0.7,
    ]
    assert set(modes) == {(False, False)}
    # a finished run is evaluated once if nobody did, and not again
    training.fit(Regressor(), ToyBatches(), 4, tmp_path, **QUIET)
    for _ in range(2):
        again = training.fit(Regressor(), ToyBatches(), 4, tmp_path, evaluate=evaluate, **QUIET)
        assert again.evaluations["step"].tolist() == [4]
    assert len(modes) == 4


def test_fit_works_outside_the_main_thread():
    histories = []
    thread = threading.Thread(target=lambda: histories.append(training.fit(Regressor(), ToyBatches(), 2, **QUIET)))
    thread.start()
    thread.join()
    assert histories[0].steps == 2


def test_another_training_is_refused_with_every_difference(tmp_path: Path):
    def train(method=None, *, steps=3, **options):
        return training.fit(method or Regressor(), ToyBatches(), steps, tmp_path, **{**QUIET, **options})

    train(settings={"loss": "lsr", "camera": 3})
    with pytest.raises(
        ValueError, match=r"(?s)seed: checkpoint 0, now 1.*settings.loss: checkpoint 'lsr', now 'softmax'"
    ):
        train(settings={"loss": "softmax", "camera": 3}, seed=1)
    with pytest.raises(ValueError, match=r"shape of net.0.weight: checkpoint \[6, 3, 3, 3\], now \[7, 3, 3, 3\]"):
        train(Regressor(width=7), settings={"loss": "lsr", "camera": 3})
    with pytest.raises(ValueError, match="precision: checkpoint 'fp32', now 'bf16'"):
        train(settings={"loss": "lsr", "camera": 3}, precision="bf16")
    for steps in (2, 4):  # a schedule that depends on the length would jump
        with pytest.raises(ValueError, match=f"steps: checkpoint 3, now {steps}"):
            train(settings={"loss": "lsr", "camera": 3}, steps=steps)
    assert train(settings={"loss": "lsr", "camera": 3}, precision="auto").precision == "fp32"  # as it began
    assert train(Regressor(width=7), resume=False).resumed_from is None
    (tmp_path / "checkpoint.pt").write_bytes(b"something else")
    with pytest.raises(ValueError, match="no whole checkpoint"):
        train()


def test_bad_arguments_are_refused_at_the_door():
    refused = {
        "steps must be a whole number": {"steps": 0},
        "'fp32', 'bf16'; got 'fp16'": {"precision": "fp16"},
        "ema must lie": {"ema": 1.5},
        "unknown device": {"device": "tpu!"},
        "cannot be cut into accumulation=9": {"accumulation": 9},
    }
    for message, options in refused.items():
        with pytest.raises(ValueError, match=message):
            training.fit(Regressor(), ToyBatches(), **{"steps": 1, **QUIET, **options})
    with pytest.raises(TypeError, match=r"nn\.Module"):
        training.fit(object(), ToyBatches(), 1, **QUIET)

    def broken(**methods):
        return training.fit(type("Broken", (Game,), methods)(), ToyBatches(), 1, **QUIET)

    def used_up(self):
        parameters = self.D.parameters()
        return {"D": (parameters, torch.optim.SGD(parameters, lr=0.1), None)}

    def outside(self):
        parameters = list(nn.Linear(2, 2).parameters())
        return {"D": (parameters, torch.optim.SGD(parameters, lr=0.1), None)}

    with pytest.raises(ValueError, match="generator is used up"):
        broken(optimizers=used_up)
    with pytest.raises(ValueError, match="not in the method's own parameters"):
        broken(optimizers=outside)
    with pytest.raises(ValueError, match="optimizers are D, G"):
        broken(training_step=lambda self, batch, step, update: update("E", torch.zeros(())))
    with pytest.raises(ValueError, match=r"one number, got shape \(2,\)"):
        broken(training_step=lambda self, batch, step, update: update("G", torch.zeros(2)))
    with pytest.raises(ValueError, match="reaches none of the parameters of 'D'"):
        broken(training_step=lambda self, batch, step, update: update("D", self.G(torch.ones(2, 5)).mean()))


def test_auto_precision_follows_the_hardware_and_the_state_of_torch_is_put_back():
    for precision in ("auto", "bf16", "fp32"):
        history = training.fit(Regressor(), ToyBatches(), 1, device="cpu", precision=precision, progress=False)
        expected = precision if precision != "auto" else "bf16" if has_fast_bfloat16(torch.device("cpu")) else "fp32"
        assert history.precision == expected and not history.channels_last
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    with deterministic_kernels():
        assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == before
    assert pick_device("auto").type in ("cpu", "cuda", "mps")


def test_plain_progress_lines(capsys, monkeypatch):
    monkeypatch.setattr("reidlib.machine.SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr("reidlib.machine.is_interactive", lambda: False)
    training.fit(Regressor(), ToyBatches(), 3, **QUIET | {"progress": True})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" · ")[0] for line in lines] == [f"training {step}/3 steps" for step in (1, 2, 3)]
    assert "squared error" in lines[0] and "images/s" in lines[0] and "s left" in lines[1]
    monkeypatch.setattr("reidlib.machine.SECONDS_BETWEEN_LINES", 3600.0)
    training.fit(Regressor(), ToyBatches(), 3, **QUIET | {"progress": True})
    assert capsys.readouterr().out.startswith("training 3/3 steps")  # one line a training, if it is short
    training.fit(Regressor(), ToyBatches(), 3, **QUIET)
    assert capsys.readouterr().out == ""


def test_a_bar_where_somebody_watches(capsys, monkeypatch):
    monkeypatch.setattr("reidlib.machine.is_interactive", lambda: True)
    training.fit(Regressor(), ToyBatches(), 3, **QUIET | {"progress": True})
    captured = capsys.readouterr()
    assert "3/3" in captured.err and "squared error" in captured.err and not captured.out


def test_weights_travel_in_half_precision_and_are_refused_where_they_do_not_fit(tmp_path: Path):
    method = Regressor().to(memory_format=torch.channels_last)
    path = networks.save_weights(method, tmp_path / "a b" / "weights.safetensors", half=True, facts={"rank-1": 0.5})
    (tmp_path / "plain.txt").touch()
    assert path.stat().st_mode == (tmp_path / "plain.txt").stat().st_mode  # others may read it, too
    other = Regressor()
    nn.init.zeros_(other.net[0].weight)
    assert networks.load_weights(other, path) == {"rank-1": 0.5}
    torch.testing.assert_close(other.net[0].weight, method.net[0].weight, rtol=1e-3, atol=1e-4)
    assert other.net[0].weight.dtype == torch.float32 and other.net[1].num_batches_tracked.dtype == torch.int64
    with pytest.raises(ValueError, match=r"net.0.weight: file \(6, 3, 3, 3\), here \(7, 3, 3, 3\)"):
        networks.load_weights(Regressor(width=7), path)
    with pytest.raises(FileNotFoundError, match="no weights at"):
        networks.load_weights(other, tmp_path / "none.safetensors")
