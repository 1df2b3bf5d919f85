"""One thread for every library: the tensors of the tests are small, and threads that wait for each other are slow."""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # before torch and numpy count the cores; child processes inherit it
