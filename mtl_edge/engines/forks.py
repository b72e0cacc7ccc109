"""What a forked process inherits and must never let go of.

An engine's threads stay behind in the process that was forked. To destroy its copy would wait for
them without end, at the latest when the interpreter exits.
"""

from __future__ import annotations

import os
import weakref

__all__ = ["outlive_forks"]

_tracked: weakref.WeakValueDictionary[int, object] = weakref.WeakValueDictionary()


def outlive_forks(value: object) -> None:
    """In processes that are forked while `value` lives, never destroy their copy of it.

    It costs them nothing: its memory is shared with the process that was forked.
    """
    _tracked[id(value)] = value


def _keep() -> None:
    values = list(_tracked.values())
    _tracked.clear()
    if values:
        import ctypes  # a global would be cleared at exit; a reference that nobody holds is not

        for value in values:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep)
