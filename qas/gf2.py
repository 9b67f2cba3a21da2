"""Linear algebra over two elements, on bit masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def reduced_basis(masks: Iterable[int]) -> list[int]:
    """Basis of the span of masks; the highest bit of each is in no other one; largest first."""
    basis: list[int] = []
    for mask in masks:
        for row in basis:
            mask = min(mask, mask ^ row)
        if mask:
            basis = [row ^ mask if row >> (mask.bit_length() - 1) & 1 else row for row in basis] + [mask]
    return sorted(basis, reverse=True)


def summands(columns: Sequence[int], target: int) -> int:
    """Which of linearly independent columns add up to a target in their span: bit k stands for column k."""
    tagged = reduced_basis(column << len(columns) | 1 << k for k, column in enumerate(columns))
    rest = target << len(columns)
    for row in tagged:
        if rest >> (row.bit_length() - 1) & 1:
            rest ^= row
    assert rest >> len(columns) == 0, "the target is in the span"
    return rest
