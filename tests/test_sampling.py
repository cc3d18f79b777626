"""What an epoch draws of each corpus and class, and in what order."""

import pytest
import torch

from mma_mrnnet.training.sampling import Draw, EpochSampler, corpus_draws, mixed, shuffled


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def order_of(sources, balance="off", expression=None):
    expression = (
        torch.full((len(sources),), -100) if expression is None else torch.tensor(expression)
    )
    return mixed(list(corpus_draws(sources, expression, balance).values()))


def drawn_sources(sources, seed=0, **how):
    return [sources[item] for item in order_of(sources, **how)(generator(seed)).tolist()]


def test_every_item_comes_once_in_an_order_that_the_generator_fixes():
    sources = ["a"] * 7 + ["b"] * 3 + ["c"] * 5
    order = order_of(sources)
    first, again, other = order(generator(1)), order(generator(1)), order(generator(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    for items in (first, other):
        assert sorted(items.tolist()) == list(range(15))


def test_six_of_one_and_two_of_another_give_three_and_one_in_each_half():
    # Times: a at 1, 3, 5, 7, 9, 11 twelfths, b at 3 and 9: b meets the second and the fifth a.
    patterns = {"".join(drawn_sources(["a"] * 6 + ["b"] * 2, seed)) for seed in range(40)}
    assert patterns == {"aabaaaba", "aabaabaa", "abaaaaba", "abaaabaa"}  # both ties fall either way


@pytest.mark.parametrize("sizes", [(6, 2), (90, 10), (500, 77, 13), (5, 5, 5), (1, 40)])
def test_in_any_run_of_items_each_corpus_has_its_share(sizes):
    sources = [name for name, size in zip("abc", sizes, strict=False) for _ in range(size)]
    names = torch.tensor([ord(name) for name in drawn_sources(sources)])
    for name, size in zip("abc", sizes, strict=False):
        so_far = torch.cat([torch.zeros(1), (names == ord(name)).cumsum(0)])
        excess = so_far - torch.arange(len(sources) + 1) * size / len(sources)
        # At either end of the run each corpus may be half an item early or late. Its own half counts (1 - share)
        # times, that of the others moves the end, and counts share times each: with two corpora 1 in all.
        share = size / len(sources)
        assert excess.max() - excess.min() <= (1 - share) + share * (len(sizes) - 1) + 1e-4


def test_items_of_a_corpus_are_shuffled_within_it():
    sources = ["a"] * 50 + ["b"] * 50
    drawn = [item for item in order_of(sources)(generator()).tolist() if item < 50]
    assert drawn != sorted(drawn)
    firsts = {order_of(sources)(generator(seed)).tolist()[0] for seed in range(60)}
    assert len(firsts) > 30


def test_balanced_corpora_give_a_third_each_and_the_odd_item_to_the_first():
    # 11 items in three corpora: 4, 4 and 3 an epoch.
    sources = ["a"] * 7 + ["b"] * 3 + ["c"]
    counts = {
        name: draws[0].count
        for name, draws in corpus_draws(sources, torch.zeros(11), "corpora").items()
    }
    assert counts == {"a": 4, "b": 4, "c": 3}
    order = order_of(sources, "corpora")
    parts = set()
    for seed in range(30):
        items = order(generator(seed)).tolist()
        assert len(items) == 11
        of_a = [item for item in items if item < 7]
        assert len(of_a) == len(set(of_a)) == 4  # a part, without repeats
        of_b = sorted(items.count(item) for item in (7, 8, 9))
        assert of_b == [1, 1, 2]  # three rows for four places
        assert items.count(10) == 3
        parts.add(frozenset(of_a))
    assert len(parts) > 10  # another part in each epoch
    assert set().union(*parts) == set(range(7))


def test_balanced_classes_come_equally_often_in_each_corpus_and_other_rows_as_they_are():
    # a: 6 of class 0, 2 of class 4, 1 of class 5, 5 without: nine labelled places, three a class.
    # b: 1 of class 1 and 4 of class 2: 3 and 2, the first class having the odd one.
    expression = [0] * 6 + [4] * 2 + [5] + [-100] * 5 + [1] + [2] * 4
    sources = ["a"] * 14 + ["b"] * 5
    order = order_of(sources, "classes", expression)
    for seed in range(10):
        items = order(generator(seed)).tolist()
        labels = [expression[item] for item in items]
        assert len(items) == 19
        assert {label: labels.count(label) for label in set(labels)} == {
            0: 3,
            4: 3,
            5: 3,
            -100: 5,
            1: 3,
            2: 2,
        }
        assert {items.count(item) for item in range(9, 14)} == {1}
        assert sorted(items.count(item) for item in (6, 7)) == [1, 2]
        assert items.count(8) == 3


def test_balanced_classes_of_a_corpus_without_expressions_are_all_its_rows():
    draws = corpus_draws(["a"] * 4, torch.full((4,), -100), "classes")["a"]
    assert [(draw.items.tolist(), draw.count) for draw in draws] == [([0, 1, 2, 3], 4)]


def test_balanced_classes_are_spread_over_the_epoch():
    expression = [0] * 70 + [4] * 30
    order = order_of(["a"] * 100, "classes", expression)
    labels = [expression[item] for item in order(generator()).tolist()]
    for start in range(0, 100, 10):
        assert (
            labels[start : start + 10].count(4) == 5
        )  # fifty each, tied at every place: one pair after the other


@pytest.mark.parametrize("balance", ["off", "corpora", "classes"])
def test_an_epoch_is_as_long_as_the_data_however_they_are_balanced(balance):
    sources = ["a"] * 13 + ["b"] * 4 + ["c"] * 6
    expression = [0, 1, 2, -100] * 5 + [3, 4, -100]
    sampler = EpochSampler(order_of(sources, balance, expression), seed=3)
    epochs = []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
    assert {len(items) for items in epochs} == {len(sampler)} == {23}
    assert len({tuple(items) for items in epochs}) == 4


def test_an_unknown_way_of_balancing_is_refused_by_name():
    with pytest.raises(ValueError, match="one of off, corpora, classes; got 'people'"):
        corpus_draws(["a"], torch.zeros(1), "people")


def test_mixing_one_corpus_is_shuffling_it():
    orders = {
        tuple(mixed([[Draw(torch.arange(3), 3)]])(generator(seed)).tolist()) for seed in range(100)
    }
    assert len(orders) == 6  # all there are
    assert {tuple(shuffled(3)(generator(seed)).tolist()) for seed in range(100)} == orders


def test_a_repeated_source_is_drawn_that_many_times_as_often():
    draws = corpus_draws(["a"] * 4 + ["b"] * 6, torch.full((10,), -100), "off", {"a": 3})
    items = mixed(list(draws.values()))(generator()).tolist()
    assert sorted(items) == sorted([*range(4)] * 3 + [*range(4, 10)])


def test_a_repeated_source_must_be_there():
    with pytest.raises(ValueError, match="no training row is of c; sources are a, b"):
        corpus_draws(["a", "b"], torch.full((2,), -100), "off", {"c": 2})
