"""Networks that turn person images into features, and features that need no network."""

from reidlib.embedders.baseline import Baseline, embed_all
from reidlib.embedders.experiment import score_benchmark, train_baseline
from reidlib.embedders.features import colour_histogram, pixel_features
from reidlib.embedders.recipes import RECIPES, Recipe
from reidlib.embedders.resnet import Embedder, ResNet50, SmallResNet

__all__ = [
    "RECIPES",
    "Baseline",
    "Embedder",
    "Recipe",
    "ResNet50",
    "SmallResNet",
    "colour_histogram",
    "embed_all",
    "pixel_features",
    "score_benchmark",
    "train_baseline",
]
