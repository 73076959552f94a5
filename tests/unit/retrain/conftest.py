"""Fits as they are made by the loop."""

from collections.abc import Iterator

import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Fit on one thread, as the processes that fits have to themselves do."""
    with threadpool_limits(1):
        yield
