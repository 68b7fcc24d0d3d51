"""Whether `threading` starts green threads here, as gevent and eventlet make it do.

A green thread that waits in C, or in a system call that the library has not patched, stops all
the others. So where threads are green, those of infertrace only call what the library patches: they
do not wait without the GIL, and do not call a GPU's driver.
"""

from __future__ import annotations

import _thread
import sys
from types import BuiltinFunctionType


def threads_are_green() -> bool:
    """Checked on each call: a program may patch `threading` after it made a tracer."""
    return type(_thread.start_new_thread) is not BuiltinFunctionType


def is_in_green_thread() -> bool:
    """Whether this runs in a green thread of gevent or in its event loop, and not in the main one.

    The handler of a signal may: Python calls it wherever the process is just then. In the loop
    nothing can wait, and a thread of ours cannot wait for itself. (Under eventlet the main thread
    is not `threading`'s, so a tracer sets no handler there, and says so.)
    """
    hub = sys.modules.get("gevent.hub")
    return threads_are_green() and hub is not None and hub.getcurrent().parent is not None
