"""What seldrt costs, beside the plain way to do the same, in one run: ``python -m benchmarks``.

Process CPU time on one thread, medians of interleaved rounds: what else the machine does then changes all figures
alike, and hardly their ratios.
"""
