"""First weights of a network, from a seed.

PyTorch's modules draw from the generator of the process. It is left as it was, and lent to one
network at a time, since two threads may build one each.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch

_LENT = Lock()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Have the modules that are made in the block draw from this seed, on a CPU."""
    with _LENT, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
