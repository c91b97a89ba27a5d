"""Recognise the errors by which PyTorch, CUDA and the system report that memory ran out."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from date.errors import UserError

WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory", "status_alloc_failed")
"""In the messages of `RuntimeError`: CUDA's and NCCL's, PyTorch's on the CPU, the system's, cuDNN's and cuBLAS's."""


def ran_out(error: BaseException) -> bool:
    """Return whether an error means that there was too little memory, of the GPU or of the machine."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in WORDS)


@contextlib.contextmanager
def noticed() -> Iterator[None]:
    """Turn memory that runs out while the block runs into a `UserError`."""
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        if not ran_out(error):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"memory ran out ({reason}); see that nothing else uses the GPU or the machine's memory (nvidia-smi, top), "
            "or use a GPU or a job with more, then run the same command again."
        ) from error
