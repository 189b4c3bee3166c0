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

import copy
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.embedding import mean_levels, resize
from model.simplenet import EPS, LEAK, Head

SECOND_HEAD_WEIGHT = 0.5  # of the lower score: either head may be the only one to see a defect


class FoldedHead(nn.Module):
    """One 1x1 convolution per level, LeakyReLU, one dot product, and the scale of its scores."""

    bias: Tensor
    output: Tensor
    offset: Tensor
    spread: Tensor

    def __init__(self, channels: Sequence[int], hidden: int, middle: tuple[int, ...] = ()) -> None:
        """Reserve tensors; ``middle`` is the shape of a two-layer adaptor's second layer."""
        super().__init__()
        self.channels, self.hidden = tuple(channels), hidden
        first = middle[0] * middle[2] if middle else hidden
        for index, width in enumerate(channels):
            self.register_buffer(f"level{index}", torch.zeros(first, width))
        self.register_buffer("bias", torch.zeros(first))
        if middle:
            self.register_buffer("middle", torch.zeros(middle))
            self.register_buffer("middle_bias", torch.zeros(hidden))
        self.register_buffer("output", torch.zeros(hidden))
        self.register_buffer("offset", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))

    @property
    def weights(self) -> list[Tensor]:
        """The (U, C) matrix of each level, finest first."""
        return [self.get_buffer(f"level{index}").float() for index in range(len(self.channels))]

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Return scores (B, H, W) on the finest grid; higher is more anomalous.

        Args:
            levels: one (B, C, H, W) map per level, as ``Embedding.pool`` gives them.
        """
        units = self.units(levels)
        scores = F.conv2d(units, self.output[None, :, None, None]).squeeze(1)
        return (scores - self.offset) / self.spread

    def units(self, levels: Sequence[Tensor]) -> Tensor:
        """Return what goes into the dot product, (B, U, H, W)."""
        grid = levels[0].shape[2:]
        parts = [level.float().contiguous(memory_format=torch.channels_last) for level in levels]
        finest, *coarser = (weight_UC[:, :, None, None] for weight_UC in self.weights)
        hidden = F.conv2d(parts[0], finest, self.bias)
        for part, weight in zip(parts[1:], coarser, strict=True):
            hidden += resize(F.conv2d(part, weight), grid)
        hidden = F.leaky_relu_(hidden, LEAK)
        if hasattr(self, "middle"):
            weight = self.get_buffer("middle").float()
            groups, bias = len(weight), self.get_buffer("middle_bias")
            hidden = F.conv2d(hidden, weight.flatten(0, 1)[:, :, None, None], bias, groups=groups)
            hidden = F.leaky_relu_(hidden, LEAK)
        return hidden

    def split(self, members: int) -> list["FoldedHead"]:
        """Return the members as heads of their own; this head's scores are the mean of theirs."""
        parts = {name: list(value.chunk(members)) for name, value in self._stacked().items()}
        heads = []
        for index in range(members):
            own = {name: chunks[index] for name, chunks in parts.items()}
            middle = tuple(own["middle"].shape) if "middle" in own else ()
            head = FoldedHead(self.channels, self.hidden // members, middle)
            scale = {"offset": self.offset, "spread": self.spread}
            own["output"] = own["output"] * members
            head.to(self.bias.device).load_state_dict(own | scale)
            heads.append(head)
        return heads

    def keep(self, units: Tensor, weights: Tensor) -> "FoldedHead":
        """Return a head of some of the units, equally many of each member, reweighted.

        Args:
            units: their indices, member by member.
            weights: by what their output weights are multiplied.
        """
        tensors = dict(self.state_dict())
        tensors["output"] = (self.output[units].double() * weights).float()
        if "middle" in tensors:
            tensors["middle_bias"] = tensors["middle_bias"][units]
            middle = tensors["middle"].flatten(0, 1)[units]
            tensors["middle"] = middle.unflatten(0, (len(tensors["middle"]), -1))
        else:
            rows = {name: tensors[name] for name in tensors if name.startswith(("level", "bias"))}
            tensors |= {name: value[units] for name, value in rows.items()}
        shape = tuple(tensors["middle"].shape) if "middle" in tensors else ()
        head = FoldedHead(self.channels, len(units), shape).to(self.bias.device)
        head.load_state_dict(tensors)
        return head

    def _stacked(self) -> dict[str, Tensor]:
        """Return the tensors in which members lie one after the other."""
        return {name: value for name, value in self.state_dict().items() if value.dim()}

    def round_to_half(self) -> None:
        """Round every matrix to half precision; values stay in float32, everything else exact.

        Each unit's row is first divided by its largest weight, so that no scale is out of range.
        LeakyReLU lets a positive factor through: the bias and what comes next take it up.
        """
        scale_X = _round_rows(self.weights, self.bias)
        if hasattr(self, "middle"):
            middle_MUX = self.get_buffer("middle")
            middle_MUX *= scale_X.view(len(middle_MUX), 1, -1)
            scale_X = _round_rows([middle_MUX.flatten(0, 1)], self.get_buffer("middle_bias"))
        self.output *= scale_X

    def halve(self) -> None:
        """Hold the matrices in half precision, for many heads to stay in memory.

        What is rounded already scores the same to the bit: nothing is computed in half precision.
        """
        for name, value in list(self.named_buffers()):
            if value.dim() > 1:
                self.register_buffer(name, value.half())

    def in_float32(self) -> "FoldedHead":
        """Return the same head with matrices in float32: to be had once for many images."""
        wide = copy.copy(self)
        wide._buffers = {name: value.float() for name, value in self.named_buffers()}
        return wide

    def set_scale(self, scores_N: Tensor) -> None:
        """Express scores in the spread of these, the image scores of unseen good images."""
        std, mean = torch.std_mean(scores_N, correction=0)
        self.offset += self.spread * mean
        self.spread *= std.clamp_min(1e-6)


class FoldedHeads(nn.Module):
    """Everything one category adds to the shared backbone."""

    def __init__(self, patch: FoldedHead, image: FoldedHead | None) -> None:
        super().__init__()
        self.patch, self.image = patch, image

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return image scores (B,) and patch scores (B, H, W) of pooled levels.

        An image scores as its most anomalous patch does, or as it does as a whole, whichever says
        more; what the other one says counts half.
        """
        patch_scores = self.patch(levels)
        scores = patch_scores.flatten(1).amax(dim=1)
        if self.image is not None:
            scores = join_scores(scores, self.image(mean_levels(levels)).flatten())
        return scores, patch_scores

    def round_to_half(self) -> None:
        """Round the matrices of both heads to half precision."""
        for head in (self.patch, self.image):
            if head is not None:
                head.round_to_half()

    def halve(self) -> None:
        """Hold the matrices of both heads in half precision."""
        for head in (self.patch, self.image):
            if head is not None:
                head.halve()

    def in_float32(self) -> "FoldedHeads":
        """Return the same heads with matrices in float32."""
        return FoldedHeads(
            self.patch.in_float32(), None if self.image is None else self.image.in_float32()
        )

    def split(self, members: int) -> list["FoldedHeads"]:
        """Return the members apart."""
        patches = self.patch.split(members)
        images = [None] * members if self.image is None else self.image.split(members)
        return [FoldedHeads(*pair) for pair in zip(patches, images, strict=True)]

    def set_scale(self, unseen: Iterable[tuple["FoldedHeads", Sequence[Tensor]]]) -> None:
        """Make both heads' scores compare.

        Args:
            unseen: members of these heads, each with levels of good images it has not seen.
        """
        patch, image = [], []
        for member, levels in unseen:
            patch.append(member.patch(levels).flatten(1).amax(dim=1))
            if member.image is not None:
                image.append(member.image(mean_levels(levels)).flatten())
        self.patch.set_scale(torch.cat(patch))
        if self.image is not None:
            self.image.set_scale(torch.cat(image))


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
    layers = [weight.double() for weight in head.adaptor]
    middle_MUC = None
    if len(layers) == 2:  # the LeakyReLU between the adaptor's layers keeps them apart
        first_MCX, middle_MUC = layers[0], (layers[1] @ last_MCU).transpose(1, 2)
    else:
        first_MCX = layers[0] @ last_MCU if layers else last_MCU
    first_MCX = first_MCX / std_C.double()[:, None]
    bias_X = -(mean_C.double() @ first_MCX).flatten()
    shape = () if middle_MUC is None else tuple(middle_MUC.shape)
    folded = FoldedHead(channels, last_MCU.shape[0] * last_MCU.shape[2], shape).to(std_C.device)
    matrix_XC = first_MCX.transpose(1, 2).flatten(0, 1)
    for buffer, part in zip(folded.weights, matrix_XC.split(list(channels), 1), strict=True):
        buffer.copy_(part)
    if middle_MUC is None:
        bias_X = bias_X + shift_X
    else:
        folded.get_buffer("middle").copy_(middle_MUC)
        folded.get_buffer("middle_bias").copy_(shift_X)
    folded.bias.copy_(bias_X)
    folded.output.copy_(-head.outer_MU1.double().flatten() / len(last_MCU))
    return folded
