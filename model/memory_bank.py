"""The kind memory bank: a patch is as anomalous as it is far from every patch that is kept.

Nothing is trained. Patches are projected to the principal components that hold most of their
variance, and a greedy coreset of the projections is kept. The projection is linear, so the part of
it that belongs to a level acts on that level's own grid, before anything is resized; the distance
to the nearest vector is one matrix product. What a fit says of images that it has not seen is found
by fitting again without a fold of them, principal components included.

Sources: PatchCore, Roth et al. 2022 (arXiv:2106.08265), sections 3.2 (coreset) and 3.3 (distance,
equation 7 re-weights it); the principal components, and their whitening with a shrunken spectrum,
(1 - s) lambda + s mean(lambda), are ours.

Shapes: B images, N good images, C channels of all levels, D components, K vectors, P patches of an
image, h x w their grid.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model.coreset import DIMENSIONS, greedy_coreset, random_projection
from model.embedding import resize
from model.feature_bank import FeatureBank
from model.kind import Heads, Kind, Preset, TrainingSet
from model.preprocessing import Preprocessing

STATISTICS_PATCHES = 65_536  # from which the principal components are estimated
BLOCK = 8_192  # patches projected at a time
BLOCK_IMAGES = 16  # images scored at a time


@dataclass(frozen=True, kw_only=True)
class MemoryBankRecipe:
    """How a memory bank is fitted."""

    size: int | None = 1_000  # vectors at most; None: as many as ``share`` allows
    share: float = 1.0  # of the patches that may be kept
    candidates: int | None = 131_072  # random patches that vectors are chosen from; None: all
    variance: float = 0.99  # share of it that the components keep; 1: no projection
    whitening: float | None = None  # shrinkage of the spectrum, 0 to 1; None: no whitening
    neighbours: int = 0  # of the nearest vector that re-weight an image's score; 0: none
    folds: int = 4  # fits that each leave out other images, for what is said of unseen ones
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.variance <= 1 or not 0 < self.share <= 1:
            raise ValueError("memory_bank.variance and share must lie in (0, 1]")
        if self.whitening is not None and not 0 <= self.whitening <= 1:
            raise ValueError(f"memory_bank.whitening must lie in [0, 1], got {self.whitening}")
        if self.whitening is not None and self.variance == 1:
            raise ValueError("memory_bank.whitening needs a variance below 1")

    @property
    def members(self) -> int:
        """Fits that leave images out."""
        return self.folds

    def with_seed(self, seed: int) -> "MemoryBankRecipe":
        """Return the recipe with another seed."""
        return replace(self, seed=seed)

    def num_vectors(self, num_patches: int) -> int:
        """Return how many vectors are kept of so many patches."""
        allowed = max(int(self.share * num_patches), 1)
        return min(allowed, self.size or allowed, self.candidates or num_patches)


class MemoryBank(Heads):
    """One 1x1 convolution per level, and the vectors that good patches lie near to."""

    centre: Tensor
    scale: Tensor
    vectors: Tensor

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Take tensors by name.

        Args:
            tensors: level0, level1, ...: (D, C) each, finest first, none without a projection;
                centre and scale: (D,); vectors: (K, D); neighbours: a whole number, see
                ``MemoryBankRecipe``.
        """
        super().__init__()
        for name, value in tensors.items():
            self.register_buffer(name, value)
        self.num_neighbours = int(tensors["neighbours"])

    @property
    def projections(self) -> list[Tensor]:
        """The (D, C) matrix of each level, finest first."""
        names = sorted(name for name, _ in self.named_buffers() if name.startswith("level"))
        return [self.get_buffer(name).float() for name in names]

    def in_float32(self) -> "MemoryBank":
        """Return the same bank with matrices in float32."""
        tensors = {name: value.float() for name, value in self.named_buffers()}
        return MemoryBank(tensors).with_zones(self.zones)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return image scores (B,) and patch scores (B, h, w): distances to the nearest vector."""
        points_BDP = self._points(levels)
        vectors_KD = self.vectors.float()
        squares_BKP = _squares(points_BDP, vectors_KD)
        distances_BP = squares_BKP.amin(dim=1).clamp_min(0).sqrt()
        patch_scores = distances_BP.unflatten(1, levels[0].shape[2:])
        scores = self.zones.highest(patch_scores)
        if self.num_neighbours:
            worst_B = self.zones.worst(patch_scores)
            scores = scores * self._weight(points_BDP, vectors_KD, squares_BKP, worst_B)
        return scores, self.zones.filled(patch_scores)

    def _points(self, levels: Sequence[Tensor]) -> Tensor:
        """Return each patch in the space of the vectors, (B, D, P)."""
        grid = levels[0].shape[2:]
        parts = [level.float().contiguous(memory_format=torch.channels_last) for level in levels]
        if self.projections:
            matrices = (matrix_DC[:, :, None, None] for matrix_DC in self.projections)
            parts = [F.conv2d(part, matrix) for part, matrix in zip(parts, matrices, strict=True)]
        resized = [part if part.shape[2:] == grid else resize(part, grid) for part in parts]
        joined = torch.stack(resized).sum(dim=0) if self.projections else torch.cat(resized, dim=1)
        centred = joined - self.centre[:, None, None]
        return (centred * self.scale[:, None, None]).flatten(2)

    def _weight(
        self, points_BDP: Tensor, vectors_KD: Tensor, squares_BKP: Tensor, worst_B: Tensor
    ) -> Tensor:
        """Return what an image's score is multiplied with (B,): equation 7 of the paper.

        It is larger where the nearest vector is rare itself, far from its neighbours.
        """
        own_B = torch.arange(len(worst_B), device=worst_B.device)
        nearest_B = squares_BKP[own_B, :, worst_B].argmin(dim=1)
        near_BD = vectors_KD[nearest_B]
        among_BK = torch.cdist(near_BD, vectors_KD)
        count = min(self.num_neighbours, len(vectors_KD))
        around_Bb = among_BK.topk(count, dim=1, largest=False).indices
        worst_BD = points_BDP[own_B, :, worst_B]
        distances_Bb = (vectors_KD[around_Bb] - worst_BD[:, None]).norm(dim=2)
        # 1 - exp(d*) / sum exp(d): the nearest vector is among its own neighbours.
        return 1 - torch.softmax(distances_Bb, dim=1).amin(dim=1)


@dataclass(frozen=True, kw_only=True)
class FitReport:
    """What one fit came to."""

    num_vectors: int
    num_components: int


class MemoryBankTrainer:
    """Fits a memory bank: one pass, and another fit for each fold where unseen images matter."""

    def __init__(self, training_set: TrainingSet, recipe: MemoryBankRecipe) -> None:
        """Fit to a set, a fold of which each further fit leaves out."""
        self.bank, self.images = training_set.bank, training_set.images
        self.folds, self.recipe = training_set.folds, recipe
        self._whole: MemoryBank | None = None
        self._of_folds: dict[int, MemoryBank] = {}

    @property
    def num_passes(self) -> int:
        """One: the fit to all images."""
        return 1

    @property
    def reports(self) -> list[tuple[str, FitReport]]:
        """The fit, when it is made."""
        if self._whole is None:
            return []
        num_vectors, num_components = self._whole.vectors.shape
        report = FitReport(num_vectors=num_vectors, num_components=num_components)
        return [("memory_bank", report)]

    def run(self) -> Iterator[FitReport]:
        """Fit to all images, unless that is done."""
        if self._whole is None:
            self._whole = fit(self.bank, self.images, self.recipe)
            yield self.reports[0][1]

    def folded(self) -> MemoryBank:
        """Return the fit to all images."""
        assert self._whole is not None, "run first"
        return MemoryBank(self._whole.state_dict()).with_zones(self.bank.zones)

    def unseen(self, heads: Heads) -> Iterator[tuple[MemoryBank, Tensor]]:
        """Yield fits that leave images out with these, a few at a time."""
        del heads  # fitted anew without the images of a fold
        for fold in range(self.recipe.folds):
            left_out = self.folds == fold
            if not left_out.any():
                continue
            if fold not in self._of_folds:
                self._of_folds[fold] = fit(self.bank, self.images[~left_out], self.recipe)
            for index in self.images[left_out].split(BLOCK_IMAGES):
                yield self._of_folds[fold], index

    def health(self) -> dict[str, float]:
        """Nothing is trained, so nothing can fail to train."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return the fit, where it is made."""
        return {} if self._whole is None else {"whole": dict(self._whole.state_dict())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a ``state_dict``."""
        if "whole" in state:
            tensors = {name: value.to(self.bank.device) for name, value in state["whole"].items()}
            self._whole = MemoryBank(tensors).with_zones(self.bank.zones)


def fit(bank: FeatureBank, images: Tensor, recipe: MemoryBankRecipe) -> MemoryBank:
    """Return the memory bank of some images, (N,), indices into the bank."""
    images = images.to(bank.device)
    generator = torch.Generator(bank.device).manual_seed(recipe.seed)
    space = _Space.of(bank, images, recipe, generator)
    points_PD = _candidates(bank, images, recipe, space, generator)
    searched = points_PD
    if points_PD.shape[1] > DIMENSIONS:
        searched = points_PD @ random_projection(points_PD.shape[1], generator)
    size = recipe.num_vectors(bank.num_patches(images))
    chosen_K = greedy_coreset(searched, min(size, len(points_PD)), generator)
    levels = () if space.matrix is None else space.matrix.split(bank.level_channels, dim=1)
    tensors = {f"level{index}": matrix.contiguous() for index, matrix in enumerate(levels)}
    tensors |= {"centre": space.centre, "scale": space.scale}
    tensors |= {"vectors": points_PD[chosen_K].half().float()}
    tensors |= {"neighbours": torch.tensor(float(recipe.neighbours), device=bank.device)}
    return MemoryBank(tensors).with_zones(bank.zones)


def read_memory_bank(tensors: Mapping[str, Tensor], channels: Sequence[int]) -> MemoryBank:
    """Return the memory bank of a file's tensors.

    Raises:
        ValueError, KeyError: they are not what these levels need.
    """
    num_components, num_vectors = len(tensors["scale"]), len(tensors["vectors"])
    expected: dict[str, tuple[int, ...]] = {
        "centre": (num_components,),
        "scale": (num_components,),
        "vectors": (num_vectors, num_components),
        "neighbours": (),
    }
    if "level0" in tensors:
        expected |= {f"level{i}": (num_components, width) for i, width in enumerate(channels)}
    elif num_components != sum(channels):
        raise ValueError("no projection, and vectors of another width than its levels")
    if {name: tuple(value.shape) for name, value in tensors.items()} != expected:
        raise ValueError("tensors of other shapes than its levels need")
    return MemoryBank(tensors)


@dataclass(frozen=True, kw_only=True)
class _Space:
    """Where distances are measured: (matrix x - centre) * scale."""

    matrix: Tensor | None  # (D, C), rounded to half precision; None: the features themselves
    centre: Tensor  # (D,)
    scale: Tensor  # (D,)

    @classmethod
    def of(
        cls, bank: FeatureBank, images: Tensor, recipe: MemoryBankRecipe, generator: torch.Generator
    ) -> "_Space":
        """Estimate the principal components from random patches."""
        rows_PC = bank.draw(STATISTICS_PATCHES, images, generator)[0]
        mean_C = rows_PC.mean(dim=0)
        covariance_CC = torch.cov(rows_PC.T)
        if recipe.variance == 1:
            scale = covariance_CC.trace().div(len(mean_C)).clamp_min(1e-12).rsqrt()
            return cls(matrix=None, centre=mean_C, scale=scale.expand(len(mean_C)).clone())
        ascending_C, vectors_CC = torch.linalg.eigh(covariance_CC.double())
        lambda_C = ascending_C.flip(0).clamp_min(0)
        share_C = lambda_C.cumsum(0) / lambda_C.sum().clamp_min(1e-30)
        num_kept = min(int((share_C < recipe.variance).sum()) + 1, len(lambda_C))
        matrix_DC = vectors_CC.flip(1)[:, :num_kept].T.half().float().contiguous()
        mean_lambda = lambda_C[:num_kept].mean().clamp_min(1e-12)
        shrinkage = 1.0 if recipe.whitening is None else recipe.whitening
        shrunken_D = (1 - shrinkage) * lambda_C[:num_kept] + shrinkage * mean_lambda
        scale_D = shrunken_D.clamp_min(1e-6 * mean_lambda).rsqrt().float()
        return cls(matrix=matrix_DC, centre=matrix_DC @ mean_C, scale=scale_D)

    def project(self, rows_PC: Tensor) -> Tensor:
        """Return patches (P, D) of the space."""
        rows_PD = rows_PC if self.matrix is None else rows_PC @ self.matrix.T
        return (rows_PD - self.centre) * self.scale


def _candidates(
    bank: FeatureBank,
    images: Tensor,
    recipe: MemoryBankRecipe,
    space: _Space,
    generator: torch.Generator,
) -> Tensor:
    """Return the patches that vectors are chosen from, (P, D): random ones, or all."""
    num_patches = bank.num_patches(images)
    if recipe.candidates is None or recipe.candidates >= num_patches:
        return torch.cat([space.project(bank.whole(part)) for part in images.split(BLOCK_IMAGES)])
    counts = [BLOCK] * (recipe.candidates // BLOCK) + [recipe.candidates % BLOCK]
    drawn = (bank.draw(count, images, generator)[0] for count in counts if count)
    return torch.cat([space.project(rows_PC) for rows_PC in drawn])


def _squares(points_BDP: Tensor, vectors_KD: Tensor) -> Tensor:
    """Return squared distances (B, K, P), up to rounding: they may be a little below 0."""
    products_BKP = vectors_KD @ points_BDP
    lengths_BKP = points_BDP.square().sum(dim=1, keepdim=True) - 2 * products_BKP
    return lengths_BKP + vectors_KD.square().sum(dim=1)[:, None]


PRESETS = {
    "default": Preset(recipe=MemoryBankRecipe(), preprocessing=Preprocessing(fit="stretch")),
    # A tenth of all patches, chosen after a random projection to 128 dimensions; no components.
    "patchcore": Preset(
        recipe=MemoryBankRecipe(size=None, share=0.1, candidates=None, variance=1, neighbours=9)
    ),
}
MEMORY_BANK = Kind(presets=PRESETS, make_trainer=MemoryBankTrainer, read_heads=read_memory_bank)
