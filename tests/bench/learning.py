"""Five mornings of labels, and what the next model makes of them, on images that nobody was shown.

Half of the test images, by lot, come in five nights of 200 images with 5 % defects: good ones may
come again, defects do not. Each morning somebody labels the first 15 flags, the highest scores, and
an audit sample of 5. Half of the labels are kept for the gate, as always. Three models are compared
on the other half of the test images: the one that flagged, one that trained on the good images as
well, and one that learned from the defects too.

    python -m tests.bench.learning catalogue.yaml --keep /tmp/features --seeds 3

The catalogue has `calibration: cross`. Features and trainings are kept in a folder.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from scipy import stats

from model.feature_bank import FeatureBank
from model.kind import Heads, Trainer, TrainingSet
from model.kinds import KINDS
from model.label_training import LEAST_DEFECTS, LabelTrainer
from pipeline.backbones import fetch_backbone
from pipeline.calibration import Calibration, fit, fold_by_content
from pipeline.catalogue.catalogue import Category, load_catalogue
from pipeline.feature_store.embedder import embedder_of
from pipeline.labels.audit import audit_sample
from pipeline.labels.parts import is_for_gate
from pipeline.onboarding.features import level_shapes
from pipeline.onboarding.listed_images import list_images

NIGHTS, NIGHT_IMAGES, DEFECTS_A_NIGHT, FLAGS = 5, 200, 10, 15
BLOCK = 16
Index = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Images:
    """All images of a category, embedded."""

    category: Category
    bank: FeatureBank
    uris: list[str]
    hashes: list[str]
    is_train: NDArray[np.bool_]
    is_defect: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What five mornings said, of the half that may be learned from."""

    good: Index
    by_score: Index  # of these
    defects: Index
    num_given: int


def embed(category: Category, keep: Path) -> Images:
    """Embed every image once; what a folder keeps is read."""
    samples = {each.uri: each for each in list_images(category).samples}
    backbone = fetch_backbone(category.backbone_config)
    shapes = level_shapes(backbone, category.embedding, category.preprocessing.size)
    paths = [keep / f"{category.name}-{number}.npy" for number in range(len(shapes))]
    about = keep / f"{category.name}.json"
    if not about.exists():
        keep.mkdir(parents=True, exist_ok=True)
        bank, read = FeatureBank(len(samples), shapes), []
        for batch in embedder_of(category, backbone).read(sorted(samples), category.preprocessing):
            bank.write(len(read), list(batch.planes.values()))
            read += [(image.uri, image.sha256) for image in batch.images]
        for path, level in zip(paths, bank.levels, strict=True):
            np.save(path, level.numpy()[: len(read)])
        about.write_text(json.dumps(read))
    levels = iter([torch.from_numpy(np.load(path)) for path in paths])
    uris, hashes = map(list, zip(*json.loads(about.read_text()), strict=True))
    return Images(
        category=category,
        bank=FeatureBank(len(uris), shapes, allocate=lambda _: next(levels)),
        uris=uris,
        hashes=hashes,
        is_train=np.array([samples[uri].split == "train" for uri in uris]),
        is_defect=np.array([not samples[uri].is_good for uri in uris]),
    )


def train(images: Images, index: Index, seed: int, kept: Path) -> tuple[Trainer, TrainingSet]:
    """Train a category's recipe on some images, or read what was trained before."""
    recipe = images.category.recipe.with_seed(seed)
    folds = fold_by_content([images.hashes[each] for each in index], recipe.members)
    own = TrainingSet(
        bank=images.bank, images=torch.from_numpy(index), folds=torch.from_numpy(folds)
    )
    trainer = KINDS[images.category.detector].make_trainer(own, recipe)
    if kept.exists():
        trainer.load_state_dict(torch.load(kept, weights_only=True))
        return trainer, own
    for _ in trainer.run():
        pass
    torch.save(trainer.state_dict(), kept)
    return trainer, own


@torch.inference_mode()
def score(heads: Heads, images: Images, index: Index) -> NDArray[np.float32]:
    """Return the scores of some images."""
    blocks = torch.from_numpy(index).split(BLOCK)
    return np.concatenate([heads(images.bank.images(block))[0].numpy() for block in blocks])


def calibrate(trainer: Trainer, images: Images, labels: Labels | None) -> tuple[Heads, Calibration]:
    """Return a trainer's heads and their calibration."""
    heads, scores = trainer.folded(), []
    for member, index in trainer.unseen(heads):
        free = index if labels is None else index[~torch.isin(index, torch.tensor(labels.by_score))]
        if len(free):
            scores.append(score(member, images, free.numpy()))
    return heads, fit(np.concatenate(scores), images.category.calibration_config)


def mornings(
    images: Images, champion: tuple[Heads, Calibration], shown: Index, seed: int
) -> Labels:
    """Draw five nights of the images to be shown, and label each morning."""
    random = np.random.default_rng(seed)
    good = shown[~images.is_defect[shown]]
    defects = random.permutation(shown[images.is_defect[shown]])
    own_scores = score(champion[0], images, shown)
    scores = dict(zip(shown.tolist(), own_scores, strict=True))
    flagged = dict(zip(shown.tolist(), champion[1].flagged(own_scores), strict=True))
    said: dict[int, bool] = {}  # whether the image was chosen by its score
    for night in range(NIGHTS):
        new = defects[night * DEFECTS_A_NIGHT :][:DEFECTS_A_NIGHT]
        drawn = random.choice(good, NIGHT_IMAGES - DEFECTS_A_NIGHT)
        own = [int(each) for each in {*new, *drawn}]
        first = sorted((each for each in own if flagged[each]), key=lambda each: -scores[each])
        audit = audit_sample(str(night), [images.uris[each] for each in own])
        said |= {each: said.get(each, True) for each in first[:FLAGS]}
        said |= dict.fromkeys((each for each in own if images.uris[each] in audit), False)
    told = [each for each in said if not is_for_gate(images.uris[each])]
    by_score = [each for each in told if said[each]]
    return Labels(
        good=np.array([each for each in told if not images.is_defect[each]], np.int64),
        by_score=np.array(by_score, np.int64),
        defects=np.array([each for each in told if images.is_defect[each]], np.int64),
        num_given=len(said),
    )


def defect_bank(images: Images, index: Index) -> FeatureBank:
    """Return the features of some images as a bank of their own."""
    levels = images.bank.images(torch.from_numpy(index))
    bank = FeatureBank(len(index), [tuple(level.shape[1:]) for level in levels])
    bank.write(0, levels)
    return bank


def compare(images: Images, seed: int, keep: Path) -> Iterator[tuple[str, float, int, int]]:
    """Yield, for each model, recall, false alarms and good images of those never shown."""
    random = np.random.default_rng(seed)
    tests = np.flatnonzero(~images.is_train)
    is_shown = random.random(len(tests)) < 0.5
    shown, unseen = tests[is_shown], tests[~is_shown]
    first = np.unique(np.array(images.hashes), return_index=True)[1]
    listed = np.intersect1d(np.flatnonzero(images.is_train), first)
    name = f"{images.category.name}-{images.category.detector}-{seed}"
    champion, _ = train(images, listed, seed, keep / f"{name}-none.pt")
    found = {"no learning": calibrate(champion, images, None)}
    labels = mornings(images, found["no learning"], shown, seed)
    joined = np.concatenate([listed, labels.good])
    again, own = train(images, joined, seed, keep / f"{name}-good.pt")
    found["good images"] = calibrate(again, images, labels)
    if len(labels.defects) >= LEAST_DEFECTS:
        fed = LabelTrainer(again, own, defect_bank(images, labels.defects))
        found["defects too"] = calibrate(fed, images, labels)
        Console(stderr=True).print(
            f"{name}: {labels.num_given} labels, {fed.choice}", soft_wrap=True
        )
    bad = images.is_defect[unseen]
    for arm, (heads, calibration) in found.items():
        flagged = calibration.flagged(score(heads, images, unseen))
        yield arm, float(flagged[bad].mean()), int(flagged[~bad].sum()), int((~bad).sum())


def main() -> None:
    """Compare on every category of a catalogue."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("catalogue")
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    out = Console()
    torch.set_num_threads(1)
    for category in load_catalogue(asked.catalogue):
        images = embed(category, asked.keep)
        rows = []
        for seed in range(asked.seeds):
            rows += list(compare(images, seed, asked.keep))
            Console(stderr=True).print(rows[-3:])
        for arm in dict.fromkeys(row[0] for row in rows):
            recalls = [recall for name, recall, _, _ in rows if name == arm]
            alarms, good = (sum(row[n] for row in rows if row[0] == arm) for n in (2, 3))
            low, high = stats.binomtest(alarms, good).proportion_ci(method="wilson")
            shown = " ".join(f"{recall:.3f}" for recall in recalls)
            out.print(
                f"{category.name:16} {arm:12} recall {np.mean(recalls):.3f} ({shown}), "
                f"false alarms {alarms / good:.3f} [{low:.3f}, {high:.3f}]",
                soft_wrap=True,
            )


if __name__ == "__main__":
    main()
