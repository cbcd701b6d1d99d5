"""A random forest: the mean of trees, each of which cuts the sizes into boxes of one time (Breiman 2001).

It learns logarithms of times, so that short kernels count as much as long ones. Vidur searches for the best of forests
of 250 to 750 trees (github.com/microsoft/vidur, execution_time_predictor).
"""

from __future__ import annotations

import numpy as np

from foundation.records import dataclass
from trace_gen.perf_models.profile.learning.interface import Fitted, FloatArray, missing_library

SEED = 0
SMALLEST_LEAF = 1


@dataclass(frozen=True, slots=True)
class Forest:
    """A `Predictor` of so many `trees`.

    Fitted: ``feature``, ``threshold``, ``low``, ``high`` and ``value`` of the nodes of all trees end to end, and
    ``roots``. A leaf's children are itself, so that every row may take as many steps as the deepest needs (``depth``).
    """

    trees: int

    @property
    def identity(self) -> str:
        """See `Predictor.identity`."""
        return f"forest {self.trees} {SMALLEST_LEAF} {SEED}"

    def fit(self, sizes: FloatArray, times: FloatArray) -> Fitted:
        """See `Predictor.fit`."""
        try:
            from sklearn.ensemble import RandomForestRegressor
        except ImportError as error:
            raise missing_library(error) from error
        made = RandomForestRegressor(self.trees, min_samples_leaf=SMALLEST_LEAF, random_state=SEED, n_jobs=1)
        made.fit(sizes.astype(np.float32), np.log(times))
        parts = [one.tree_ for one in made.estimators_]
        roots = np.cumsum([0, *(part.node_count for part in parts[:-1])])
        own = [root + np.arange(part.node_count) for root, part in zip(roots, parts, strict=True)]
        leaf = np.concatenate([part.children_left < 0 for part in parts])
        low, high = (
            np.concatenate([root + getattr(part, name) for root, part in zip(roots, parts, strict=True)])
            for name in ("children_left", "children_right")
        )
        nodes = np.concatenate(own)
        return {
            "feature": np.where(leaf, 0, np.concatenate([part.feature for part in parts])).astype(np.int8),
            "threshold": np.concatenate([part.threshold for part in parts]),
            "low": np.where(leaf, nodes, low).astype(np.int32),
            "high": np.where(leaf, nodes, high).astype(np.int32),
            "value": np.concatenate([part.value[:, 0, 0] for part in parts]),
            "roots": roots.astype(np.int32),
            "depth": np.array(max(part.max_depth for part in parts)),
        }

    def at(self, fitted: Fitted, sizes: FloatArray) -> FloatArray:
        """See `Predictor.at`."""
        asked = sizes.astype(np.float32)
        node = np.broadcast_to(fitted["roots"], (len(asked), len(fitted["roots"]))).copy()
        row = np.arange(len(asked))[:, None]
        feature, threshold, low, high = (fitted[name] for name in ("feature", "threshold", "low", "high"))
        for _ in range(int(fitted["depth"])):
            node = np.where(asked[row, feature[node]] <= threshold[node], low[node], high[node])
        result: FloatArray = np.exp(np.asarray(fitted["value"], dtype=np.float64)[node].mean(axis=1))
        return result
