r"""A match threshold that can be kept: chosen for a false-accept rate on validation people, with a probability."""

import dataclasses
import json
import math
import os
from dataclasses import dataclass

import numpy as np
import pandas as pd

from reidlib.evaluators.distances import Array
from reidlib.evaluators.verification import Verification
from reidlib.files import atomic_path, resolve


@dataclass(frozen=True)
class Threshold:
    r"""Accept two pictures as one person where their distance is at most `limit`.

    What it promises: of pairs of *different* people like those it was fitted on, pictured by cameras like theirs, the
    share `far` is accepted, give or take `far_low` to `far_high` (95 %, bootstrap over people). Other cameras or a
    retrained network need a new one. The probability that a pair at distance d shows one person is

    $$P(d) = \sigma\Big(a - b d + \ln\frac{\pi}{1 - \pi}\Big),$$

    $\pi$ being the share of such pairs among those that are asked about.

    Attributes:
        limit: the largest accepted distance.
        wanted_far: the false-accept rate it was chosen for.
        far, tar: rates on the people that it was fitted on.  far_low, far_high: see above; nan below five people.
        intercept, slope: a and b.
        distance: its name, see `verify`.
        n_people, n_genuine, n_impostor: what it was fitted on, in numbers.
        fitted_on: the same in words: data, split, seed.
        network: which weights gave the features, in words.
    """

    limit: float
    wanted_far: float
    far: float
    tar: float
    far_low: float
    far_high: float
    intercept: float
    slope: float
    distance: str
    n_people: int
    n_genuine: int
    n_impostor: int
    fitted_on: str
    network: str

    @staticmethod
    def fit(found: Verification, far: float, *, fitted_on: str, network: str) -> "Threshold":
        """Choose the largest threshold whose FAR is at most `far`, and calibrate the probability.

        Fit on validation people (`bench.validation(...)`): on test people the promise would be made to those it is
        checked with. The probability is logistic regression of one kind against the other, each of half the weight, on
        Platt's targets $(N_+ + 1)/(N_+ + 2)$ and $1/(N_- + 2)$, so that separable pairs give finite numbers. Platt,
        "Probabilistic Outputs for Support Vector Machines", 1999.

        Args:
            found: the pairs of validation people.
            far: the wanted false-accept rate.
            fitted_on, network: kept as they are.

        Raises:
            ValueError: a rate that these pairs cannot measure, see `Verification.threshold_at`.

        >>> import torch
        >>> from reidlib.evaluators.verification import verify
        >>> x, pids = torch.arange(40.0)[:, None] // 4, torch.arange(40) // 4  # ten people, a distance of 1 apart
        >>> found = verify(x, x, query_pids=pids, query_camids=pids * 0, gallery_pids=pids, gallery_camids=pids * 0 + 1)
        >>> threshold = Threshold.fit(found, 0.01, fitted_on="ten toys", network="none")
        >>> threshold.limit, threshold.accept(0.0), threshold.accept(1.0), round(threshold.probability(0.0), 2) > 0.9
        (0.0, True, False, True)
        """
        limit = found.threshold_at(far)
        low, high = found.far_interval(limit) if found.can_draw else (math.nan, math.nan)
        intercept, slope = _calibrate(found)
        reached, tar = found.at(limit)
        return Threshold(
            limit, far, reached, tar, low, high, intercept, slope, found.distance, found.n_people, found.n_genuine,
            found.n_impostor, fitted_on, network,
        )  # fmt: skip

    def accept(self, distance: float | Array) -> bool | Array:
        """Say whether a distance (a number, tensor or array) is accepted as one person."""
        return distance <= self.limit

    def probability(self, distance: float | Array, prior: float = 0.5) -> float | Array:
        """Return the probability in [0, 1] that pairs at a distance (a number, tensor or array) show one person.

        Args:
            distance: as `verify` gives it, of the same network.
            prior: share of pairs of one person among those asked about.

        Raises:
            ValueError: a prior outside (0, 1).
        """
        if not 0 < prior < 1:
            raise ValueError(f"prior={prior}: accepted are shares between 0 and 1")
        odds = self.intercept + math.log(prior / (1 - prior)) - self.slope * distance
        return 0.5 + 0.5 * _tanh(odds / 2)

    def save(self, path: str | os.PathLike) -> None:
        """Write the threshold as JSON."""
        with atomic_path(resolve(path)) as temporary:
            values = {k: None if v != v else v for k, v in dataclasses.asdict(self).items()}  # JSON knows no nan
            temporary.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @staticmethod
    def load(path: str | os.PathLike) -> "Threshold":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a file that is not such a threshold: other names, other types, numbers out of range.
        """
        path = resolve(path)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not JSON: {error}") from error
        fields = {field.name: field.type for field in dataclasses.fields(Threshold)}
        if not isinstance(values, dict) or set(values) != set(fields):
            got = sorted(values) if isinstance(values, dict) else type(values).__name__
            raise ValueError(f"{path} is no threshold: it must hold {', '.join(fields)}; it holds {got}")
        for name, kind in fields.items():
            if values[name] is None and name in ("far_low", "far_high"):
                values[name] = math.nan
            elif kind is float and type(values[name]) in (int, float) and math.isfinite(values[name]):
                values[name] = float(values[name])
            elif type(values[name]) is not kind or kind is float:
                raise ValueError(f"{path}: {name} must be {kind.__name__}, finite; got {values[name]!r}")
        return Threshold(**values)

    def __str__(self) -> str:
        low, high = (f"{100 * rate:.3g}" for rate in (self.far_low, self.far_high))
        return (
            f"one person up to {self.distance} distance {self.limit:.4g}: false accepts {100 * self.far:.3g} % "
            f"({low} to {high}; wanted {100 * self.wanted_far:g}), true accepts {100 * self.tar:.3g} % "
            f"[{self.network}; fitted on {self.n_people:,} people, {self.n_genuine:,} genuine and "
            f"{self.n_impostor:,} impostor pairs: {self.fitted_on}]"
        )


def reliability(threshold: Threshold, found: Verification, *, bins: int = 10, prior: float = 0.5) -> pd.DataFrame:
    r"""Compare a threshold's probabilities with what came true, on other people than it was fitted on.

    Both kinds of pair are weighted to the prior $\pi$; the pairs of one bin of probability lie on the diagonal where
    the probability is right. `attrs["brier"]` is the Brier score $\sum_i w_i (P(d_i) - y_i)^2$ over all pairs, 0 for
    a perfect probability and $\pi (1 - \pi)$ for always saying $\pi$. Brier, "Verification of Forecasts Expressed in
    Terms of Probability", 1950.

    Returns:
        a row for each bin that holds pairs: "predicted" (mean probability), "observed" (share of genuine pairs),
        "weight" (share of all pairs), all in [0, 1].

    Raises:
        ValueError: another distance than the threshold's, bins below 1, a prior outside (0, 1).
    """
    if found.distance != threshold.distance or bins < 1:
        given = f"{found.distance} distance, bins={bins}"
        raise ValueError(f"{given}: accepted are {threshold.distance} distance and bins from 1")
    p = threshold.probability(found.distances.astype(np.float64), prior)
    genuine, impostor = _weights(found, prior)
    place = np.minimum((p * bins).astype(int), bins - 1)
    total, came, said = (np.bincount(place, w, bins) for w in (genuine + impostor, genuine, (genuine + impostor) * p))
    table = pd.DataFrame({"predicted": said, "observed": came}).div(total, axis=0).assign(weight=total)
    table = table[total > 0].reset_index(drop=True)
    table.attrs["brier"] = float((genuine * (1 - p) ** 2 + impostor * p**2).sum())
    return table


def _weights(found: Verification, prior: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight of the genuine and the impostor pairs at each distance, together 1."""
    counts = (np.diff(x, prepend=0) / x[-1] for x in (found.true_accepts, found.false_accepts))
    return tuple(count * share for count, share in zip(counts, (prior, 1 - prior), strict=True))


def _calibrate(found: Verification) -> tuple[float, float]:
    """Return intercept and slope of the probability for even odds."""
    from sklearn.linear_model import LogisticRegression  # a third of the time that importing evaluators would take

    genuine, impostor = _weights(found, 0.5)
    finite = np.isfinite(found.distances)
    d, genuine, impostor = (x[finite].astype(np.float64) for x in (found.distances, genuine, impostor))
    yes = genuine * (found.n_genuine + 1) / (found.n_genuine + 2) + impostor / (found.n_impostor + 2)  # Platt's targets
    mean, scale = d.mean(), max(d.std(), 1e-12)
    x = np.tile((d - mean) / scale, 2)[:, None]
    model = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000)
    model.fit(x, np.repeat([1, 0], len(d)), sample_weight=np.concatenate([yes, genuine + impostor - yes]) * len(d))
    slope = -float(model.coef_[0, 0]) / scale
    return float(model.intercept_[0]) + slope * mean, slope


def _tanh(x: float | Array) -> float | Array:
    return math.tanh(x) if isinstance(x, float) else x.tanh() if hasattr(x, "tanh") else np.tanh(x)
