"""Running medians: the twins equal the definition to the bit, and one of them serves without numba."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from seldrt import medians


@settings(max_examples=60)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(31, 40), st.integers(1, 6)), elements=st.floats(0, 8, width=16)),
    st.integers(0, 15).map(lambda half: 2 * half + 1),
)
def test_the_network_equals_the_definition_to_the_bit(x: np.ndarray, size: int) -> None:
    np.testing.assert_array_equal(medians.running_median_network(x, size), medians.running_median_numpy(x, size))


@pytest.mark.parametrize("shape", [(31, 4, 513), (40, 70_000), (543, 300)])
def test_the_network_is_cut_into_tiles(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    np.testing.assert_array_equal(medians.running_median_network(x, 31), medians.running_median_numpy(x, 31))


def test_what_is_not_a_number_stays_in_its_windows() -> None:
    x = np.random.default_rng(0).standard_normal((60, 5), dtype=np.float32)
    spoiled = x.copy()
    spoiled[40:, 2] = np.nan
    expected = medians.running_median_numpy(x, 31)
    found = medians.running_median_network(spoiled, 31)
    np.testing.assert_array_equal(found[:10], expected[:10])
    np.testing.assert_array_equal(found[:, [0, 1, 3, 4]], expected[:, [0, 1, 3, 4]])


def test_without_numba_the_network_serves() -> None:
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import numpy as np; from seldrt import medians\n"
        "medians.running_median_network = lambda x, size: 'network'\n"
        "print(medians.running_median(np.zeros((5, 1), np.float32), 3))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "network"


def test_without_a_place_for_its_cache_numba_compiles_all_the_same(tmp_path: Path) -> None:
    shutil.copy(medians.__file__, tmp_path)
    (tmp_path / "__pycache__").touch()  # a file: no folder can be made there, not even by root
    code = "import numpy as np, medians; print(medians.running_median_compiled(np.ones((5, 1), np.float32), 3).sum())"
    hidden = ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")
    env = {key: value for key, value in os.environ.items() if key not in hidden} | {"HOME": "/dev/null"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "3.0"
