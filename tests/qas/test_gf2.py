"""Linear algebra over two elements, against all sums of a few masks."""

from __future__ import annotations

import itertools
import operator
from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from qas.gf2 import reduced_basis, summands

masks = st.lists(st.integers(0, 63), max_size=6)


def span(of: list[int]) -> set[int]:
    return {reduce(operator.xor, chosen, 0) for k in range(len(of) + 1) for chosen in itertools.combinations(of, k)}


@given(masks)
def test_a_reduced_basis_spans_the_same_and_each_highest_bit_is_in_one_mask(vectors: list[int]) -> None:
    basis = reduced_basis(vectors)
    assert span(basis) == span(vectors) and len(span(basis)) == 2 ** len(basis)
    tops = [vector.bit_length() - 1 for vector in basis]
    assert all(sum(vector >> top & 1 for vector in basis) == 1 for top in tops)
    assert basis == sorted(basis, reverse=True)


@given(masks, st.integers(0, 63))
def test_summands_add_up_to_the_target(vectors: list[int], choice: int) -> None:
    columns = [v for k, v in enumerate(vectors) if v not in span(vectors[:k])]
    chosen = choice % (1 << len(columns))
    target = reduce(operator.xor, (c for k, c in enumerate(columns) if chosen >> k & 1), 0)
    assert summands(columns, target) == chosen
