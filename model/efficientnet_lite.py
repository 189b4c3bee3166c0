"""EfficientNet-Lite0: the backbone that comes as an ordinary dependency and is fast on a CPU.

Inverted residual blocks without squeeze-and-excite, ReLU6 throughout, linear block outputs.
Parameter names follow the published checkpoint, so that it loads as it is.
Source: Tan & Le 2019 (arXiv:1905.11946), table 1, in TensorFlow's "lite" variant with its
"SAME" padding.
"""

import torch.nn.functional as F
from torch import Tensor, nn

# kernel, stride, expansion, output channels, repeats
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
LEVEL_ENDS = {1: 2, 2: 4, 3: 10, 4: 15}  # level -> its last block; strides 4, 8, 16, 32
BATCH_NORM_EPS = 1e-3  # TensorFlow's; PyTorch's default is 1e-5


class SameConv(nn.Conv2d):
    """Convolution with "SAME" padding, for maps that are turned by 180 degrees.

    "SAME" puts an odd pixel of padding to the right and below; PyTorch's stride leaves it out
    there. Seen upside down the two agree, so nothing needs padding by hand, which costs a copy
    of the largest maps.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return a map of ceil(H / stride) x ceil(W / stride) positions, turned like the input."""
        kernel = self.kernel_size[0]
        weight = self.weight if kernel == 1 else self.weight.flip(2, 3)
        return F.conv2d(input, weight, self.bias, self.stride, kernel // 2, 1, self.groups)

    def plain(self) -> nn.Conv2d:
        """Return an ordinary convolution that computes the same."""
        kernel = self.kernel_size[0]
        conv = nn.Conv2d(
            *(self.in_channels, self.out_channels, kernel, self.stride[0], kernel // 2),
            groups=self.groups,
            bias=self.bias is not None,
        )
        conv.weight = nn.Parameter(self.weight.detach().flip(2, 3))
        conv.bias = self.bias
        return conv.requires_grad_(False)


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; add the input where shapes allow."""

    def __init__(
        self, channels_in: int, channels_out: int, *, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        hidden = channels_in * expansion
        self.has_expansion = expansion != 1
        if self.has_expansion:
            self._expand_conv = SameConv(channels_in, hidden, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(hidden, eps=BATCH_NORM_EPS)
        self._depthwise_conv = SameConv(hidden, hidden, kernel, stride, groups=hidden, bias=False)
        self._bn1 = nn.BatchNorm2d(hidden, eps=BATCH_NORM_EPS)
        self._project_conv = SameConv(hidden, channels_out, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(channels_out, eps=BATCH_NORM_EPS)
        self.has_shortcut = stride == 1 and channels_in == channels_out

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the block's linear output, (B, channels_out, H / stride, W / stride)."""
        hidden: Tensor = x_BCHW
        if self.has_expansion:
            hidden = F.relu6(self._bn0(self._expand_conv(hidden)), inplace=True)
        hidden = F.relu6(self._bn1(self._depthwise_conv(hidden)), inplace=True)
        hidden = self._bn2(self._project_conv(hidden))
        return hidden.add_(x_BCHW) if self.has_shortcut else hidden


class EfficientNetLite0(nn.Module):
    """Stem and blocks up to the deepest level asked for."""

    def __init__(self, layers: tuple[int, ...]) -> None:
        super().__init__()
        self.level_of_block = {LEVEL_ENDS[layer]: layer for layer in layers}
        self._conv_stem = SameConv(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=BATCH_NORM_EPS)
        blocks, channels = [], 32
        for kernel, first_stride, expansion, width, repeats in STAGES:
            for repeat in range(repeats):
                stride = first_stride if repeat == 0 else 1
                blocks.append(
                    InvertedResidual(
                        channels, width, kernel=kernel, stride=stride, expansion=expansion
                    )
                )
                channels = width
        self._blocks = nn.ModuleList(blocks[: max(self.level_of_block) + 1])

    def forward(self, x_BCHW: Tensor) -> dict[str, Tensor]:
        """Return the map of every level asked for, finest first."""
        turned = x_BCHW.flip(2, 3)  # as ``SameConv`` wants it
        hidden = F.relu6(self._bn0(self._conv_stem(turned)), inplace=True)
        levels = {}
        for index, block in enumerate(self._blocks):
            hidden = block(hidden)
            if index in self.level_of_block:
                levels[f"layer{self.level_of_block[index]}"] = hidden.flip(2, 3)
        return levels
