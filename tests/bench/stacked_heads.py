"""``python -m tests.bench.stacked_heads``: are several heads trained faster as one batched product?

Heads of different categories share no weight, as the members of one head share none: K heads of M
members trained as one head of K x M members are the same products in larger batches. Both sides
take the same steps with the same settings, in turn. Rows are drawn as from a coreset, of random
numbers: how long a step takes does not depend on what they are. Processors only; on a GPU, which
a small head does not fill, the ratio may differ.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from rich.console import Console
from torch import Tensor

from model.recipe import Recipe
from model.training import HeadTrainer, TrainingConfig

PATCHES = 3_000  # of a category's coreset
ROUNDS = 3


@dataclass
class RandomRows:
    """The coresets of some categories, one after the other, for so many members each."""

    coresets: list[Tensor]  # (K, C), half precision
    members: int

    def sample(self, num_rows: int, generator: torch.Generator) -> Tensor:
        """Return rows of the first category, (K, C)."""
        return self.coresets[0][:num_rows].float()

    def num_batches(self, config: TrainingConfig) -> int:
        """Return the number of batches in a pass."""
        return config.steps_per_pass

    def batches(self, config: TrainingConfig, generator: torch.Generator) -> Iterator[Tensor]:
        """Yield random rows for every member, (M, K, C)."""
        size = (self.members, config.batch_rows)
        for _ in range(config.steps_per_pass):
            drawn = [rows[torch.randint(len(rows), size)] for rows in self.coresets]
            yield torch.cat(drawn).float()


def seconds_of(coresets: list[Tensor], config: TrainingConfig) -> float:
    """Return what it takes to train the heads of some categories as one."""
    members = config.head.members
    wide = replace(config.head, members=members * len(coresets))
    rows = RandomRows(coresets, members)
    trainer = HeadTrainer(rows, replace(config, head=wide), torch.device("cpu"))
    started = time.perf_counter()
    for _ in trainer.run():
        pass
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.stacked_heads")
    parser.add_argument("--channels", type=int, default=152, help="of an embedding; Lite0's here")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch; a slot has its share")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    console = Console(highlight=False, soft_wrap=True)
    config = replace(Recipe().patch, passes=1)
    for number in (2, 4):
        coresets = [torch.randn(PATCHES, asked.channels).half() for _ in range(number)]
        ratios, alone = [], []
        for _ in range(ROUNDS):
            alone.append(sum(seconds_of([rows], config) for rows in coresets))
            ratios.append(seconds_of(coresets, config) / alone[-1])
        console.print(
            f"{number} heads stacked: {statistics.median(ratios):.2f} of the time of one after "
            f"the other ({min(ratios):.2f} to {max(ratios):.2f}; "
            f"{1000 * statistics.median(alone) / number:.0f} ms a head and pass)"
        )


if __name__ == "__main__":
    main()
