"""Numbers with the names of their rules: retrieval scores, nearest neighbours, verification."""

from reidlib.evaluators.neighbours import ignored_images, nearest_neighbours
from reidlib.evaluators.reranking import rerank
from reidlib.evaluators.retrieval import evaluate_retrieval, pool_queries
from reidlib.evaluators.scores import RetrievalScores
from reidlib.evaluators.splits import SplitScores, average_over_splits, score_splits
from reidlib.evaluators.thresholds import Threshold, reliability
from reidlib.evaluators.verification import Verification, verify
