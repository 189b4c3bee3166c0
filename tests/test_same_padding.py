"""EfficientNet-Lite0 turns its maps instead of padding them; the outcome must be "SAME" padding."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.efficientnet_lite import SameConv


def padded_by_hand(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """TensorFlow's rule: outputs = ceil(size / stride), an odd pixel of padding comes last."""
    kernel = weight.shape[-1]
    total = [max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[2:]]
    (top, left), (down, across) = [amount // 2 for amount in total], total
    return F.conv2d(F.pad(x, (left, across - left, top, down - top)), weight, stride=stride)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (9, 9), (8, 11), (7, 10)])
def test_a_turned_convolution_pads_as_tensorflow_does(
    kernel: int, stride: int, size: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(0)
    convolution = SameConv(2, 3, kernel, stride, bias=False).requires_grad_(False)
    convolution.weight.copy_(torch.randn(convolution.weight.shape, generator=generator))
    x = torch.randn(1, 2, *size, generator=generator)
    turned = convolution(x.flip(2, 3)).flip(2, 3)
    torch.testing.assert_close(turned, padded_by_hand(x, convolution.weight, stride))


def test_the_odd_pixel_of_padding_is_to_the_right_and_below() -> None:
    convolution = SameConv(1, 1, 3, 2, bias=False).requires_grad_(False)
    convolution.weight.fill_(1)
    x = torch.arange(16.0).view(1, 1, 4, 4)
    # Windows start at pixels 0 and 2: 0+1+2+4+5+6+8+9+10 = 45, then 2+3+6+7+10+11 = 39, ...
    expected = torch.tensor([[[[45.0, 39.0], [66.0, 50.0]]]])
    assert convolution(x.flip(2, 3)).flip(2, 3).equal(expected)
