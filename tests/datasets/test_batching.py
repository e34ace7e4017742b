"""How sequences are put into batches: against trying everything."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_gated.datasets.batching import (
    groups_of_like_length,
    lengths_with_least_padding,
)


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=9),
    st.integers(1, 3),
    st.integers(1, 4),
)
def test_groups_are_the_least_work(lengths, batch_size, groups):
    """Against all ways to cut the sorted sequences into so many groups."""
    found = groups_of_like_length(lengths, batch_size, groups)
    assert len(found) <= groups
    members = np.concatenate([group.members for group in found])
    assert sorted(members) == list(range(len(lengths)))
    for group in found:
        assert max(lengths[i] for i in group.members) == group.length
        assert group.batch <= batch_size

    def work(members, length):
        batches = -(-members // batch_size)
        return batches * (-(-members // batches) + 1) * length

    ordered, n = sorted(lengths, reverse=True), len(lengths)
    best = min(
        sum(
            work(end - begin, ordered[begin]) for begin, end in itertools.pairwise(cuts)
        )
        for k in range(min(groups, n))
        for inner in itertools.combinations(range(1, n), k)
        for cuts in [(0, *inner, n)]
    )
    assert sum(work(len(group.members), group.length) for group in found) == best


@given(
    st.dictionaries(st.integers(1, 60), st.integers(1, 9), min_size=1, max_size=8),
    st.integers(1, 4),
)
def test_lengths_leave_the_least_padding(counts, number):
    """Against all choices of so many lengths."""
    found = lengths_with_least_padding(counts, number)
    assert found == sorted(found)
    assert len(found) <= number

    def area(chosen):
        return sum(
            count * min(c for c in chosen if c >= length)
            for length, count in counts.items()
        )

    *others, longest = sorted(counts)
    choices = itertools.combinations(others, min(number - 1, len(others)))
    assert area(found) == min(area([*choice, longest]) for choice in choices)


def test_many_sequences_are_grouped_soon_and_well():
    """More boundaries than are tried; beside a choice among all of them."""
    lengths = np.random.default_rng(1).geometric(0.005, 3000)
    groups = groups_of_like_length(lengths, 16, 12)
    shapes = {(group.batch, group.length) for group in groups}
    area = sum(-(-len(g.members) // g.batch) * g.batch * g.length for g in groups)
    counts = dict(zip(*np.unique(lengths, return_counts=True), strict=True))
    ends = lengths_with_least_padding(counts, 12)
    best = sum(ends[np.searchsorted(ends, length)] for length in lengths)
    assert len(shapes) <= 12
    assert area < 1.03 * best
