"""The order in which an epoch visits its items: drawn from (seed, epoch) alone, so a resumed run draws it again."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from mma_mrnnet.model.labels import NO_CLASS
from mma_mrnnet.training.augmentation import mixed_seed

Order = Callable[[torch.Generator], Tensor]
"""A generator -> (n,) int64 item numbers of one epoch; n is the same at every call."""


BALANCES = ("off", "corpora", "classes")
"""Ways of choosing how many items of each kind an epoch draws; see `corpus_draws`."""


class Draw(NamedTuple):
    """How many of some items an epoch draws.

    Attributes:
        items: (n,) int64 item numbers, at least one.
        count: each of them comes `count // n` times or once more; which come once more is drawn afresh each epoch.
    """

    items: Tensor
    count: int


def shuffled(count: int) -> Order:
    """Every item once, in random order."""
    return lambda generator: torch.randperm(count, generator=generator)


def mixed(corpora: Sequence[Sequence[Draw]]) -> Order:
    """The draws of several corpora, each corpus's spread evenly over the epoch, so that all end together.

    In any n items in a row, a corpus with share s of the epoch has n s items, give or take one where there are two
    corpora, and (1 - s) + s (C - 1) where there are C.

    Args:
        corpora: of each corpus its draws, which are spread evenly over the corpus's items in their turn.

    Returns:
        The order; its length is the sum of all counts.
    """

    def order(generator: torch.Generator) -> Tensor:
        drawn = [[_drawn(draw, generator) for draw in draws] for draws in corpora]
        return _interleaved([_interleaved(parts, generator) for parts in drawn], generator)

    return order


def corpus_draws(sources: Sequence[str], expression: Tensor, balance: str) -> dict[str, list[Draw]]:
    """What an epoch draws of each corpus; as many items in all as there are, however they are balanced.

    - `off`: every item once.
    - `corpora`: the same number of each corpus, items of small ones several times, of large ones a part.
    - `classes`: of each corpus's rows with an expression as many as there are, but of each expression that occurs there
      the same number; its other rows once.

    Numbers that do not divide give the first corpora, by name, or the first classes one more.

    Args:
        sources: of each item its corpus.
        expression: (N,) int64 class ids; -100 where unlabelled.
        balance: one of `BALANCES`.

    Returns:
        {corpus: its draws}, by name.

    Raises:
        ValueError: an unknown way of balancing.
    """
    if balance not in BALANCES:
        raise ValueError(f"balance must be one of {', '.join(BALANCES)}; got {balance!r}")
    names = sorted(set(sources))
    number_of = {name: number for number, name in enumerate(names)}
    numbers = np.fromiter(map(number_of.__getitem__, sources), np.int64, len(sources))
    corpora = [torch.from_numpy(np.flatnonzero(numbers == number)) for number in range(len(names))]
    if balance == "corpora":
        draws = [
            [Draw(*pair)]
            for pair in zip(corpora, _even_shares(len(sources), len(corpora)), strict=True)
        ]
    elif balance == "classes":
        draws = [_class_draws(items, expression[items]) for items in corpora]
    else:
        draws = [[Draw(items, len(items))] for items in corpora]
    return dict(zip(names, draws, strict=True))


def _class_draws(items: Tensor, expression: Tensor) -> list[Draw]:
    """Draws of one corpus: the same number of each expression in it, and the other rows as they are."""
    groups = {label: items[expression == label] for label in expression.unique().tolist()}
    others = groups.pop(NO_CLASS, items[:0])
    shares = _even_shares(len(items) - len(others), len(groups))
    draws = [Draw(*pair) for pair in zip(groups.values(), shares, strict=True)]
    return [*draws, Draw(others, len(others))] if len(others) else draws


def _even_shares(total: int, parts: int) -> list[int]:
    """Whole numbers that add up to `total` and differ by one at most, the larger first."""
    return [(total + parts - 1 - part) // parts for part in range(parts)]


def _drawn(draw: Draw, generator: torch.Generator) -> Tensor:
    """(count,) items in random order, round after round of all of them; the last round may stop early."""
    items, count = draw
    rounds = -(-count // len(items))
    return torch.cat(
        [items[torch.randperm(len(items), generator=generator)] for _ in range(rounds)]
    )[:count]


def _interleaved(parts: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    """The parts as one run: item k of n comes at the time (k + 1/2) / n, equal times in random order."""
    times = torch.cat(
        [(torch.arange(len(part), dtype=torch.float64) + 0.5) / len(part) for part in parts]
    )
    shuffle = torch.randperm(len(times), generator=generator)
    return torch.cat(list(parts))[shuffle[times[shuffle].argsort(stable=True)]]


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
