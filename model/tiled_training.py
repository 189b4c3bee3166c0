"""Fit heads to images that are cut into tiles: the kind's own trainer, once for each group.

To the trainer of a group its inputs are images. Tiles of one image share its fold, so that whoever
has not seen an image has seen none of its tiles.

Shapes: N images, G groups.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from model.kind import Heads, Kind, Trainer, TrainingSet
from model.tiled_bank import TiledBank
from model.tiled_heads import TiledHeads

# Where all good tiles of a position are alike, as those of an overexposed background are, what they
# score hardly varies, and the first speck of dust would count for millions. No group therefore
# counts more than twice as finely as groups usually do; those of an object's positions stay far
# from that (on bottle from .72 to 1.2 of the usual). A group varies at all if it varies by a tenth
# of what the one does that varies most, so that a few may stand for many of mere background.
LEAST_SPREAD, VARIES = 0.5, 0.1


class TiledTrainer:
    """The trainers of the groups, one after the other."""

    def __init__(self, training_set: TrainingSet, recipe: Any, kind: Kind) -> None:
        """Train on a set whose bank is tiled, with the trainer of a kind."""
        bank = training_set.bank
        assert isinstance(bank, TiledBank)
        self.bank, self.recipe = bank, recipe
        self.images = training_set.images
        sets = (
            TrainingSet(bank=bank.inputs, images=inputs, folds=training_set.folds[whose])
            for inputs, whose in bank.groups_of(self.images)
        )
        self.trainers: list[Trainer] = [kind.make_trainer(each, recipe) for each in sets]
        self._found: dict[int, Tensor] | None = None  # what groups say of unseen images

    @property
    def num_passes(self) -> int:
        """Passes of all groups."""
        return sum(trainer.num_passes for trainer in self.trainers)

    @property
    def reports(self) -> list[tuple[str, Any]]:
        """Every finished pass, in the order they ran, with the group it was for."""
        return [
            (f"{name}_{head}", report)
            for name, trainer in zip(self.bank.tiles.group_names, self.trainers, strict=True)
            for head, report in trainer.reports
        ]

    def run(self) -> Iterator[Any]:
        """Make the passes that are left; may be stopped between any two of them."""
        for trainer in self.trainers:
            for report in trainer.run():
                self._found = None
                yield report

    def folded(self) -> TiledHeads:
        """Return the heads as they stand, rounded to what is stored, on one scale."""
        heads = self._joined([trainer.folded() for trainer in self.trainers])
        if self._found is None:
            self._found = self._measure(heads)
        return heads.with_scale(*_scale_of(torch.stack([*self._found.values()])))

    def unseen(self, heads: Heads) -> Iterator[tuple[TiledHeads, Tensor]]:
        """Yield members with a good image that no group's has seen, on the scale of the others.

        The scale of all images knows this one, as it does not know a new image: a threshold of
        such scores would be too low.
        """
        assert isinstance(heads, TiledHeads)
        if self._found is None:
            self._found = self._measure(heads)
        scales_NG = zip(*_scales_of_others(torch.stack([*self._found.values()])), strict=True)
        scale_of = dict(zip(self._found, scales_NG, strict=True))
        for member, number in self._members(heads):
            yield member.with_scale(*scale_of[number]), torch.tensor([number])

    def _members(self, heads: TiledHeads) -> Iterator[tuple[TiledHeads, int]]:
        """Yield members, each group on its own scale, with the number of an image unseen."""
        whole = []
        groups = self.bank.groups_of(torch.arange(self.bank.num_images))
        for trainer, own, (inputs, whose) in zip(self.trainers, heads.groups, groups, strict=True):
            assert isinstance(own, Heads)
            last = dict(zip(whose.tolist(), inputs.tolist(), strict=True))
            number_of = {at: number for number, at in last.items()}
            whole.append(_one_by_one(trainer.unseen(own), number_of))
        for members in zip(*whole, strict=True):
            numbers = {number for _, number in members}
            assert len(numbers) == 1, "groups share folds, and so the order of images"
            yield self._joined([member for member, _ in members]), numbers.pop()

    def _joined(self, groups: Sequence[Heads]) -> TiledHeads:
        return TiledHeads(groups, self.bank.tiles).with_zones(self.bank.zones)

    def health(self) -> dict[str, float]:
        """Return by name what tells a sound fit of each group from a broken one."""
        return {
            f"{name}_{what}": value
            for name, trainer in zip(self.bank.tiles.group_names, self.trainers, strict=True)
            for what, value in trainer.health().items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Return everything a restart needs."""
        states = (trainer.state_dict() for trainer in self.trainers)
        return dict(zip(self.bank.tiles.group_names, states, strict=True))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a ``state_dict`` of a trainer with the same bank, images and recipe."""
        for name, trainer in zip(self.bank.tiles.group_names, self.trainers, strict=True):
            trainer.load_state_dict(state[name])
        self._found = None

    @torch.no_grad()
    def _measure(self, heads: TiledHeads) -> dict[int, Tensor]:
        """Return what each group says, (G,), of good images that it has not seen, by number.

        A recipe without members that leave images out has only those that it has seen. Which group
        says more is then judged by these; the threshold is set by others all the same.
        """
        found = {
            number: member.group_scores(self.bank.images(torch.tensor([number]))[0])
            for member, number in self._members(heads)
        }
        if found:
            return found
        groups = [group for group in heads.groups if isinstance(group, Heads)]
        alone = self._joined(groups)
        images = zip(self.images.tolist(), self.bank.images(self.images), strict=True)
        return {number: alone.group_scores(image) for number, image in images}


def _scale_of(scores_NG: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and spread, (G,) each, of what groups say of images."""
    std_G, mean_G = torch.std_mean(scores_NG, dim=0, correction=0)
    return mean_G, _floored(std_G)


def _scales_of_others(scores_NG: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each image mean and spread of all the others, (N, G) each; alone, of itself."""
    num_others = max(len(scores_NG) - 1, 1)
    mean_G = scores_NG.double().mean(dim=0)
    apart_NG = scores_NG - mean_G
    means_NG = (apart_NG.sum(dim=0) - apart_NG) / num_others
    squares_NG = (apart_NG.square().sum(dim=0) - apart_NG.square()) / num_others
    std_NG = (squares_NG - means_NG.square()).clamp_min(0).sqrt()
    return (means_NG + mean_G).to(scores_NG), _floored(std_NG.to(scores_NG))


def _floored(std_xG: Tensor) -> Tensor:
    """Return standard deviations (..., G) of groups, none much smaller than the usual one."""
    varies_xG = std_xG >= VARIES * std_xG.amax(dim=-1, keepdim=True)
    usual_x1 = std_xG.where(varies_xG, torch.nan).nanmedian(dim=-1, keepdim=True).values
    return std_xG.maximum(LEAST_SPREAD * usual_x1).clamp_min(1e-6)


def _one_by_one(
    unseen: Iterator[tuple[Heads, Tensor]], number_of: Mapping[int, int]
) -> Iterator[tuple[Heads, int]]:
    """Yield heads with the number of each image, one of whose inputs they come with.

    Args:
        unseen: heads with inputs that they have not seen.
        number_of: the image of one input of each.
    """
    for member, index in unseen:
        for at in index.tolist():
            if at in number_of:
                yield member, number_of[at]
