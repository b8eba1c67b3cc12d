"""Networks that turn person images into features, and features that need no network."""

from reidlib.embedders.baseline import Baseline, embed_all
from reidlib.embedders.experiment import score_benchmark, train_baseline
from reidlib.embedders.features import colour_histogram, pixel_features
from reidlib.embedders.fusion import (
    PNGANSystem,
    PoseFeatures,
    embed_benchmark,
    fuse,
    fused_features,
    score_fused,
    score_fused_splits,
)
from reidlib.embedders.multi_layer import MultiLayerEmbedder, TwoStep, train_two_step
from reidlib.embedders.recipes import RECIPES, Recipe
from reidlib.embedders.resnet import Embedder, ResNet50, SmallResNet

__all__ = [
    "RECIPES",
    "Baseline",
    "Embedder",
    "MultiLayerEmbedder",
    "PNGANSystem",
    "PoseFeatures",
    "Recipe",
    "ResNet50",
    "SmallResNet",
    "TwoStep",
    "colour_histogram",
    "embed_all",
    "embed_benchmark",
    "fuse",
    "fused_features",
    "pixel_features",
    "score_benchmark",
    "score_fused",
    "score_fused_splits",
    "train_baseline",
    "train_two_step",
]
