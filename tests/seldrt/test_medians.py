"""Running medians where numba is missing, or cannot keep what it compiles; test_features.py compares both ways."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from seldrt import medians


def test_without_numba_the_definition_serves() -> None:
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import numpy as np; from seldrt import medians\n"
        "print(*medians.running_median(np.array([[3], [1], [2], [9], [0]], np.float32), 3).ravel())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "2.0 2.0 2.0\n"


def test_without_a_place_for_its_cache_numba_compiles_all_the_same(tmp_path: Path) -> None:
    shutil.copy(medians.__file__, tmp_path)
    (tmp_path / "__pycache__").touch()  # a file: no folder can be made there, not even by root
    code = "import numpy as np, medians; print(medians.running_median_compiled(np.ones((5, 1), np.float32), 3).sum())"
    hidden = ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")
    env = {key: value for key, value in os.environ.items() if key not in hidden} | {"HOME": "/dev/null"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "3.0"


def test_what_a_power_failure_left_of_its_cache_does_not_keep_numba_from_compiling(tmp_path: Path) -> None:
    shutil.copy(medians.__file__, tmp_path)
    code = "import numpy as np, medians; print(medians.running_median_compiled(np.ones((5, 1), np.float32), 3).sum())"
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.stdout.strip() == "3.0", done.stderr
        kept = [path for path in (tmp_path / "cache").rglob("*.nb*") if path.is_file()]
        assert kept
        for path in kept:
            path.write_bytes(b"")
