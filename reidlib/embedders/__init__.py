"""Networks that turn person images into features, and features that need no network."""

from reidlib.embedders.baseline import Baseline, embed_all
from reidlib.embedders.features import colour_histogram, pixel_features
from reidlib.embedders.recipes import FORMS, RECIPES, Recipe
from reidlib.embedders.resnet import Embedder, Embedding, Head, ResNet50

__all__ = [
    "FORMS",
    "RECIPES",
    "Baseline",
    "Embedder",
    "Embedding",
    "Head",
    "Recipe",
    "ResNet50",
    "colour_histogram",
    "embed_all",
    "pixel_features",
]
