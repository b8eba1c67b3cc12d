"""Networks that turn person images into features, and features that need no network."""

from reidlib.embedders.baseline import Baseline, embed_all
from reidlib.embedders.features import colour_histogram, pixel_features
from reidlib.embedders.recipes import RECIPES, Recipe
from reidlib.embedders.resnet import Embedder, Head
from reidlib.embedders.siamese import Siamese, train_siamese
