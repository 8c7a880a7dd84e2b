"""`python -m twinstep.bound_to_parent ...` is `python ...`, tied to what started it.

That holds its stdin open and writes nothing to it. Where there is such a thing (Linux), the kernel
kills the program when its parent is gone: from the start, before it has loaded what takes seconds.
"""

import os
import select
import sys

from twinstep.workers import die_with_parent

if __name__ == "__main__":
    die_with_parent()  # what it becomes as well
    if select.select([sys.stdin], [], [], 0)[0]:  # its end: the parent was gone before that
        sys.exit(1)
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
