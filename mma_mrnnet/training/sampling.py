"""The order in which an epoch visits its items: drawn from (seed, epoch) alone, so a resumed run draws it again."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

Order = Callable[[torch.Generator], Tensor]
"""A generator -> (n,) int64 item numbers of one epoch; n is the same at every call."""


def shuffled(count: int) -> Order:
    """Every item once, in random order."""
    return lambda generator: torch.randperm(count, generator=generator)


class EpochSampler(Sampler[int]):
    """Item numbers of one epoch after the other; the same in all processes, which each take their own batches of it.

    Args:
        order: draws an epoch.
        seed: of the run.
    """

    def __init__(self, order: Order, seed: int) -> None:
        self.order = order
        self.seed = seed
        self.length = len(order(self._generator(0)))
        self.epoch = 0
        self.start = 0
        """Items at the head of the epoch that the next iteration leaves out, for a run that was cut off there."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration draws."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        return iter(self.order(self._generator(self.epoch))[self.start :].tolist())

    def _generator(self, epoch: int) -> torch.Generator:
        return torch.Generator().manual_seed(mixed_seed(self.seed, epoch))


def mixed_seed(*numbers: int) -> int:
    """One 63-bit seed from several whole numbers; neighbouring ones give unrelated seeds (SplitMix64's finaliser)."""
    state = 0
    for number in numbers:
        state = (state + 0x9E3779B97F4A7C15 + number) & (2**64 - 1)
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
        state ^= state >> 31
    return state >> 1
