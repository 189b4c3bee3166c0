"""The folded detector head: what gets registered and what scores.

In evaluation mode standardisation, adaptor, first discriminator layer and BatchNorm are linear,
so they are one matrix; the part of it that belongs to a level acts on that level's own grid,
before anything is resized, because mixing channels and resizing positions commute. Members
stand side by side as more hidden units. What is left is exact:

    score = -w . LeakyReLU( sum over levels of resize(W_l x_l) + b )

A two-layer adaptor adds one more layer of that kind between the two. The head over images is the
same on the levels' means. Where there are both, they are expressed in the spread of good images,
(score - mean) / std, so that they compare: 0 is an ordinary good image, whatever the category. The
good images are those of the training, each scored by the member that has not seen it: whatever was
held out for the calibration has no part in it.

Matrices are stored in half precision: a thousand categories fit into one worker's memory. They are
rounded before anything is scored, so that whatever is calibrated is exactly what scores.

Shapes: B images, C channels of a level, H x W its grid, U hidden units of all members.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.embedding import mean_levels, resize
from model.kind import Heads, runs_of_same
from model.simplenet import EPS, LEAK, Head

UNITS_AT_A_TIME = 256  # .8 MB of a grid of 28 x 28: beyond the cache a core waits for memory
FEW_RUNS = 4  # categories of a batch that are scored one after the other: to stack a head for each
# image copies it as often
SECOND_HEAD_WEIGHT = 0.5  # of the lower score: either head may be the only one to see a defect


Shape = tuple[int, ...]


def head_shapes(channels: Sequence[int], hidden: int, middle: Shape = ()) -> dict[str, Shape]:
    """Return the shape of each of a folded head's tensors, by name.

    Args:
        channels: of each level, finest first.
        hidden: units that go into the dot product, of all members.
        middle: where there is a layer between, the shape of its matrices: members, units of each,
            units of each member's first layer.
    """
    first = middle[0] * middle[2] if middle else hidden
    last = middle[0] * middle[1] if middle else hidden
    shapes: dict[str, Shape] = {f"level{i}": (first, width) for i, width in enumerate(channels)}
    shapes |= {"bias": (first,)}
    shapes |= {"middle": middle, "middle_bias": (last,)} if middle else {}
    return shapes | {"output": (last,), "offset": (), "spread": ()}


class FoldedHead(nn.Module):
    """One 1x1 convolution per level, LeakyReLU, one dot product, and the scale of its scores."""

    bias: Tensor
    output: Tensor
    offset: Tensor
    spread: Tensor

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Take tensors of the names and shapes that ``head_shapes`` says."""
        super().__init__()
        for name, value in tensors.items():
            self.register_buffer(name, value)

    @property
    def weights(self) -> list[Tensor]:
        """The (U, C) matrix of each level, finest first."""
        names = sorted(name for name, _ in self.named_buffers() if name.startswith("level"))
        return [self.get_buffer(name).float() for name in names]

    @property
    def deeper(self) -> list[tuple[Tensor, Tensor]]:
        """Matrices (M, U, X) and biases (M U) of the layers behind the first: one or none."""
        named = dict(self.named_buffers())
        return [(named["middle"].float(), named["middle_bias"])] if "middle" in named else []

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Return scores (B, H, W) on the finest grid; higher is more anomalous.

        Args:
            levels: one (B, C, H, W) map per level, as ``Embedding.pool`` gives them.
        """
        parts = [level.float().contiguous(memory_format=torch.channels_last) for level in levels]
        logits = sum(self._logits(parts, units) for units in self._cut(parts[0]))
        return (logits - self.offset) / self.spread

    def _cut(self, finest: Tensor) -> list[slice]:
        """Return which units are computed at a time: so many as the cache of a core holds.

        It is how an image alone on a CPU is scored. A layer between needs all units at once, and
        a graph is for batches of any size.
        """
        is_whole = torch.compiler.is_exporting() or finest.device.type != "cpu" or len(finest) > 1
        if is_whole or self.deeper:
            return [slice(None)]
        return [slice(at, at + UNITS_AT_A_TIME) for at in range(0, len(self.bias), UNITS_AT_A_TIME)]

    def _logits(self, parts: Sequence[Tensor], units: slice) -> Tensor:
        """Return what some of the first layer's units add to the logits, (B, H, W)."""
        finest, *coarser = (weight_UC[units, :, None, None] for weight_UC in self.weights)
        hidden = F.conv2d(parts[0], finest, self.bias[units])
        for part, weight in zip(parts[1:], coarser, strict=True):
            hidden += resize(F.conv2d(part, weight), parts[0].shape[2:])
        hidden = F.leaky_relu_(hidden, LEAK)
        for weight_MUX, bias in self.deeper:
            weight = weight_MUX.flatten(0, 1)[:, :, None, None]
            hidden = F.leaky_relu_(F.conv2d(hidden, weight, bias, groups=len(weight_MUX)), LEAK)
        return F.conv2d(hidden, self.output[None, units, None, None]).squeeze(1)

    def split(self, members: int) -> list["FoldedHead"]:
        """Return the members as heads of their own; this head's scores are the mean of theirs."""
        whole = self.state_dict() | {"output": self.output * members}
        apart = {name: v.clone().chunk(members) for name, v in whole.items() if v.dim()}
        scale = {"offset": self.offset, "spread": self.spread}
        return [
            FoldedHead({name: parts[member] for name, parts in apart.items()} | scale)
            for member in range(members)
        ]

    def round_to_half(self) -> None:
        """Round every matrix to half precision; values stay in float32, everything else exact.

        Each unit's row is first divided by its largest weight, so that no scale is out of range.
        LeakyReLU lets a positive factor through: the bias and what comes next take it up.
        """
        scale_X = _round_rows(self.weights, self.bias)
        for middle_MUX, bias in self.deeper:
            middle_MUX.mul_(scale_X.view(len(middle_MUX), 1, -1))
            scale_X = _round_rows([middle_MUX.flatten(0, 1)], bias)
        self.output *= scale_X

    def in_float32(self) -> "FoldedHead":
        """Return the same head with matrices in float32: to be had once for many images."""
        return FoldedHead({name: value.float() for name, value in self.named_buffers()})

    def set_scale(self, scores_N: Tensor) -> None:
        """Express scores in the spread of these, the image scores of unseen good images."""
        std, mean = torch.std_mean(scores_N, correction=0)
        self.offset = self.offset + self.spread * mean  # not in place: members share it
        self.spread = self.spread * std.clamp_min(1e-6)


class FoldedHeads(Heads):
    """The head over patches and, where there is one, the head over images."""

    def __init__(self, patch: FoldedHead, image: FoldedHead | None = None) -> None:
        super().__init__()
        self.patch, self.image = patch, image

    @property
    def heads(self) -> list[FoldedHead]:
        """The head over patches and, where there is one, that over images."""
        return [self.patch] if self.image is None else [self.patch, self.image]

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return image scores (B,) and patch scores (B, H, W) of pooled levels.

        An image scores as its most anomalous patch does, or as it does as a whole, whichever says
        more; what the other one says counts half.
        """
        patch_scores = self.patch(levels)
        scores = self.zones.highest(patch_scores)
        if self.image is not None:
            scores = join_scores(scores, self.image(self.zones.means(levels)).flatten())
        return scores, self.zones.filled(patch_scores)

    @staticmethod
    def score_each(heads_B: Sequence[Heads], levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return what each image's own heads say of it, from batched products of all heads."""
        folded_B = [heads for heads in heads_B if isinstance(heads, FoldedHeads)]
        is_mixed = len(list(runs_of_same(heads_B))) > FEW_RUNS
        if is_mixed and _stackable(folded_B):
            return _score_stacked(folded_B, levels)
        return Heads.score_each(heads_B, levels)

    def round_to_half(self) -> None:
        """Round the matrices of both heads to half precision."""
        for head in self.heads:
            head.round_to_half()

    def in_float32(self) -> "FoldedHeads":
        """Return the same heads with matrices in float32."""
        patch, *image = (head.in_float32() for head in self.heads)
        return FoldedHeads(patch, *image).with_zones(self.zones)

    def split(self, members: int) -> list["FoldedHeads"]:
        """Return the members apart."""
        parts = zip(*(head.split(members) for head in self.heads), strict=True)
        return [FoldedHeads(*heads).with_zones(self.zones) for heads in parts]

    def set_scale(self, unseen: Iterable[tuple["FoldedHeads", Sequence[Tensor]]]) -> None:
        """Make both heads' scores compare.

        Args:
            unseen: members of these heads, each with levels of good images it has not seen.
        """
        patch, image = [], []
        for member, levels in unseen:
            patch.append(member.zones.highest(member.patch(levels)))
            if member.image is not None:
                image.append(member.image(member.zones.means(levels)).flatten())
        self.patch.set_scale(torch.cat(patch))
        if self.image is not None:
            self.image.set_scale(torch.cat(image))


def _stackable(heads_B: Sequence[FoldedHeads]) -> bool:
    """Whether all heads have the same shape, no layer between first and last, and no zones."""
    shapes = {
        tuple((name, tuple(value.shape)) for name, value in heads.state_dict().items())
        for heads in set(heads_B)
    }
    has_zones = any(not heads.zones.is_everywhere for heads in heads_B)
    return len(shapes) == 1 and not heads_B[0].patch.deeper and not has_zones


def _score_stacked(
    heads_B: Sequence[FoldedHeads], levels: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    patch_scores = _stacked([heads.patch for heads in heads_B], levels)
    scores = patch_scores.flatten(1).amax(dim=1)
    images = [heads.image for heads in heads_B if heads.image is not None]
    if images:
        scores = join_scores(scores, _stacked(images, mean_levels(levels)).flatten())
    return scores, patch_scores


def _stacked(heads_B: Sequence[FoldedHead], levels: Sequence[Tensor]) -> Tensor:
    """Return scores (B, H, W) from batched products, one per level."""
    height, width = levels[0].shape[2:]
    bias_BU, output_BU, offset_B, spread_B = (
        torch.stack([head.get_buffer(name) for head in heads_B])
        for name in ("bias", "output", "offset", "spread")
    )
    parts = []
    for index, level in enumerate(levels):
        weight_BUC = torch.stack([head.weights[index] for head in heads_B])
        rows_BKC = level.float().permute(0, 2, 3, 1).flatten(1, 2)
        part = torch.bmm(rows_BKC, weight_BUC.transpose(1, 2)).unflatten(1, level.shape[2:])
        parts.append(resize(part.permute(0, 3, 1, 2), (height, width)))
    hidden = torch.stack(parts).sum(dim=0) + bias_BU[:, :, None, None]
    hidden = F.leaky_relu_(hidden, LEAK)
    logits: Tensor = torch.bmm(output_BU[:, None], hidden.flatten(2)).squeeze(1)
    scores: Tensor = (logits - offset_B[:, None]) / spread_B[:, None]
    return scores.view(-1, height, width)


def read_heads(tensors: Mapping[str, Tensor], channels: Sequence[int]) -> FoldedHeads:
    """Return the heads of a file's tensors.

    Raises:
        ValueError: they are not what these levels need.
    """
    heads: dict[str, dict[str, Tensor]] = {"patch": {}}
    for name, value in tensors.items():
        head, _, own = name.partition(".")
        heads.setdefault(head, {})[own] = value
    if heads.keys() - {"patch", "image"} or not all(_fits(h, channels) for h in heads.values()):
        raise ValueError("tensors of other shapes than its levels need")
    return FoldedHeads(*(FoldedHead(heads[name]) for name in sorted(heads, reverse=True)))


def _fits(head: Mapping[str, Tensor], channels: Sequence[int]) -> bool:
    """Whether a head's tensors have the names and shapes that these levels need."""
    shapes = {name: tuple(value.shape) for name, value in head.items()}
    middle, output = shapes.get("middle", ()), shapes.get("output", ())
    if len(output) != 1 or len(middle) not in (0, 3):
        return False
    return shapes == head_shapes(channels, output[0], middle)


def join_scores(patch_B: Tensor, image_B: Tensor) -> Tensor:
    """Return the score of an image from what its worst patch and the image as a whole say."""
    return torch.maximum(patch_B, image_B) + SECOND_HEAD_WEIGHT * torch.minimum(patch_B, image_B)


def _round_rows(matrices: Sequence[Tensor], bias_U: Tensor) -> Tensor:
    """Scale the rows that matrices share to a largest weight of 1 and round them, in place.

    Returns:
        What each unit's bias was divided by as well, (U,), for the next layer to multiply with.
    """
    largest_U = torch.stack([matrix_UC.abs().amax(dim=1) for matrix_UC in matrices]).amax(dim=0)
    scale_U = torch.where(largest_U > 0, largest_U, 1.0)
    for matrix_UC in matrices:
        matrix_UC.copy_((matrix_UC / scale_U[:, None]).half())
    bias_U /= scale_U
    return scale_U


@torch.no_grad()
def fold(head: Head, mean_C: Tensor, std_C: Tensor, channels: Sequence[int]) -> FoldedHead:
    """Fold a trained head and the standardisation of its input, (x - mean) / std.

    Computed in float64, stored in float32. ``channels`` are those of each level, in order.
    """
    gain_X = head.scale.double() / (head.running_var.double() + EPS).sqrt()
    shift_X = head.shift.double() - head.running_mean.double() * gain_X
    last_MCU = head.inner_MCU.double() * gain_X.view(head.config.members, 1, -1)
    adaptor = [weight.double() for weight in head.adaptor]
    if adaptor:
        last_MCU = adaptor.pop() @ last_MCU
    first_MCX, *middle = [*adaptor, last_MCU]  # a LeakyReLU between any two
    first_MCX = first_MCX / std_C.double()[:, None]
    bias_X = -(mean_C.double() @ first_MCX).flatten()
    matrices = first_MCX.transpose(1, 2).flatten(0, 1).split(list(channels), dim=1)
    tensors = {f"level{index}": matrix for index, matrix in enumerate(matrices)}
    if middle:
        tensors |= {"bias": bias_X, "middle": middle[0].transpose(1, 2), "middle_bias": shift_X}
    else:
        tensors |= {"bias": bias_X + shift_X}
    tensors |= {"output": -head.outer_MU1.double().flatten() / head.config.members}
    tensors |= {"offset": torch.zeros(()), "spread": torch.ones(())}
    stored = {name: value.float().contiguous() for name, value in tensors.items()}
    return FoldedHead(stored).to(std_C.device)
