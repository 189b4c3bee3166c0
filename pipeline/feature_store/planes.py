"""Planes: the pooled levels of a backbone that somebody wants, each under its own name.

Several settings of one backbone, of a study for example, share what they have in common.

Shapes: B images, C channels, H x W positions of a level.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from model.embedding import Embedding

Setting = tuple[Embedding, tuple[int, ...]]  # patch size and kind, layers


def plane_name(embedding: Embedding, layer: int, num_layers: int) -> str:
    """Name one level; the official embedding's width depends on how many there are."""
    among = f"-of{num_layers}" if embedding.kind == "official" else ""
    return f"{embedding.kind}{among}-window{embedding.patch_size}-layer{layer}"


def names_of(setting: Setting) -> list[str]:
    """Return the planes of one setting, finest first."""
    embedding, layers = setting
    return [plane_name(embedding, layer, len(layers)) for layer in layers]


def plane_names(settings: Sequence[Setting]) -> list[str]:
    """Return the planes of all settings, each once."""
    return list(dict.fromkeys(name for setting in settings for name in names_of(setting)))


def pool_planes(levels: Mapping[int, Tensor], settings: Sequence[Setting]) -> dict[str, Tensor]:
    """Return half-precision (B, C, H, W) by plane, in the order of ``plane_names``."""
    found: dict[str, Tensor] = {}
    for setting in settings:
        names, (embedding, layers) = names_of(setting), setting
        if found.keys() >= set(names):
            continue
        pooled = embedding.pool([levels[layer] for layer in layers])
        for name, level_BCHW in zip(names, pooled, strict=True):
            found.setdefault(name, level_BCHW)
    return found
