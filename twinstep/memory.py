"""How much memory this process may use, and what does not fit in it."""

import os
from collections.abc import Iterator
from pathlib import Path

GIB = 2**30


def available() -> int:
    """Bytes that this process may use: the machine's, or less where its cgroup or a limit says so.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html, memory.max
    """
    limits = [*_of_machine(), *_of_cgroups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))]
    return min([*limits, *_of_process()], default=2**63)


def gib(count: int) -> str:
    """A number of bytes in GiB, in few digits."""
    return f"{count / GIB:.2g} GiB" if count < 100 * GIB else f"{count / GIB:.3g} GiB"


def _of_machine() -> Iterator[int]:
    try:
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # a system that does not say
        return


def _of_process() -> Iterator[int]:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        if (soft := resource.getrlimit(limit)[0]) != resource.RLIM_INFINITY:
            yield soft


def _of_cgroups(listed: Path, root: Path) -> Iterator[int]:
    """The limits of the groups that a process is in, and of all above them, of either version."""
    for line in _lines(listed):
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            home, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            home, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        own = home / group.strip("/")
        for folder in (own, *own.parents):
            if folder == home.parent:
                break
            for limit in _lines(folder / name):
                if limit.isdecimal():  # else "max"
                    yield int(limit)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
