"""Suspected defects among the good images: each scored by a fit that has not seen it.

The fit is the closed-form one of whole images, ``model/pooled_distance.py``, on mean and standard
deviation of every channel: it takes a fraction of a second, where one image in ten is wrong too. It
is made twice for each fold: what scores highest the first time has no part in the second fit, or
several defects of a kind would hide each other.

Shapes: N images, F values of each, D components.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.pooled_distance import fit_pooled
from pipeline.calibration import fold_by_content
from pipeline.inspection.category_summary import Floats
from pipeline.inspection.robust_tail import beyond

FOLDS = 4
SET_ASIDE = 0.15  # of the images, those with the highest scores, in the second fit
MOST_COMPONENTS = 512
RATE = 0.02  # of sets without a defect in which any image is suspected, by simulation


def unseen_scores(pooled_NF: Floats, hashes: list[str]) -> NDArray[np.float64]:
    """Return how far each image lies from the others, (N,), by fits without it and its copies."""
    rows_ND = _components(torch.from_numpy(pooled_NF))
    folds = fold_by_content(hashes, FOLDS)
    first = _scores(rows_ND, folds, np.ones(len(folds), dtype=bool))
    return _scores(rows_ND, folds, first <= np.quantile(first, 1 - SET_ASIDE))


def are_suspects(scores: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which scores are beyond what a set without a defect has, (N,)."""
    return beyond(np.log(np.maximum(scores, 1e-12)), RATE)


def _components(pooled_NF: Tensor) -> Tensor:
    """Return the images in their own principal components (N, D), channels standardised before."""
    spread_F = pooled_NF.std(dim=0)
    kept = spread_F > 1e-6 * spread_F.amax().clamp_min(1e-12)
    rows_NF = ((pooled_NF - pooled_NF.mean(dim=0)) / spread_F)[:, kept].double()
    count = min(MOST_COMPONENTS, *rows_NF.shape)
    if rows_NF.shape[0] <= rows_NF.shape[1]:
        lambda_N, vectors_NN = torch.linalg.eigh(rows_NF @ rows_NF.T)
        rows_ND: Tensor = (vectors_NN * lambda_N.clamp_min(0).sqrt())[:, -count:]
    else:
        vectors_FF = torch.linalg.eigh(rows_NF.T @ rows_NF)[1]
        rows_ND = rows_NF @ vectors_FF[:, -count:]
    return rows_ND.float()


def _scores(
    rows_ND: Tensor, folds: NDArray[np.int64], usual: NDArray[np.bool_]
) -> NDArray[np.float64]:
    scores = np.zeros(len(folds))
    for fold in range(FOLDS):
        own = folds == fold
        if own.any() and (usual & ~own).sum() > 1:
            fitted = fit_pooled(rows_ND[torch.from_numpy(usual & ~own)])
            scores[own] = fitted.distances(rows_ND[torch.from_numpy(own)]).numpy()
    return scores
