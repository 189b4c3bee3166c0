"""What a kind of detector is: everything that the pipeline asks of one, SimpleNet or another.

A kind fits heads to a bank of good images' features and reads them from a file again. Whoever
scores, stores, calibrates or reports knows heads and trainers by these classes only; which kinds
there are says ``kinds.py``.

Shapes: B images, N good images, C channels of a level, h x w its grid.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from model.embedding import EmbeddingKind
from model.feature_bank import FeatureBank
from model.precision import PRECISIONS, Precision
from model.preprocessing import Preprocessing
from model.zones import EVERYWHERE, Zones

Images = Tensor | list[Tensor]  # uint8 RGB: (B, H, W, 3), or (H, W, 3) each
Scored = tuple[Tensor, Tensor]  # image scores (B,) and patch scores (B, h, w)
ScoreInputs = Callable[[Sequence["Heads"], Any], Scored]  # of inputs, each by its own heads
EmbedInputs = Callable[[Tensor], Sequence[Tensor]]  # pooled levels of inputs (B, H, W, 3)


class Heads(nn.Module, ABC):
    """Everything that one category adds to the shared backbone.

    Its state are buffers; those with two dimensions or more are rounded to half precision before
    anything is scored, so that a file, which holds halves, scores exactly as they do.
    """

    zones = EVERYWHERE  # what of an image counts; no buffer, the header of a file holds it

    def with_zones(self, zones: Zones) -> Self:
        """Set what counts, for these heads and for all that they are made of; return them."""
        for module in self.modules():
            if isinstance(module, Heads):
                module.zones = zones
        return self

    def sharing(self, zones: Zones) -> Self:
        """Return these heads with other zones; both share their tensors."""
        shared: dict[int, Any] = {id(tensor): tensor for tensor in self.buffers()}
        return copy.deepcopy(self, shared).with_zones(zones)

    @abstractmethod
    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return image scores (B,) and patch scores (B, h, w) on the finest grid.

        Args:
            levels: one (B, C, h, w) map per level, as ``Embedding.pool`` gives them.
        """

    @abstractmethod
    def in_float32(self) -> "Heads":
        """Return the same heads with matrices in float32: to be had once for many images."""

    @staticmethod
    def score_each(heads_B: Sequence["Heads"], levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return what ``forward`` of each image's own heads says of that image.

        A kind overrides it where many heads together need fewer and larger products than one after
        the other: what a GPU waits for is their launch.

        Args:
            heads_B: all of this class; those of one category lie side by side.
            levels: of all B images.
        """
        scored = [
            heads_B[run.start]([level[run] for level in levels]) for run in runs_of_same(heads_B)
        ]
        return join_batches(scored)

    def score_pixels(
        self, heads_B: Sequence["Heads"], images: Images, score: ScoreInputs, most: int
    ) -> Scored:
        """Return what each image's own heads say of its pixels: it is one input of the network.

        Heads whose images are several inputs override this and the next two.

        Args:
            heads_B: all of one network, these the first; these alone, where they override it.
            images: as they were read.
            score: of inputs, from the heads of each and their pixels.
            most: inputs at a time.
        """
        del most
        return score(heads_B, as_batch(images))

    def score_levels(self, pooled: Sequence[Any], score: ScoreInputs) -> Scored:
        """Return what these heads say of images, from what ``embed`` returned of them."""
        return score([self] * len(pooled[0]), pooled)

    def embed(self, images: Images, embed: EmbedInputs, most: int) -> Sequence[Any]:
        """Return what ``forward`` is given of images, from what embeds inputs."""
        del most
        return embed(as_batch(images))

    @property
    def stored_bytes(self) -> int:
        """Size in a file: matrices in half precision, the rest in float32."""
        return sum(v.numel() * (2 if v.dim() > 1 else 4) for v in self.state_dict().values())

    def halve(self) -> None:
        """Hold the matrices in half precision, for many heads to stay in memory.

        What is rounded already scores the same to the bit: nothing is computed in half precision.
        """
        for module in self.modules():
            for name, value in list(module.named_buffers(recurse=False)):
                if value.dim() > 1:
                    module.register_buffer(name, value.half())


def as_batch(images: Images) -> Tensor:
    """Return images of one size as one tensor (B, H, W, 3)."""
    return images if isinstance(images, Tensor) else torch.stack(images)


def runs_of_same(heads_B: Sequence[Heads], most: int | None = None) -> Iterator[slice]:
    """Cut a batch into runs of at most ``most`` images, each with the same heads."""
    start = 0
    for _, same in groupby(heads_B, key=id):
        stop = start + len(list(same))
        step = most or stop - start
        for at in range(start, stop, step):
            yield slice(at, min(at + step, stop))
        start = stop


def join_batches(parts: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return image scores and patch scores of several batches as those of one."""
    scores, patch_scores = zip(*parts, strict=True)
    return torch.cat(scores), torch.cat(patch_scores)


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Synthetic anomalies beside the good images that they were made of.

    M of them, H x W pixels of the crop.
    """

    bank: FeatureBank  # their features, (M, ...)
    originals: Tensor  # (M,), index of each one's good image in its own bank
    masks: Tensor  # (M, H, W), true where a pixel was changed; empty where none was


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """What heads are fitted to."""

    bank: Any  # of good images, a ``FeatureBank`` or, where they are cut into tiles, ``TiledBank``
    images: Tensor  # (N,), index of those to fit to
    folds: Tensor  # (N,), the fold, 0 to ``recipe.members`` - 1, that leaves each of them out
    pairs: Pairs | None = None  # for a kind that learns from synthetic anomalies


class Trainer(Protocol):
    """Heads on their way from nothing to fitted; its whole state can be saved and restored."""

    recipe: Any

    @property
    def num_passes(self) -> int:
        """Steps of a whole fit, each a point of the curve."""

    @property
    def reports(self) -> list[tuple[str, Any]]:
        """What every finished pass did, a dataclass of numbers, with the head that it was for."""

    def run(self) -> Iterator[Any]:
        """Make the passes that are left; may be stopped between any two of them."""

    def folded(self) -> Heads:
        """Return the heads as they stand, rounded to what is stored."""

    def unseen(self, heads: Heads) -> Iterator[tuple[Heads, Tensor]]:
        """Yield heads with good images that they have not seen, a few at a time, each once."""

    def health(self) -> dict[str, float]:
        """Return by name what tells a sound fit from a broken one."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything a restart needs: tensors, numbers and plain containers only."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a ``state_dict`` of a trainer with the same bank, images and recipe."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A recipe with a name, and the images and features it is meant for."""

    recipe: Any
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    embedding_kind: EmbeddingKind = "paper"
    layers: tuple[int, ...] = (2, 3)
    patch_size: int = 3

    @property
    def features(self) -> dict[str, Any]:
        """The settings of a category that it fills in, where the category has none of its own."""
        return {"layers": list(self.layers), "patch_size": self.patch_size}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of detector."""

    presets: Mapping[str, Preset]
    make_trainer: Callable[[TrainingSet, Any], Trainer]  # with a recipe
    # Of a file's tensors in float32, and the channels of each level. Raises ValueError, KeyError.
    read_heads: Callable[[Mapping[str, Tensor], Sequence[int]], Heads]
    num_pairs: Callable[[Any], int] = lambda _: 0  # synthetic anomalies that a recipe learns from
    precisions: Collection[Precision] = frozenset(PRECISIONS)  # of the backbone, that it stands
    # Kinds whose recipes its own holds, each under its name: their settings hold for it, through
    # ``recipe.with_part``.
    parts: tuple[str, ...] = ()
    is_studied: bool = False  # whether a study can search its settings
