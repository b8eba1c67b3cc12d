"""What a retrieval evaluation found, with the names of its rules."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reidlib.evaluators.distances import Array

AP_RULES = ("plain", "trapezoid")
DIVISORS = ("valid", "all")


@dataclass(frozen=True, eq=False)
class RetrievalScores:
    """Scores of each query in each round, and their averages; all averages are fractions in [0, 1].

    Rounds are the repeats of a single-shot protocol; otherwise there is one. A query without a match has NaN average
    precision and first hit 0. Averages are exactly rounded sums, so the order of the queries cannot change them.

    Attributes:
        average_precisions: float64 [Q, rounds].  first_hits: int64 [Q, rounds], the first match's rank from 1.
        inverse_negative_penalties: float64 [Q, rounds], matches / rank of the last match.
        ap, camera_rule, distance, gallery_shots, divisor: the rules, as `evaluate_retrieval` takes them.
        max_rank: length of `cmc`.
        features: what is known of how they were made, in words for `protocol`.
    """

    average_precisions: Tensor
    first_hits: Tensor
    inverse_negative_penalties: Tensor
    ap: str
    camera_rule: str
    distance: str
    gallery_shots: int | None
    divisor: str
    max_rank: int
    features: str = ""

    @property
    def valid(self) -> Tensor:
        """Which queries have a match in the gallery: bool [Q]."""
        return self.first_hits[:, 0] > 0

    @property
    def n_queries(self) -> int:
        """Number of queries given."""
        return len(self.first_hits)

    @property
    def n_valid(self) -> int:
        """Number of queries with a match in the gallery."""
        return int(self.valid.sum())

    @property
    def mAP(self) -> float:
        """Mean average precision by the rule named in `ap`."""
        return self._mean(self.average_precisions)

    @property
    def mINP(self) -> float:
        """Mean inverse negative penalty: how early even the hardest match comes."""
        return self._mean(self.inverse_negative_penalties)

    @property
    def cmc(self) -> Tensor:
        """Share of queries with a match among the first 1, 2, ... max_rank images: float64 [max_rank]."""
        hits = self.first_hits[self.valid].flatten()
        counts = torch.bincount(hits.clamp(max=self.max_rank + 1), minlength=self.max_rank + 2)[1:-1]
        return counts.cumsum(0).double() / (self._divisor() * self.first_hits.shape[1])

    def rank(self, k: int) -> float:
        """Share of queries with a match among the first k images.

        Raises:
            ValueError: if k lies outside 1 ... max_rank.
        """
        if not 1 <= k <= self.max_rank:
            raise ValueError(f"rank({k}): accepted are 1 to {self.max_rank} (max_rank of the evaluation)")
        return float(self.cmc[k - 1])

    @property
    def protocol(self) -> str:
        """The rules in words: camera rule, shots, divisor, distance, features."""
        words = [self.camera_rule.replace("_", " "), f"{self.distance} distance"]
        if self.gallery_shots:
            words.insert(1, f"single-shot, {self.first_hits.shape[1]} rounds")
        words.append(f"{self.n_valid:,} of {self.n_queries:,} queries have a match")
        words.append("the others count as 0" if self.divisor == "all" else "average over those")
        return ", ".join(words + [self.features] * bool(self.features))

    def as_dict(self, ranks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
        """Return the averages by name, each name carrying its rule, ready for results.json."""
        ranks = [k for k in ranks if k <= self.max_rank]
        setting = f", {self.camera_rule.replace('_', ' ')}" if self.camera_rule != "cross_camera" else ""
        setting += f", single-shot x{self.first_hits.shape[1]}" if self.gallery_shots else ""
        setting += ", all queries" if self.divisor == "all" else ""
        suffix = f" ({setting[2:]})" if setting else ""
        values = {f"mAP ({self.ap} AP{setting})": self.mAP}
        values |= {f"rank-{k}{suffix}": self.rank(k) for k in ranks}
        return values | {f"mINP{suffix}": self.mINP}

    def bootstrap(self, query_pids: Array, *, repeats: int = 1000, seed: int = 0) -> dict[str, float]:
        """Return the standard errors of mAP and rank-1 by a bootstrap over the queries' identities, as fractions.

        People are drawn, not queries, because the queries of one person stand and fall together: how far would the
        averages move if other people had been tested? The gallery stays as it is, and so does the network: the spread
        over seeds of the training is another one.

        Args:
            query_pids: integers [Q], of the queries in their order.
            repeats: how often as many people as there are are drawn with replacement, at least 2.

        Raises:
            ValueError: for another number of pids than queries, fewer than two people to draw, or too few repeats.

        >>> scores = RetrievalScores(torch.tensor([[1.0], [0.0]]), torch.tensor([[1], [2]]), torch.ones(2, 1),
        ...                          "plain", "cross_camera", "euclidean", None, "valid", 50)
        >>> {name: round(error, 2) for name, error in scores.bootstrap([3, 7]).items()}  # two people: sqrt(1 / 8)
        {'mAP': 0.35, 'rank-1': 0.35}
        """
        pids = np.asarray(query_pids)
        if pids.shape != (self.n_queries,):
            raise ValueError(f"query_pids must be [{self.n_queries}], one a query, got {pids.shape}")
        counted = np.ones(len(pids), bool) if self.divisor == "all" else self.valid.numpy()
        people, person = np.unique(pids[counted], return_inverse=True)
        if len(people) < 2 or repeats < 2:
            raise ValueError(f"a bootstrap needs 2 people and 2 repeats, got {len(people)} people, {repeats} repeats")
        drawn = np.random.default_rng(seed).multinomial(len(people), np.full(len(people), 1 / len(people)), repeats)
        # [Q, rounds]
        of_query = {"mAP": self.average_precisions.nan_to_num(), "rank-1": (self.first_hits == 1).double()}
        sums = {name: np.bincount(person, values.mean(1).numpy()[counted]) for name, values in of_query.items()}
        return {
            name: float(np.std(drawn @ total / (drawn @ np.bincount(person)), ddof=1)) for name, total in sums.items()
        }

    def __str__(self) -> str:
        values = ", ".join(f"{name} {100 * value:.1f} %" for name, value in self.as_dict().items())
        return f"{values} [{self.protocol}]"

    @staticmethod
    def combine(parts: Sequence["RetrievalScores"]) -> "RetrievalScores":
        """Join the scores of shards of the queries, each against the whole gallery, into the scores of all.

        Each process evaluates its own queries and the parts are gathered (`torch.distributed.all_gather_object`):
        the result equals one process's to the last digit, whatever the order of the parts. A shard may be without
        any match; give every process the same seed.

        Raises:
            ValueError: for no parts, or parts scored by different rules.
        """
        if not parts:
            raise ValueError("no parts to combine")
        rules = ("ap", "camera_rule", "distance", "gallery_shots", "divisor", "max_rank", "features")
        for rule in rules:
            found = {getattr(part, rule) for part in parts}
            if len(found) > 1:
                raise ValueError(f"parts differ in {rule}: {sorted(map(str, found))}")
        arrays = ("average_precisions", "first_hits", "inverse_negative_penalties")
        joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in arrays}
        return RetrievalScores(**joined, **{rule: getattr(parts[0], rule) for rule in rules})

    def _divisor(self) -> int:
        if not self.n_valid and self.divisor == "valid":
            raise ValueError(f"none of the {self.n_queries} queries has a match in the gallery: nothing to average")
        return self.n_queries if self.divisor == "all" else self.n_valid

    def _mean(self, values: Tensor) -> float:
        total = math.fsum(values[self.valid].flatten().tolist())  # exactly rounded, so the order does not matter
        return total / (self._divisor() * values.shape[1])
