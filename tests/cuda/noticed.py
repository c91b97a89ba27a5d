"""That the stand-in notices what it is there for: ``python -m tests.cuda.noticed``, on it."""

from __future__ import annotations

from collections.abc import Callable

from tests.cuda.standin import Watch

WATCH = Watch()

import pytest  # noqa: E402
import torch  # noqa: E402
from torch.nn import functional as F  # noqa: E402


def refused(work: Callable[[], object], sentence: str) -> None:
    """Make sure that some work is refused with a sentence."""
    with pytest.raises(RuntimeError, match=sentence):
        work()


def waits(work: Callable[[], object]) -> int:
    """Return how often some work waits for the device."""
    before = WATCH.counts()["waits"]
    work()
    return WATCH.counts()["waits"] - before


def main() -> None:
    """Try everything."""
    x = torch.zeros(2, 3, 8, 8, 8, device="cuda", requires_grad=True)
    refused(lambda: x + torch.zeros(2, 3, 8, 8, 8), "Expected all tensors to be on the same device")
    torch.use_deterministic_algorithms(True)
    refused(lambda: F.max_pool3d(x, 3, 1, 1).sum().backward(), "does not have a deterministic implementation")
    torch.use_deterministic_algorithms(False)
    assert waits(lambda: x.sum().item()) == waits(lambda: x.nonzero()) == 1
    assert waits(lambda: x.sum()) == waits(lambda: torch.zeros(3).pin_memory().to("cuda", non_blocking=True)) == 0
    before = WATCH.counts()
    torch.zeros(3).to("cuda")
    x + 1
    after = WATCH.counts()
    assert after["unpinned"] - before["unpinned"] == 1 and after["launches"] - before["launches"] == 1
    WATCH.set_count(5)
    assert x.nonzero().shape == (5, 5)
    refused(lambda: torch.empty(3 << 30, dtype=torch.uint8, device="cuda"), "out of memory")
    taken = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    assert torch.cuda.max_memory_allocated() >= taken.numel()
    print("all noticed")


if __name__ == "__main__":
    main()
