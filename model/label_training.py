"""Fits the head that learned from labels, and decides whether it is worth having.

Each member leaves out its fold of the good images and a share of the defects, and is a logistic
regression on whitened features with strong regularisation; what is registered is their mean. Good
images are described by the member of the kind's heads that has not seen them, defects by every
member. So a member with the kind's own member says of a good image what heads say that have not
seen it, and the calibration keeps its promise. (An image that a member leaves out reaches it only
by where the other members of the kind look.)

Whether it is worth having, the defects that a member left out say: their p-values among the good
images must become smaller by more than Student's t allows by chance in 2.5 %. Several images of one
defective part are left out together and count as one: four shots of a part are no four witnesses.
Those were flagged by heads like the kind's, mostly, which favours the kind alone.

Shapes: N good images, D defects, M members, F features, R rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model.feature_bank import FeatureBank
from model.kind import Heads, Trainer, TrainingSet
from model.label_head import LabelHead, LabelledHeads, describe
from model.pooled_distance import shrunken_covariance

LEAST_DEFECTS = 10  # of different bursts
MOST_GOOD = 2_000  # images that a fit looks at
STRENGTH = 0.01  # of the loss of all rows beside half of the squared weights
MOST_STEPS = 200
BLOCK_IMAGES = 16
NORMAL_QUANTILE = 1.959964  # 2.5 % lie above


@dataclass(frozen=True, kw_only=True)
class Described:
    """Images as members see them."""

    scores: Tensor  # of the kind's heads
    features: Tensor


@dataclass(frozen=True, kw_only=True)
class LabelChoice:
    """Whether the head was taken, and by what."""

    num_defects: int
    t: float  # mean over standard error of the parts' gain in log p, each part left out
    is_taken: bool


class LabelTrainer:
    """A kind's trainer whose heads are joined by one that learns from confirmed defects."""

    def __init__(
        self,
        trainer: Trainer,
        training_set: TrainingSet,
        defects: FeatureBank,
        bursts: Sequence[str] | None = None,
    ) -> None:
        """Join a trainer with members that leave images out.

        All of the bank's images are confirmed defects; each is a burst of its own where none are
        given.
        """
        self.trainer, self.bank, self.defects = trainer, training_set.bank, defects
        self.recipe: Any = trainer.recipe
        names = range(defects.num_images) if bursts is None else bursts
        number_of = {name: number for number, name in enumerate(dict.fromkeys(names))}
        self.burst_D = torch.tensor([number_of[name] for name in names])
        pairs = zip(training_set.images.tolist(), training_set.folds.tolist(), strict=True)
        self.fold_of: dict[int, int] = dict(pairs)
        self.choice: LabelChoice | None = None
        self._members: dict[int, LabelHead] = {}

    @property
    def num_passes(self) -> int:
        """Those of the kind: what is fitted here takes seconds."""
        return self.trainer.num_passes

    @property
    def reports(self) -> list[tuple[str, Any]]:
        """Those of the kind."""
        return self.trainer.reports

    def run(self) -> Iterator[Any]:
        """Make the passes that are left."""
        yield from self.trainer.run()

    def health(self) -> dict[str, float]:
        """Return what tells a sound fit of the kind from a broken one."""
        return self.trainer.health()

    def state_dict(self) -> dict[str, Any]:
        """Return everything a restart needs."""
        return self.trainer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a ``state_dict``."""
        self.trainer.load_state_dict(state)

    @torch.no_grad()
    def folded(self) -> Heads:
        """Return the heads as they stand, with what labels teach where it is worth having."""
        heads = self.trainer.folded()
        self._members, self.choice = self._fit(heads)
        if not self.choice.is_taken:
            return heads
        weights, biases = zip(*((m.weight, m.bias) for m in self._members.values()), strict=True)
        mean = LabelHead(torch.stack(weights).mean(dim=0), torch.stack(biases).mean(dim=0))
        return LabelledHeads(heads, mean)

    def unseen(self, heads: Heads) -> Iterator[tuple[Heads, Tensor]]:
        """Yield members with good images that neither part has seen, a few at a time."""
        if not isinstance(heads, LabelledHeads):
            yield from self.trainer.unseen(heads)
            return
        for member, index in self.trainer.unseen(heads.kind):
            own = self._members[self.fold_of[int(index[0])]]
            yield LabelledHeads(member, own), index

    def _fit(self, heads: Heads) -> tuple[dict[int, LabelHead], LabelChoice]:
        good, folds_N, defects = self._describe(heads)
        place_D = self.burst_D.to(folds_N.device) % len(defects.scores)
        both_N, members = good.scores.clone(), {}
        alone_D = defects.scores.gather(0, place_D[None])[0]  # each by a member that left it out
        joined_D = alone_D.clone()
        for place, fold in enumerate(folds_N.unique().tolist()):
            own, out = folds_N == fold, place_D == place
            head = _in_unit_of(
                good.scores[~own], fit(good.features[~own], defects.features[:, ~out])
            )
            both_N[own] += head(good.features[own])
            joined_D[out] += head(defects.features[place, out])
            members[fold] = head
        gain_D = log_p(alone_D, good.scores) - log_p(joined_D, both_N)
        t, least = mean_over_error(gain_D.cpu(), self.burst_D)
        return members, LabelChoice(num_defects=len(gain_D), t=t, is_taken=t >= least)

    def _describe(self, heads: Heads) -> tuple[Described, Tensor, Described]:
        """Describe good images by who has not seen them, with folds (N,), and defects by all."""
        most = -(-MOST_GOOD // len({*self.fold_of.values()}))
        taken: dict[int, int] = {}
        good, folds, members = [], [], []
        for member, index in self.trainer.unseen(heads):
            fold = self.fold_of[int(index[0])]
            if fold not in taken:
                members.append(self._all_defects(member))
            if taken.setdefault(fold, 0) < most:
                good.append(_seen_by(member, self.bank.images(index)))
                folds += [fold] * len(index)
                taken[fold] += len(index)
        return (
            _join(good, torch.cat),
            torch.tensor(folds, device=self.bank.device),
            _join(members, torch.stack),
        )

    def _all_defects(self, member: Heads) -> Described:
        index = torch.arange(self.defects.num_images)
        blocks = index.split(BLOCK_IMAGES)
        return _join([_seen_by(member, self.defects.images(block)) for block in blocks], torch.cat)


def _seen_by(heads: Heads, levels: list[Tensor]) -> Described:
    scores, patch_scores = heads(levels)
    return Described(scores=scores, features=describe(levels, patch_scores, heads.zones))


def _join(parts: list[Described], join: Any) -> Described:
    return Described(
        scores=join([part.scores for part in parts]),
        features=join([part.features for part in parts]),
    )


def _in_unit_of(scores_N: Tensor, fitted: tuple[Tensor, Tensor]) -> LabelHead:
    """Return log odds as a head that adds them in the spread of good images' scores."""
    spread = scores_N.std(correction=0).clamp_min(1e-6)
    weight_F, bias = ((spread * value).float() for value in fitted)
    return LabelHead(weight_F, bias)


def mean_over_error(gain_D: Tensor, burst_D: Tensor) -> tuple[float, float]:
    """Return the bursts' mean gain over its standard error, and what it has to exceed."""
    gains = torch.stack([gain_D[burst_D == burst].mean() for burst in burst_D.unique()])
    t = float(gains.mean() / (gains.std() / len(gains) ** 0.5).clamp_min(1e-9))
    return t, least_t(len(gains))


def least_t(num_bursts: int) -> float:
    """Return what mean over standard error exceeds by chance in 2.5 %: Student's t.

    Source: Abramowitz and Stegun 1964, 26.7.5; right to 0.001 from ten defects on.
    """
    z, freedom = NORMAL_QUANTILE, num_bursts - 1
    first = (z**3 + z) / (4 * freedom)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    return z + first + second + third


def log_p(scores: Tensor, good_N: Tensor) -> Tensor:
    """Return the logarithms of scores' p-values among those of good images."""
    ascending, num_good = good_N.sort().values, len(good_N)
    above = num_good - torch.searchsorted(ascending, scores)
    return ((1 + above) / (num_good + 1)).log()


def fit(good_NF: Tensor, defects_MDF: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights (F,) and bias, in float64, of the log odds of a defect.

    Both kinds weigh the same together. The bias is such that good images have 0 on average.
    ``defects_MDF`` are as each member sees them.
    """
    parts = good_NF.double().chunk(4, dim=1)  # each kind of feature is whitened for itself
    factors = [torch.linalg.cholesky(_positive(shrunken_covariance(part))) for part in parts]
    centre_F = good_NF.double().mean(dim=0)
    num_defects = defects_MDF.shape[1]
    rows_RF = torch.cat([good_NF.double(), defects_MDF.double().flatten(0, 1)]) - centre_F
    white_RF = _whiten(rows_RF, factors)
    is_defect_R = torch.arange(len(rows_RF), device=rows_RF.device) >= len(good_NF)
    share_R = torch.where(is_defect_R, 1 / (len(rows_RF) - len(good_NF)), 1 / len(good_NF))
    inside_F = _regress(white_RF, is_defect_R, STRENGTH * num_defects * share_R.double())
    solved = [
        torch.linalg.solve_triangular(factor.T, part[:, None], upper=True)[:, 0]
        for factor, part in zip(factors, inside_F.chunk(4), strict=True)
    ]
    weight_F = torch.cat(solved)
    return weight_F, -(centre_F @ weight_F)


def _positive(covariance_CC: Tensor) -> Tensor:
    """Where all images are the same, nothing is divided by zero."""
    floor = covariance_CC.diagonal().mean().clamp_min(1e-12) * 1e-6
    return covariance_CC + floor * torch.eye(len(covariance_CC)).to(covariance_CC)


def _whiten(rows_RF: Tensor, factors: list[Tensor]) -> Tensor:
    pairs = zip(factors, rows_RF.chunk(4, dim=1), strict=True)
    solved = [torch.linalg.solve_triangular(factor, part.T, upper=False) for factor, part in pairs]
    return torch.cat(solved).T.contiguous()


@torch.enable_grad()
def _regress(rows_RF: Tensor, is_defect_R: Tensor, share_R: Tensor) -> Tensor:
    """Return the weights (F,) of a logistic regression; its bias is free and left to the caller."""
    parameters = torch.zeros(rows_RF.shape[1] + 1, dtype=rows_RF.dtype, device=rows_RF.device)
    parameters.requires_grad_()
    optimiser = torch.optim.LBFGS(
        [parameters], max_iter=MOST_STEPS, line_search_fn="strong_wolfe", tolerance_grad=1e-6
    )
    sign_R = torch.where(is_defect_R, -1.0, 1.0).double()

    def loss() -> Tensor:
        optimiser.zero_grad()
        logits_R = rows_RF @ parameters[:-1] + parameters[-1]
        losses_R = torch.nn.functional.softplus(sign_R * logits_R)
        total = (share_R * losses_R).sum() + parameters[:-1].square().sum() / 2
        total.backward()
        return total

    optimiser.step(loss)
    return parameters.detach()[:-1]
