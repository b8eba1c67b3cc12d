"""Random retrieval problems for the tests of scores and of inputs."""

import torch


def problem(rng, q=40, g=150, people=8, cameras=4, d=6):
    return (torch.from_numpy(rng.normal(size=(q, d))).float(), torch.from_numpy(rng.normal(size=(g, d))).float()), dict(
        query_pids=rng.integers(1, people, q),
        query_camids=rng.integers(1, cameras, q),
        gallery_pids=rng.integers(-1, people, g),
        gallery_camids=rng.integers(1, cameras, g),
    )
