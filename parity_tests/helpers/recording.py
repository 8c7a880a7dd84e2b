"""Loops of one's own with a recorder, without one, and without the other framework."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any


class Unrecorded:
    """In a recorder's place: nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.trace: Any = None

    def __enter__(self) -> "Unrecorded":
        return self

    def __exit__(self, *_: object) -> None: ...

    def step(self, *_: Any, **__: Any) -> None: ...

    steps = step


def step(optimizer: Any, loss: Any, between: Callable[[], object] = lambda: None) -> None:
    """One update in PyTorch; between: what is done to the gradients."""
    optimizer.zero_grad()
    loss.backward()
    between()
    optimizer.step()


def check_alone(framework: str, loop: str, without: tuple[str, ...]) -> None:
    """Asserts that a loop is recorded, saved, loaded and compared where some modules are missing.

    loop: three steps of `framework`'s in float32, which leave a recorder `rec` and a `folder`
    """
    script = f"""
import sys, tempfile
sys.modules.update(dict.fromkeys({without}))
import twinstep
folder = tempfile.mkdtemp() + "/trace"
{loop}
trace = twinstep.load_trace(folder)
print(twinstep.compare(trace, rec.trace).verdict, trace.summary().splitlines()[0])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"equal {framework}, float32 on cpu: 3 steps")
