"""What tests with sockets share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq


@pytest.fixture
def context() -> Iterator[zmq.Context]:
    """A ZeroMQ context that ends with the test, also with one that fails: one with open sockets would wait for ever."""
    context = zmq.Context()
    yield context
    context.destroy(linger=0)
