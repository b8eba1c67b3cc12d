"""Networks that turn person images into features, and features that need no network."""

from reidlib.embedders.baseline import Baseline, embed_all
from reidlib.embedders.features import colour_histogram, pixel_features
from reidlib.embedders.multi_layer import MultiLayerEmbedder, TwoStep, train_two_step
from reidlib.embedders.recipes import RECIPES, Recipe
from reidlib.embedders.resnet import Embedder, ResNet50

__all__ = [
    "RECIPES",
    "Baseline",
    "Embedder",
    "MultiLayerEmbedder",
    "Recipe",
    "ResNet50",
    "TwoStep",
    "colour_histogram",
    "embed_all",
    "pixel_features",
    "train_two_step",
]
