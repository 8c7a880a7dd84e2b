"""`python -m twinstep.jax train.py`: the program stays as it is, and ends as it would have.

Mirror: parity_tests/traces/test_torch_program.py
"""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import twinstep

PROGRAM = """
import sys
import jax
import jax.numpy as jnp
import optax

params = {"body": jnp.ones((3, 2)), "head": jnp.ones(2)}
tx = optax.chain(optax.clip_by_global_norm(0.1), optax.adamw(0.1))


@jax.jit
def train_step(params, opt_state, x):
    def loss_fn(params):
        return jnp.mean((jnp.tanh(x @ params["body"]) @ params["head"] - 1) ** 2)

    loss, grads = jax.value_and_grad(loss_fn)(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, loss


def main():
    global params
    opt_state = tx.init(params)
    for step in range(6):
        x = jax.random.normal(jax.random.key(step), (4, 3))
        params, opt_state, loss = train_step(params, opt_state, x)
        AT_EACH
    print(f"{loss.item():.9g}", *sys.argv[1:])


if __name__ == "__main__":
    main()
"""


def run(
    folder: Path, *words: str, at_each: str = "pass", out: str = "trace"
) -> subprocess.CompletedProcess[str]:
    """Runs the program in a folder, recorded if words are given before it."""
    (folder / "train.py").write_text(PROGRAM.replace("AT_EACH", at_each))
    recorded = ["-m", "twinstep.jax", *(["--out", out] if out else [])] if words else []
    line = [sys.executable, *recorded, *(words or ["train.py"])]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=300)


def test_a_program_is_recorded_without_a_changed_line(tmp_path: Path) -> None:
    plain = run(tmp_path)
    recorded = run(tmp_path, "train.py", "--lr", "0.1")
    assert (recorded.returncode, recorded.stderr) == (0, "")
    assert recorded.stdout == plain.stdout.replace("\n", " --lr 0.1\n"), "the same bits"
    trace = twinstep.load_trace(tmp_path / "trace")
    assert len(trace) == 6
    assert list(trace.params) == ["body", "head"]
    assert trace.inputs_of(0)["x"].shape == (4, 3)
    assert twinstep.open_trace(tmp_path / "trace").complete


def test_a_module_is_run_too(tmp_path: Path) -> None:
    done = run(tmp_path, "--steps", "2", "-m", "train", "a")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    stored = twinstep.open_trace(tmp_path / "trace")
    assert (stored.steps, stored.complete) == (2, True)


def test_some_updates_are_recorded_with_what_they_began_from(tmp_path: Path) -> None:
    run(tmp_path, "train.py")
    whole = twinstep.load_trace(tmp_path / "trace")
    done = run(tmp_path, "--steps", "2,5", "--exclude", "*body", "train.py", out="some")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    some = twinstep.load_trace(tmp_path / "some")
    assert some.update["optimizer"].tolist() == [2, 5]
    assert list(some.params) == ["head"]
    assert some.losses.tolist() == whole.losses[[1, 4]].tolist()
    for row, update in enumerate((2, 5)):
        began, left = some.before["params/head"][row], some.params["head"][row + 1]
        assert began.tolist() == whole.params["head"][update - 1].tolist()
        assert left.tolist() == whole.params["head"][update].tolist()
    moments = [key for key in some.before if key.startswith("opt_state/") and "mu" in key]
    assert [some.before[key][-1].tolist() for key in moments] == [
        whole.opt_state[key.removeprefix("opt_state/")][3].tolist() for key in moments
    ]
    assert moments == ["opt_state/1.0.mu.head"]


ENDS = {
    "an exception": ("if step == 3: raise ValueError('its own')", 1, "ValueError: its own"),
    "its own code": ("if step == 3: sys.exit(7)", 7, ""),
    "Ctrl-C": ("if step == 3: import os; os.kill(os.getpid(), 2)", -2, "KeyboardInterrupt"),
}


@pytest.mark.parametrize(("at_each", "code", "says"), ENDS.values(), ids=ENDS)
def test_however_it_ends_its_exit_code_stays(
    at_each: str, code: int, says: str, tmp_path: Path
) -> None:
    interrupts = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        done = run(tmp_path, "train.py", at_each=at_each)
    finally:
        signal.signal(signal.SIGINT, interrupts)
    assert done.returncode == code
    assert says in done.stderr
    stored = twinstep.open_trace(tmp_path / "trace")
    assert (stored.steps, stored.complete) == (4, False)


def test_a_program_that_ends_itself_when_all_is_done_has_come_to_its_end(tmp_path: Path) -> None:
    done = run(tmp_path, "train.py", at_each="if step == 5: sys.exit()")
    assert (done.returncode, done.stderr) == (0, "")
    stored = twinstep.open_trace(tmp_path / "trace")
    assert (stored.steps, stored.complete) == (6, True)


def test_what_cannot_be_recorded_is_said_and_the_training_goes_on(tmp_path: Path) -> None:
    """An update that calls back into Python, which may not be done twice."""
    calls = (
        "    from jax.experimental import io_callback\n"
        "    io_callback(lambda: print('called'), None)\n    loss, grads ="
    )
    text = PROGRAM.replace("    loss, grads =", calls).replace("AT_EACH", "pass")
    (tmp_path / "other.py").write_text(text)
    plain = subprocess.run(
        [sys.executable, "other.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    done = run(tmp_path, "other.py")
    assert done.returncode == 2, "no update is recorded"
    assert done.stdout == plain.stdout
    assert done.stdout.count("called") == 6
    assert done.stderr.startswith(
        "twinstep: recording ended after 0 updates: an update that calls back into Python, by "
        "io_callback, cannot be computed twice"
    )
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_a_full_disk_is_said_and_the_training_goes_on(tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048)); "
    limit += "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
    done = run(tmp_path, "train.py", at_each=f"if step == 0: {limit}")
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1, done.stderr
    assert "cannot be written" in done.stderr


def test_a_program_that_updates_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("print('done')")
    done = run(tmp_path, "empty.py")
    assert done.returncode == 2
    assert done.stdout == "done\n"
    assert done.stderr.startswith("twinstep: nothing was recorded: no optimizer of optax made")


def test_bad_usage_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    """As python -m twinstep.torch has it, whose line it is."""
    done: Any = run(tmp_path, "--steps", "0", "train.py")
    assert done.returncode == 2
    assert done.stderr == "twinstep: error: steps is 0, expected a whole number from 1 on\n"
