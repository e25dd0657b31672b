"""Memory that is freed is kept for the next array, rather than given back to the system and asked for again."""
import ctypes

# Numbers of glibc's malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MOST, _MOST_OF_OLD = 2 ** 31 - 1, 32 << 20  # bytes; glibc before 2.34 takes no more


def keep_memory():
    """Let the C library's ``malloc`` keep what is freed, for the rest of the process.

    By default it gives arrays of megabytes back at once, and the system clears each page of the next one when that is
    first written to: a sixth of a training step, where its arrays have some megabytes each. Without glibc nothing
    changes.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _MOST)
        if not mallopt(_MMAP_THRESHOLD, _MOST):
            mallopt(_MMAP_THRESHOLD, _MOST_OF_OLD)
