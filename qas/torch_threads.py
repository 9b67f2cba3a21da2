"""How many threads PyTorch works with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from qas.checks import whole_number


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """PyTorch uses so many threads inside; None: as many as before. Small layers lose time to a second one.

    Raises:
        QasError: not a whole number of at least 1.
    """
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(whole_number("threads", count))
    try:
        yield
    finally:
        torch.set_num_threads(before)
