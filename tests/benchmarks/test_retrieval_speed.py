"""Cost of a whole evaluation beside the bare matrix product of its size, measured in the same run.

`python -m pytest tests/benchmarks --benchmark-enable --benchmark-only -s` runs Market-1501's size (3,368 x 19,732 x
2048-d, about a minute on two cores); REIDLIB_BENCHMARK=msmt17 runs MSMT17's (11,659 x 82,161, several minutes)
instead. Without a benchmark flag the same code runs on a tenth of each count, with everything asserted but the ratio.
"""

import os
import subprocess
import sys
import time

import pytest
import torch

from reidlib.evaluators import evaluate_retrieval
from reidlib.evaluators.distances import row_chunks
from reidlib.tools.scaling import extra_memory

SIZES = {  # query, gallery, dimensions, identities, cameras, extra memory allowed in MB
    "market1501": (3368, 19732, 2048, 750, 6, 500),
    "msmt17": (11659, 82161, 2048, 3060, 15, 1500),
    "tenth": (337, 1973, 256, 75, 6, 500),
}


def made_up(size):
    """Random features around one centre for each identity: about as many matches as the real set has."""
    q, g, d, people, cameras, _ = SIZES[size]
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(people, d, generator=generator)
    ids = {}
    features = []
    for name, n in (("query", q), ("gallery", g)):
        pids = torch.randint(1, people + 1, (n,), generator=generator)
        values = torch.empty(n, d).normal_(generator=generator).mul_(4)
        for part, own in zip(values.split(1024), pids.split(1024), strict=True):
            part += centres[own - 1]  # in parts, so that making them takes no more memory than they do
        features.append(values)
        ids |= {f"{name}_pids": pids, f"{name}_camids": torch.randint(1, cameras + 1, (n,), generator=generator)}
    return features, ids


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


@pytest.fixture
def size(request):
    on = request.config.getoption("benchmark_only") or request.config.getoption("benchmark_enable")
    return os.environ.get("REIDLIB_BENCHMARK", "market1501") if on else "tenth"


def test_evaluation_beside_the_bare_matrix_product(benchmark, size):
    features, ids = made_up(size)
    chunks = list(row_chunks(*(len(part) for part in features)))  # the product needs chunks too: whole, it holds 3.8 GB
    out = torch.empty(chunks[0][1], len(features[1]))

    def product():
        for start, stop in chunks:
            torch.mm(features[0][start:stop], features[1].T, out=out[: stop - start])

    def evaluate():
        return evaluate_retrieval(*features, **ids)

    rounds = 5 if size == "market1501" else 1
    pairs = [(seconds(product), seconds(evaluate)) for _ in range(rounds)]  # side by side: the machine is not quiet
    scores = benchmark.pedantic(evaluate, rounds=1)
    bare, whole = sorted(pairs, key=lambda pair: pair[1] / pair[0])[len(pairs) // 2]  # the median ratio
    benchmark.extra_info |= {"bare product s": bare, "evaluation s": whole, "ratio": whole / bare}
    ratios = ", ".join(f"{b / a:.3f}" for a, b in pairs)
    print(
        f"\n{size}, {torch.get_num_threads()} threads: product {bare:.2f} s, evaluation {whole:.2f} s, "
        f"ratios of whole to product {ratios} (target 1.25); {scores}"
    )
    assert scores.n_valid == scores.n_queries and 0 < scores.mAP < 1


def test_extra_memory(benchmark, size):
    """In a process of its own: the peak of resident memory beyond the features themselves."""
    command = [sys.executable, __file__, size]
    result = benchmark.pedantic(subprocess.run, (command,), dict(capture_output=True, text=True, check=True), rounds=1)
    extra = float(result.stdout.split()[-1])
    print(f"\n{size}: extra memory {extra:.0f} MB (target {SIZES[size][-1]})")
    assert extra < SIZES[size][-1]


if __name__ == "__main__":  # prints seconds and extra megabytes
    inputs, who = made_up(sys.argv[1])
    print(*extra_memory(lambda: evaluate_retrieval(*inputs, **who)))
