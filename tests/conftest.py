"""What holds for all tests: one thread for every library, and no example of hypothesis is too slow.

The tensors of the tests are small, and threads that wait for each other are slow. A test says what is right, not how
quick the computer is.
"""

import os

from hypothesis import settings

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # before torch and numpy count the cores; child processes inherit it

settings.register_profile("seldrt", deadline=None)
settings.load_profile("seldrt")
