"""What each of two processes does for test_training_distributed.py; process 0 writes what they saw as JSON.

python -m torch.distributed.run --nproc_per_node 2 tests/distributed_worker.py FOLDER
"""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from toy_methods import Game, Regressor, ToyBatches, interrupt

from reidlib import training
from reidlib.datasets import PersonImages
from reidlib.datasets.sampling import Batches, uniform_batches
from reidlib.evaluators import RetrievalScores, evaluate_retrieval

QUIET = {"device": "cpu", "precision": "fp32", "progress": False}


def gathered(value: object) -> list:
    """Return every process's `value`, in the order of processes."""
    everybody: list = [None] * dist.get_world_size()
    dist.all_gather_object(everybody, value)
    return everybody


def state(method: torch.nn.Module) -> dict[str, list]:
    return {name: tensor.tolist() for name, tensor in method.state_dict().items()}


class Features(torch.nn.Module):
    """Fixed features to evaluate, so that only the evaluation's split is tested."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.query = torch.randn(30, 8, generator=generator)
        self.gallery = torch.randn(200, 8, generator=generator)
        self.where = {
            "query_pids": torch.arange(30) % 11, "query_camids": torch.arange(30) % 3,
            "gallery_pids": torch.arange(200) % 13 - 1, "gallery_camids": torch.arange(200) % 4,
        }  # fmt: skip

    def scores(self, rows: torch.Tensor) -> RetrievalScores:
        where = {name: value[rows] if name.startswith("query") else value for name, value in self.where.items()}
        return evaluate_retrieval(self.query[rows], self.gallery, **where)


def main(folder: Path) -> None:
    seen: dict[str, object] = {}
    # a game of two networks, with noise and BatchNorm, whose processes begin with different weights
    game = Game()
    with torch.no_grad():
        for parameter in game.parameters():
            parameter.add_(0.1 * int(os.environ["RANK"]))
    batches = ToyBatches()
    history = training.fit(game, batches, 2 * len(batches), folder / "game", **QUIET)
    seen["world"] = dist.get_world_size()
    seen["processes"], seen["images"] = history.processes, history.images
    seen["game"] = gathered(state(game))
    seen["indices"] = gathered(game.seen)
    seen["losses"] = history.losses.drop(columns=["seconds", "images_per_second"]).to_dict("list")
    # stop and resume
    straight, resumed = Game(), Game()
    training.fit(straight, batches, 6, **QUIET)
    try:  # one process is interrupted, and both stop at the same step
        one = interrupt if dist.get_rank() == 1 else lambda method, step: {}
        training.fit(Game(), batches, 6, folder / "resumed", evaluate=one, evaluate_every=3, **QUIET)
    except training.Interrupted as stopped:
        seen["interrupted"] = gathered(stopped.history.steps)
    training.fit(resumed, batches, 6, folder / "resumed", **QUIET)
    seen["straight"], seen["resumed"] = state(straight), gathered(state(resumed))
    # shards of unequal size: the same step as one process takes on the whole batch
    regressor = Regressor(dropout=0.0)
    regressor.net[1] = torch.nn.Identity()
    training.fit(regressor, ToyBatches(batch_size=5), 6, **QUIET)
    seen["regressor"] = state(regressor)
    # the library's own batches
    people = PersonImages(torch.zeros(26, 3, 8, 4, dtype=torch.uint8), pids=[1] * 26, camids=[1] * 26)
    own = Game()
    training.fit(own, Batches(_resized(people), uniform_batches(26, 8)), 4, **QUIET)
    seen["own indices"] = gathered(own.seen)
    # a loss that is not finite on one process stops both
    try:
        training.fit(Game(poison=1 if dist.get_rank() == 1 else None), batches, 3, **QUIET)
        seen["stopped"] = gathered(None)
    except FloatingPointError as error:
        seen["stopped"] = gathered(str(error))
    # the evaluation, each process with its part of the queries
    features = Features()
    parts = gathered(features.scores(torch.arange(30)[dist.get_rank() :: 2]))
    whole, joined = features.scores(torch.arange(30)), RetrievalScores.combine(parts)
    seen["whole"], seen["joined"] = whole.as_dict(), joined.as_dict()
    if dist.get_rank() == 0:
        (folder / "seen.json").write_text(json.dumps(seen))
    dist.barrier()
    dist.destroy_process_group()


def _resized(people: PersonImages) -> PersonImages:
    """Images of the size that the toy networks take."""
    images = torch.randint(0, 2, (len(people), 3, 4, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return PersonImages(images, pids=people.pids, camids=people.camids)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
