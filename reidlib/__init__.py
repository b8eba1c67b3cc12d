"""Person re-identification with generated images: data sets, losses, embedders, generators and evaluators."""

import os

# torch 2.13's bfloat16 convolutions on Intel's AMX units return NaN now and then, other ones at each repeat. With
# AVX-512 only the weight gradient of strided convolutions whose input is one pixel wide still fails; no network here
# has one. oneDNN reads this at its first convolution; on processors without AMX it changes nothing.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
