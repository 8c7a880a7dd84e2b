"""`python -m twinstep.tied -m MODULE ...` is `python -m MODULE ...`, tied to what started it.

That holds its stdin open and writes nothing to it. Where there is such a thing (Linux), the kernel
kills the program when its parent is gone: from the start, before the program has loaded what takes
it seconds. `twinstep.tied SCRIPT ...` as well.
"""

import runpy
import select
import sys

from twinstep.workers import die_with_parent

if __name__ == "__main__":
    die_with_parent()
    if select.select([sys.stdin], [], [], 0)[0]:  # its end: the parent was gone before that
        sys.exit(1)
    del sys.argv[0]
    if sys.argv[0] == "-m":
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
