"""``python -m date``."""

import gc

from date.cli import main

# The objects of PyTorch's and MMDetection's modules live as long as the process. To look through them for garbage at
# the usual pace takes a fifth of the time of their import, and once more at the end a second (benchmarks/README.md).
gc.set_threshold(10_000)
status = main()
gc.freeze()
raise SystemExit(status)
