"""What four heads say of the same images: SimpleNet's over patches and over images, the distance to
a memory bank, and the Mahalanobis distance of the features' means.

Good images and the synthetic anomalies made of them are scored by who has not seen the image, test
images by who has seen all good ones. Test labels are passed through and decide nothing.

Shapes: N images, C channels.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.embedding import mean_levels
from model.feature_bank import FeatureBank
from model.folding import FoldedHeads
from model.kind import Trainer
from model.memory_bank import MemoryBankRecipe, fit
from model.pooled_distance import fit_pooled
from pipeline.calibration import Part, fold_by_content
from pipeline.evaluation.protocol import read_test_set
from pipeline.images.batches import batches, read_all
from pipeline.onboarding.features import level_shapes
from pipeline.onboarding.prepare import PreparedCategory, make_trainer
from pipeline.onboarding.synthetic import make_anomalies
from tests.bench.image_anomalies import make_image_anomalies

HEADS = ("patch", "image", "distance", "pooled")
BLOCK = 16  # images scored at a time
ANOMALIES = 24  # of each fold's images, with a mark at one place; as many of the image as a whole

Floats = NDArray[np.float32]
Strings = NDArray[np.str_]
Score = Callable[[FeatureBank, Tensor], Floats]  # of some of a bank's images


@dataclass(frozen=True, kw_only=True)
class HeadScores:
    """Scores by the four heads, (N, 4), of one training of one category."""

    good: Floats  # images of the training, by who has not seen them
    synthetic: Floats  # made of those images, likewise
    makers: Strings  # of the synthetic anomalies
    test: Floats
    defects: Strings  # of the test images; good ones are "good"


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of all images of a category that are scored."""

    good: FeatureBank
    folds: Tensor  # of the good images: who has not seen them
    synthetic: FeatureBank
    synthetic_folds: Tensor
    makers: Strings
    test: FeatureBank
    tested: Tensor  # which of that bank's images count
    defects: Strings


def embed(prepared: PreparedCategory) -> Features:
    """Embed the test images and the synthetic anomalies of a category with ``cross``."""
    folds = torch.full((len(prepared.good.hashes),), -1)
    train = prepared.images_of(Part.TRAIN)
    hashes = [prepared.good.hashes[index] for index in train.tolist()]
    folds[train] = torch.from_numpy(fold_by_content(hashes, prepared.category.recipe.members))
    made = [
        (pixels, maker, fold)
        for fold in range(prepared.category.recipe.members)
        for pixels, maker in _anomalies(prepared, torch.nonzero(folds == fold).flatten())
    ]
    test = read_test_set(prepared)
    return Features(
        good=prepared.good.bank,
        folds=folds,
        synthetic=_embed(prepared, [pixels for pixels, _, _ in made]),
        synthetic_folds=torch.tensor([fold for _, _, fold in made]),
        makers=np.array([maker for _, maker, _ in made]),
        test=test.bank,
        tested=test.images,
        defects=np.array([sample.defect for sample in test.unscored.samples]),
    )


def score_heads(prepared: PreparedCategory, features: Features, seed: int) -> HeadScores:
    """Train every head once and score all images."""
    train = prepared.images_of(Part.TRAIN)
    index_of = [
        train[features.folds[train] == fold] for fold in range(int(features.folds.max()) + 1)
    ]
    left = [train[features.folds[train] != fold] for fold in range(len(index_of))]
    recipe = prepared.category.recipe.with_seed(seed)
    whole, *members = zip(
        _simplenet(make_trainer(prepared.good, prepared.parts, "simplenet", recipe)),
        [_memory_bank(features.good, images, seed) for images in (train, *left)],
        [_pooled(features.good, images) for images in (train, *left)],
        strict=True,
    )
    made = [torch.nonzero(features.synthetic_folds == fold).flatten() for fold in range(len(left))]
    good = [_side_by_side(m, features.good, i) for m, i in zip(members, index_of, strict=True)]
    synthetic = [
        _side_by_side(m, features.synthetic, i) for m, i in zip(members, made, strict=True)
    ]
    return HeadScores(
        good=np.concatenate(good),
        synthetic=np.concatenate(synthetic),
        makers=features.makers,
        test=_side_by_side(whole, features.test, features.tested),
        defects=features.defects,
    )


def _side_by_side(scorers: Sequence[Score], bank: FeatureBank, index: Tensor) -> Floats:
    """Return what all say of some images, (N, 4)."""
    return np.concatenate([scorer(bank, index) for scorer in scorers], axis=1)


def _simplenet(trainer: Trainer) -> list[Score]:
    """Train; return what the heads say together, then what each member says."""
    for _ in trainer.run():
        pass
    heads = trainer.folded()
    assert isinstance(heads, FoldedHeads)
    return [_in_blocks(_two_heads(each)) for each in (heads, *heads.split(trainer.recipe.members))]


def _two_heads(heads: FoldedHeads) -> Callable[[list[Tensor]], list[Tensor]]:
    assert heads.image is not None
    image = heads.image

    def score(levels: list[Tensor]) -> list[Tensor]:
        return [heads.patch(levels).flatten(1).amax(dim=1), image(mean_levels(levels)).flatten()]

    return score


def _memory_bank(bank: FeatureBank, images: Tensor, seed: int) -> Score:
    """Fit a memory bank to some good images."""
    fitted = fit(bank, images, MemoryBankRecipe(seed=seed))
    return _in_blocks(lambda levels: [fitted(levels)[0]])


def _pooled(bank: FeatureBank, images: Tensor) -> Score:
    """Fit mean and covariance of the features' means of some good images."""
    fitted = fit_pooled(bank.image_means(images))
    return lambda other, index: fitted.distances(other.image_means(index))[:, None].numpy()


def _in_blocks(score: Callable[[list[Tensor]], list[Tensor]]) -> Score:
    """Let what scores levels score a bank's images."""

    @torch.inference_mode()
    def of_bank(bank: FeatureBank, index: Tensor) -> Floats:
        blocks = [torch.stack(score(bank.images(i)), dim=1) for i in index.split(BLOCK)]
        return torch.cat(blocks).numpy()

    return of_bank


def _anomalies(
    prepared: PreparedCategory, index: Tensor
) -> Iterator[tuple[NDArray[np.uint8], str]]:
    """Yield anomalies made of some of the good images, and their makers."""
    uris = [prepared.good.uris[row] for row in index.tolist()]
    read = read_all(uris, prepared.category.preprocessing)
    images = [image.pixels for image in read if image.pixels is not None]
    for anomaly in make_anomalies(images, ANOMALIES, seed=0):
        yield anomaly.pixels, anomaly.kind
    yield from make_image_anomalies(images, ANOMALIES, seed=0)


def _embed(prepared: PreparedCategory, images: Sequence[NDArray[np.uint8]]) -> FeatureBank:
    embedding, crop = prepared.category.embedding, prepared.category.preprocessing.crop
    bank = FeatureBank(len(images), level_shapes(prepared.backbone, embedding, crop))
    for number, batch in enumerate(batches(images, BLOCK)):
        levels = prepared.backbone(torch.from_numpy(np.stack(batch)))
        bank.write(number * BLOCK, embedding.pool(levels))
    return bank
