"""The kind RealNet: its presets, and how its heads are read from a file.

Shapes: C channels of a level.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from model.kind import Kind, Preset
from model.preprocessing import Preprocessing
from model.realnet.realnet_heads import RealNetHeads
from model.realnet.realnet_recipe import RealNetRecipe
from model.realnet.realnet_training import RealNetTrainer
from model.realnet.structure import Structure


def read_realnet(tensors: Mapping[str, Tensor], channels: Sequence[int]) -> RealNetHeads:
    """Return the heads of a file's tensors.

    Raises:
        ValueError, KeyError: they are not what these levels need.
    """
    heads = RealNetHeads(tensors)
    if heads.num_levels != len(channels):
        raise ValueError(f"selects channels of {heads.num_levels} levels, not of {len(channels)}")
    for level, width in enumerate(channels):
        shapes = [tensors[f"{name}{level}"].shape for name in ("index", "mean", "scale")]
        if len(set(shapes)) != 1 or not 0 <= float(tensors[f"index{level}"].max()) < width:
            raise ValueError(f"selects other channels than the {width} of level {level}")
    return heads


PRESETS = {
    "default": Preset(
        recipe=RealNetRecipe(),
        preprocessing=Preprocessing(fit="stretch"),
        layers=(1, 2, 3),
        patch_size=1,
    ),
    # The release: four levels as they are, three scales of two units, 1,000 epochs of 242 images.
    # Of its anomalies and of its reconstructions' way up, it has simpler ones.
    "paper": Preset(
        recipe=RealNetRecipe(
            channels=(256, 512, 512, 256),
            structure=Structure(pool=1, scales=3, units=2, attends=1, decoder_width=128),
            standardised=False,
            pairs=4096,
            passes=1000,
            steps_per_pass=15,
            learning_rate=1e-4,
            warm_up_steps=0,
            decay=False,
        ),
        preprocessing=Preprocessing(resize=256, crop=256, fit="stretch"),
        layers=(1, 2, 3, 4),
        patch_size=1,
    ),
}
REALNET = Kind(
    presets=PRESETS,
    make_trainer=RealNetTrainer,
    read_heads=read_realnet,
    num_pairs=lambda recipe: recipe.pairs,
    # Rounded to bfloat16 other channels rank first, and scores move by up to their spread.
    precisions=frozenset({"float32"}),
)
