"""Whether freed memory stays with the process.

glibc gives large blocks back to the system when they are freed, and the next call pays for fetching its pages anew: up
to four fifths of the time of a memory-bound layer, and more or less of it as the process happens to have allocated
before. A bench of algorithms may want that out of its figures; a bench of what users see may not.
"""

from __future__ import annotations

import ctypes

from jaxcnnbp.errors import InputError

# malloc.h: what a process may keep free at the top of its heap, what it fetches beyond a request, blocks by mmap.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Tell glibc to give no memory back to the system, for the rest of this process.

    The same for every program: `MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=2147483647 MALLOC_TOP_PAD_=67108864`.

    Raises:
      InputError: the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError) as error:
        raise InputError("`keep_memory` (=True) needs glibc's allocator; leave it out.") from error
    for parameter, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26)):
        mallopt(parameter, value)
