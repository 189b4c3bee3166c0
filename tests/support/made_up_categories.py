"""Made-up categories, small enough to onboard a thousand of: what calibration really promises."""

import torch

from model.ensemble import EnsembleRecipe
from model.feature_bank import FeatureBank
from model.kind import Pairs, TrainingSet
from model.kinds import KINDS
from model.memory_bank import MemoryBankRecipe
from model.realnet.realnet_recipe import RealNetRecipe
from model.realnet.structure import Structure
from model.recipe import Recipe
from model.simplenet import HeadConfig
from model.training import TrainingConfig
from pipeline.calibration import CalibrationConfig, fit

RATE = 0.1
NUM_GOOD, NUM_NEW = 40, 60  # images to train and calibrate on; good images of the night
SHAPE = (6, 2, 2)  # channels and grid of the only level
CONFIG = TrainingConfig(
    head=HeadConfig(hidden=64),
    passes=1,
    steps_per_pass=40,
    batch_rows=64,
    coreset=0,
    learning_rate=1e-2,
    warm_up_steps=4,
)
SIMPLENET, BANK = Recipe(patch=CONFIG, image=CONFIG), MemoryBankRecipe(size=50)
RECIPES = {
    "simplenet": SIMPLENET,
    "memory_bank": BANK,
    "ensemble": EnsembleRecipe(simplenet=SIMPLENET, memory_bank=BANK),
    "realnet": RealNetRecipe(
        structure=Structure(pool=1, scales=1), passes=1, steps_per_pass=6, batch_images=8
    ),
}
CROSSWISE = [name for name, recipe in RECIPES.items() if recipe.members > 1]


def make_bank(seed: int) -> FeatureBank:
    """Images whose patches share something, in channels that are correlated."""
    generator = torch.Generator().manual_seed(seed)
    num_images = NUM_GOOD + NUM_NEW
    mixing = torch.randn(SHAPE[0], SHAPE[0], generator=generator)
    noise = torch.randn(num_images, SHAPE[1] * SHAPE[2], SHAPE[0], generator=generator)
    common = torch.randn(num_images, 1, SHAPE[0], generator=generator)
    features = ((noise + common) @ mixing).transpose(1, 2).unflatten(2, SHAPE[1:])
    bank = FeatureBank(num_images, [SHAPE])
    bank.write(0, [features.half()])
    return bank


def make_pairs(bank: FeatureBank, images: torch.Tensor, seed: int) -> Pairs:
    """One anomaly of each image: one of its four positions is far away."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.randint(4, (len(images),), generator=generator)
    marked = torch.nn.functional.one_hot(place, 4).view(-1, 1, *SHAPE[1:])
    far = 5 * torch.randn(len(images), SHAPE[0], 1, 1, generator=generator)
    anomalous = FeatureBank(len(images), [SHAPE])
    anomalous.write(0, [bank.images(images)[0] + marked * far])
    return Pairs(bank=anomalous, originals=images, masks=marked[:, 0].bool())


def realised_rate(seed: int, num_held_out: int, detector: str = "simplenet") -> float:
    """Share of new good images that one category with a kind of detector flags.

    Calibrated on ``num_held_out`` of its good images, or crosswise on all of them when it is 0.
    """
    bank, images, recipe = make_bank(seed), torch.arange(NUM_GOOD - num_held_out), RECIPES[detector]
    folds = images % recipe.members
    pairs = make_pairs(bank, images, seed) if KINDS[detector].num_pairs(recipe) else None
    training_set = TrainingSet(bank=bank, images=images, folds=folds, pairs=pairs)
    trainer = KINDS[detector].make_trainer(training_set, recipe)
    for _ in trainer.run():
        pass
    heads = trainer.folded()
    with torch.inference_mode():
        if num_held_out:
            unseen = [heads(bank.images(torch.arange(len(images), NUM_GOOD)))[0]]
        else:
            unseen = [member(bank.images(index))[0] for member, index in trainer.unseen(heads)]
        new = heads(bank.images(torch.arange(NUM_GOOD, bank.num_images)))[0]
    config = CalibrationConfig(false_alarm_rate=RATE)
    return float(fit(torch.cat(unseen).numpy(), config).flagged(new.numpy()).mean())
