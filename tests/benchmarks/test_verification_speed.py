"""Cost of verification beside the bare matrix product of its size, measured in the same run, and its memory.

`python -m pytest tests/benchmarks/test_verification_speed.py --benchmark-enable --benchmark-only -s` runs Market-1501's
size (3,368 x 19,732 x 2048-d, about a minute on one core); REIDLIB_BENCHMARK=msmt17 runs MSMT17's (11,659 x 82,161,
several minutes) instead. Without a benchmark flag the same code runs on a tenth of each count, with everything asserted
but the ratio.
"""

import os
import subprocess
import sys
import time

import pytest
import torch

from reidlib.evaluators.distances import row_chunks
from reidlib.evaluators.verification import verify
from reidlib.tools.scaling import extra_memory, made_up_people

SIZES = {  # query, gallery, dimensions, extra memory allowed in MB
    "market1501": (3368, 19732, 2048, 500),
    "msmt17": (11659, 82161, 2048, 1500),
    "tenth": (337, 1973, 256, 500),
}
RATIO = 1.5


@pytest.fixture
def size(request):
    on = request.config.getoption("benchmark_only") or request.config.getoption("benchmark_enable")
    return os.environ.get("REIDLIB_BENCHMARK", "market1501") if on else "tenth"


def people(size):
    ids = made_up_people(*SIZES[size][:3])
    return (ids.pop("query_features"), ids.pop("gallery_features")), ids


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def test_verification_beside_the_bare_matrix_product(benchmark, size):
    features, ids = people(size)
    chunks = list(row_chunks(*(len(part) for part in features)))  # the product needs chunks too: whole, it holds 3.8 GB
    out = torch.empty(chunks[0][1], len(features[1]))

    def product():
        for start, stop in chunks:
            torch.mm(features[0][start:stop], features[1].T, out=out[: stop - start])

    found = []
    rounds = 5 if size == "market1501" else 1
    pairs = [(seconds(product), seconds(lambda: found.append(verify(*features, **ids)))) for _ in range(rounds)]
    benchmark.pedantic(lambda: found[-1].as_dict(), rounds=1)
    bare, whole = sorted(pairs, key=lambda pair: pair[1] / pair[0])[len(pairs) // 2]  # the median ratio
    benchmark.extra_info |= {"bare product s": bare, "verification s": whole, "ratio": whole / bare}
    ratios = ", ".join(f"{b / a:.3f}" for a, b in pairs)
    intervals = seconds(found[-1].intervals)
    print(
        f"\n{size}, {torch.get_num_threads()} threads: product {bare:.2f} s, verification {whole:.2f} s, "
        f"ratios of whole to product {ratios} (target {RATIO}); intervals {intervals:.2f} s; {found[-1]}"
    )
    assert found[-1].n_genuine + found[-1].n_impostor <= len(features[0]) * len(features[1])
    assert 0 < found[-1].eer < 0.5
    if size == "market1501":
        assert whole / bare < RATIO


def test_extra_memory(benchmark, size):
    """In a process of its own: the peak of resident memory beyond the features themselves."""
    command = [sys.executable, __file__, size]
    result = benchmark.pedantic(subprocess.run, (command,), dict(capture_output=True, text=True, check=True), rounds=1)
    extra = float(result.stdout.split()[-1])
    print(f"\n{size}: extra memory {extra:.0f} MB (target {SIZES[size][-1]})")
    assert extra < SIZES[size][-1]


if __name__ == "__main__":  # prints seconds and extra megabytes
    inputs, who = people(sys.argv[1])
    print(*extra_memory(lambda: verify(*inputs, **who).intervals()))
