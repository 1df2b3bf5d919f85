"""An audio server for tests that touch the real thing.

Without one they are skipped; with ``LIVE_TESTS=required`` (as in .ci/run) they fail instead.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live.audio_server import AudioServer, missing
from tests.processes import lacking


@pytest.fixture(scope="package")
def audio_server() -> Iterator[AudioServer]:
    if reason := missing():
        lacking(reason)
    server = AudioServer()
    yield server
    server.close()
