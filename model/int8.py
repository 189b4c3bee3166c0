"""int8: a backbone whose convolutions multiply whole numbers of 8 bits.

What a convolution reads is rounded to 256 levels of a range, and its weights to 255 levels for each
output channel. Weights say themselves what their levels are. Ranges are measured once, on images
made by code, when a category is onboarded, and belong to its detector: every machine rounds alike.
The rounding stands in the network as PyTorch's own ``fake_quantize``; OpenVINO makes products of
whole numbers of it (``cpu_engine.py``).

Processors without VNNI add two products, of an image's number up to 255 and a weight, in 16 bits,
and cut off what is beyond. So weights of neighbouring channels are kept so small that no two
products reach that far: all processors compute the same sums, to the bit.

Shapes: C output channels, K input channels, k x k positions of a kernel.
Source: Jacob et al. 2018 (arXiv:1712.05877), section 2; no training follows the rounding.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn

from model.efficientnet_lite import SameConv

Range = tuple[float, float]
Ranges = tuple[Range, ...]  # of what convolutions read, in the order in which it is computed

WEIGHT_STEPS = 127  # a level more would take a pair of products beyond 16 bits: 255 * 129 > 32767
STEPS_PER_OCTAVE = 16  # of a range's limits
LEAST = 2.0**-20  # of a limit: what is never anything but zero


class RoundedMap(nn.Module):
    """Numbers, cut off at a range and rounded to its 256 levels, of which 0 is one."""

    def __init__(self, limits: Range) -> None:
        super().__init__()
        low, high = limits
        self.step, self.least = (high / 255, 0) if low == 0 else (high / 127, -128)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x``, rounded."""
        return torch.fake_quantize_per_tensor_affine(x, self.step, 0, self.least, self.least + 255)


class RoundedConv(nn.Module):
    """A convolution with rounded weights."""

    scale: Tensor
    zero: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        scale = weight_limits(conv.weight.detach()) / WEIGHT_STEPS
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.zeros_like(scale, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        """Return what the convolution makes of ``x``."""
        weight = torch.fake_quantize_per_channel_affine(
            self.conv.weight, self.scale, self.zero, 0, -128, 127
        )
        found: Tensor = self.conv._conv_forward(x, weight, self.conv.bias)
        return found


def weight_limits(weight_CKkk: Tensor) -> Tensor:
    """Return the number (C,) that is the highest level of each output channel's weights.

    Kernels multiply input channels in fours and add them in pairs: 0 and 1, 2 and 3, and so on.
    Where a kernel reads one channel alone there are no pairs.
    """
    alone = weight_CKkk.abs().amax(dim=(1, 2, 3))
    if weight_CKkk.shape[1] > 1:
        even = nn.functional.pad(weight_CKkk, (0, 0, 0, 0, 0, weight_CKkk.shape[1] % 2))
        pairs = (even[:, ::2] + even[:, 1::2]).abs().amax(dim=(1, 2, 3))
        alone = torch.maximum(alone, pairs)
    return alone.clamp_min(LEAST)


def measure_ranges(network: nn.Module, images: Iterable[Tensor]) -> Ranges:
    """Return the ranges of what a network's convolutions read, rounded outwards.

    Limits are sixteenths of an octave apart, so that machines whose sums differ in the last bits
    come to the same ones. The network is as ``rounded`` takes it.
    """
    watched = _Watched(network)
    with torch.no_grad():
        for image in images:
            watched.run(image)
    return tuple(_outwards(low, high) for low, high in watched.seen.values())


def read_ranges(given: Any) -> Ranges | None:
    """Return ranges from plain JSON values, where there are any.

    Raises:
        TypeError, ValueError: they are no ranges.
    """
    if given is None:
        return None
    ranges = tuple((float(low), float(high)) for low, high in given)
    for low, high in ranges:
        if not (LEAST <= high < math.inf and low in (0.0, -high)):
            raise ValueError(f"[{low:g}, {high:g}] is no range of numbers from 0 or around it")
    return ranges


def rounded(network: nn.Module, ranges: Ranges) -> nn.Module:
    """Return a network of the same parts whose convolutions read and hold rounded numbers.

    What the network returns is not rounded at the end.

    Raises:
        ValueError: there are not as many ranges as the network needs.
    """
    graph = _Tracer().trace(network)
    read = _read_by_convolutions(network, graph)
    if len(read) != len(ranges):
        raise ValueError(f"{len(ranges)} ranges of numbers, the network needs {len(read)}")
    module = fx.GraphModule(network, graph)
    for index, (node, limits) in enumerate(zip(read, ranges, strict=True)):
        name = f"rounded{index}"
        module.add_submodule(name, RoundedMap(limits))
        with graph.inserting_after(node):
            after = graph.call_module(name, (node,))
        for user in [user for user in node.users if user is not after and not _is_last(user)]:
            user.replace_input_with(node, after)
    for name, part in list(module.named_modules()):
        if isinstance(part, nn.Conv2d):
            plain = part.plain() if isinstance(part, SameConv) else part
            module.set_submodule(name, RoundedConv(plain))
    module.recompile()
    return module


class _Tracer(fx.Tracer):
    """Takes convolutions, of whatever class, and what rounds as they are."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = isinstance(m, nn.Conv2d | RoundedMap | RoundedConv)
        return own or super().is_leaf_module(m, module_qualified_name)


class _Watched(fx.Interpreter):
    """Runs a network and keeps the extremes of what its convolutions read."""

    def __init__(self, network: nn.Module) -> None:
        graph = _Tracer().trace(network)
        super().__init__(fx.GraphModule(network, graph))
        nodes = _read_by_convolutions(network, graph)
        self.seen = {node.name: (math.inf, -math.inf) for node in nodes}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name in self.seen:
            low, high = self.seen[n.name]
            self.seen[n.name] = min(low, result.min().item()), max(high, result.max().item())
        return result


def _read_by_convolutions(network: nn.Module, graph: fx.Graph) -> list[fx.Node]:
    """Return what convolutions read, each once, in the order in which it is read."""
    parts = dict(network.named_modules())
    read = (
        node.all_input_nodes[0]
        for node in graph.nodes
        if node.op == "call_module" and isinstance(parts[str(node.target)], nn.Conv2d)
    )
    return list(dict.fromkeys(read))


def _is_last(node: fx.Node) -> bool:
    """Whether nothing but the network's result, turned perhaps, is made of a node."""
    if node.op == "output":
        return True
    return node.target == "flip" and all(user.op == "output" for user in node.users)


def _outwards(low: float, high: float) -> Range:
    octaves = math.ceil(STEPS_PER_OCTAVE * math.log2(max(-low, high, LEAST))) / STEPS_PER_OCTAVE
    limit = 2.0**octaves
    return (-limit if low < 0 else 0.0), limit
