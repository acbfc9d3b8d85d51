"""Counting the calls of Python functions: a cost that is the same on every machine."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any


def counted_calls(
    work: Callable[[], object], *, within: str = "", besides: tuple[str, ...] = ()
) -> Counter[str]:
    """The number of calls of each Python function in ``work``, by ``file:qualified name``. Calls of
    functions in C do not count, nor those that the garbage collector would make, nor that of
    ``work``.

    :param within: a part of the paths of the files whose functions count.
    :param besides: parts of the paths of files whose functions do not count.
    """
    counted: Counter[str] = Counter()
    own = getattr(work, "__code__", None)

    def count(frame: Any, event: str, _: Any) -> None:
        code = frame.f_code
        path = code.co_filename
        counts = code is not own and within in path and not any(part in path for part in besides)
        if event == "call" and counts:
            counted[f"{path.rpartition('/')[2]}:{code.co_qualname}"] += 1

    before = sys.getprofile()
    gc.disable()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
        gc.enable()
    return counted
