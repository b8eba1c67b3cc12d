"""Numbers with the names of their rules: retrieval scores and nearest neighbours."""

from reidlib.evaluators.neighbours import ignored_images, nearest_neighbours
from reidlib.evaluators.reranking import rerank
from reidlib.evaluators.retrieval import evaluate_retrieval, pool_queries
from reidlib.evaluators.scores import RetrievalScores
from reidlib.evaluators.splits import SplitScores, average_over_splits, score_splits

__all__ = [
    "RetrievalScores",
    "SplitScores",
    "average_over_splits",
    "evaluate_retrieval",
    "ignored_images",
    "nearest_neighbours",
    "pool_queries",
    "rerank",
    "score_splits",
]
