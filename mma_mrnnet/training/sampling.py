"""Item order of an epoch; depends only on (seed, epoch), so that a resumed run repeats it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from mma_mrnnet.model.labels import NO_CLASS
from mma_mrnnet.training.augmentation import mixed_seed

Order = Callable[[torch.Generator], Tensor]
"""Maps a generator to the (n,) int64 item numbers of one epoch; n never changes."""


BALANCES = ("off", "corpora", "classes")
"""Ways to choose the number of items of each kind; see `corpus_draws`."""


@dataclass(frozen=True)
class Draw:
    """(n,) int64 item numbers, at least one, and the number of draws from them per epoch.

    Each item is drawn `count // n` times or once more; which ones varies by epoch.
    """

    items: Tensor
    count: int


def shuffled(count: int) -> Order:
    """Return an order that visits every item once, at random."""
    return lambda generator: torch.randperm(count, generator=generator)


def mixed(corpora: Sequence[Sequence[Draw]]) -> Order:
    """Return an order that spreads each corpus evenly over the epoch.

    Any n successive items hold n s items of a corpus with share s, within 1 for two corpora,
    or within (1 - s) + s (C - 1) for C. The draws of a corpus spread evenly over its items.
    The length is the sum of all counts.
    """

    def order(generator: torch.Generator) -> Tensor:
        drawn = [[_draw_items(draw, generator) for draw in draws] for draws in corpora]
        return _interleave([_interleave(parts, generator) for parts in drawn], generator)

    return order


def corpus_draws(
    sources: Sequence[str],
    expression: Tensor,
    balance: str,
    repeats: Mapping[str, int] | None = None,
) -> dict[str, list[Draw]]:
    """Return the draws of an epoch by corpus; their total is the number of items.

    - `off`: every item once.
    - `corpora`: the same number from each corpus; small ones repeat, large ones give a part.
    - `classes`: in each corpus, the rows with an expression are redistributed equally over the
      expressions that occur; the other rows come once.

    A source in `repeats` is then drawn that many times as often; ValueError if it has no item.

    Remainders go to the first corpora (by name) or classes, one item each. `sources` names the
    corpus of each item; `expression` is (N,) class ids, -100 where unlabelled.
    """
    if balance not in BALANCES:
        raise ValueError(f"balance must be one of {', '.join(BALANCES)}; got {balance!r}")
    names = sorted(set(sources))
    number_of = {name: number for number, name in enumerate(names)}
    numbers = np.fromiter(map(number_of.__getitem__, sources), np.int64, len(sources))
    corpora = [torch.from_numpy(np.flatnonzero(numbers == number)) for number in range(len(names))]
    if balance == "corpora":
        draws = [
            [Draw(items, count)]
            for items, count in zip(corpora, _even_shares(len(sources), len(corpora)), strict=True)
        ]
    elif balance == "classes":
        draws = [_class_draws(items, expression[items]) for items in corpora]
    else:
        draws = [[Draw(items, len(items))] for items in corpora]
    repeats = repeats or {}
    if unknown := sorted(set(repeats) - set(names)):
        raise ValueError(
            f"--repeat: no training row is of {', '.join(unknown)}; sources are {', '.join(names)}"
        )
    return {
        name: [Draw(draw.items, draw.count * repeats.get(name, 1)) for draw in parts]
        for name, parts in zip(names, draws, strict=True)
    }


def _class_draws(items: Tensor, expression: Tensor) -> list[Draw]:
    """Draw equally many rows of each expression in one corpus, and its other rows once."""
    groups = {label: items[expression == label] for label in expression.unique().tolist()}
    others = groups.pop(NO_CLASS, items[:0])
    shares = _even_shares(len(items) - len(others), len(groups))
    draws = [Draw(*pair) for pair in zip(groups.values(), shares, strict=True)]
    return [*draws, Draw(others, len(others))] if len(others) else draws


def _even_shares(total: int, parts: int) -> list[int]:
    """Split `total` into integers that differ by at most one, larger ones first."""
    return [(total + parts - 1 - part) // parts for part in range(parts)]


def _draw_items(draw: Draw, generator: torch.Generator) -> Tensor:
    """Return (count,) items: repeated random permutations, the last one truncated."""
    items, count = draw.items, draw.count
    rounds = -(-count // len(items))
    return torch.cat(
        [items[torch.randperm(len(items), generator=generator)] for _ in range(rounds)]
    )[:count]


def _interleave(parts: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    """Merge the parts: item k of n has time (k + 1/2) / n; ties are in random order."""
    times = torch.cat(
        [(torch.arange(len(part), dtype=torch.float64) + 0.5) / len(part) for part in parts]
    )
    shuffle = torch.randperm(len(times), generator=generator)
    return torch.cat(list(parts))[shuffle[times[shuffle].argsort(stable=True)]]


class EpochSampler(Sampler[int]):
    """Item numbers of an epoch, the same in all processes; each process takes its own batches."""

    def __init__(self, order: Order, seed: int) -> None:
        self.order = order
        self.seed = seed
        self.length = len(order(self._generator(0)))
        self.epoch = 0
        self.start = 0
        """Items to skip in the next iteration, because an interrupted run already used them."""

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        return iter(self.order(self._generator(self.epoch))[self.start :].tolist())

    def _generator(self, epoch: int) -> torch.Generator:
        return torch.Generator().manual_seed(mixed_seed(self.seed, epoch))
