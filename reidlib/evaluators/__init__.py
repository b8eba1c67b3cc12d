"""Numbers with the names of their rules: retrieval scores and nearest neighbours."""

from reidlib.evaluators.neighbours import Neighbours, ignored_images, nearest_neighbours
from reidlib.evaluators.retrieval import evaluate_retrieval, pool_queries
from reidlib.evaluators.scores import RetrievalScores

__all__ = [
    "Neighbours",
    "RetrievalScores",
    "evaluate_retrieval",
    "ignored_images",
    "nearest_neighbours",
    "pool_queries",
]
