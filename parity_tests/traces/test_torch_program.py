"""`python -m twinstep.torch train.py`: the program stays as it is, and ends as it would have."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.replaying import apart

import twinstep

PROGRAM = """
import sys
import torch
from torch import nn

torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(3, 4)
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.body(x).tanh())


def main():
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for step in range(6):
        optimizer.zero_grad()
        loss = model(torch.randn(4, 3)).square().mean()
        loss.backward()
        optimizer.step()
        AT_EACH
    print(f"{loss.item():.9g}", *sys.argv[1:])


if __name__ == "__main__":
    main()
"""


def run(
    folder: Path, *words: str, at_each: str = "pass", out: str = "trace", **options: Any
) -> subprocess.CompletedProcess[str]:
    """Runs the program in a folder, recorded if words are given before it."""
    (folder / "train.py").write_text(PROGRAM.replace("AT_EACH", at_each))
    recorded = ["-m", "twinstep.torch", *(["--out", out] if out else [])] if words else []
    line = [sys.executable, *recorded, *(words or ["train.py"])]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=300, **options)


def test_a_program_is_recorded_without_a_changed_line(tmp_path: Path) -> None:
    plain = run(tmp_path)
    recorded = run(tmp_path, "train.py", "--lr", "0.1")
    assert (recorded.returncode, recorded.stderr) == (0, "")
    assert recorded.stdout == plain.stdout.replace("\n", " --lr 0.1\n"), "the same bits"
    trace = twinstep.load_trace(tmp_path / "trace")
    assert len(trace) == 6
    assert list(trace.params) == ["body.weight", "body.bias", "head.weight", "head.bias"]
    assert trace.inputs_of(0)["x"].shape == (4, 3)
    assert apart(trace) == {}
    assert twinstep.open_trace(tmp_path / "trace").complete


def test_a_module_is_run_too(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", "train", "a")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(" a\n")
    assert len(twinstep.load_trace(tmp_path / "trace")) == 6


def test_it_ends_after_so_many_updates(tmp_path: Path) -> None:
    once_more = "optimizer.zero_grad(); model(torch.ones(1, 3)).sum().backward(); optimizer.step()"
    # the second update is the last, and made where a program catches all that it may
    broad = f"try: {once_more}\n        except Exception: pass"
    done = run(tmp_path, "--steps", "2", "train.py", at_each=broad)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    stored = twinstep.open_trace(tmp_path / "trace")
    assert (stored.steps, stored.complete) == (2, True)


def test_it_ends_after_the_last_of_some_updates(tmp_path: Path) -> None:
    done = run(tmp_path, "--steps", "1,4", "train.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    trace = twinstep.load_trace(tmp_path / "trace")
    assert trace.update["optimizer"].tolist() == [1, 4]
    assert apart(trace) == {}


ENDS = {
    "an exception": ("if step == 3: raise ValueError('its own')", 1, "ValueError: its own"),
    "its own code": ("if step == 3: sys.exit(7)", 7, ""),
    "a broken assertion": ("assert step < 3", 1, "AssertionError"),
    "Ctrl-C": ("if step == 3: import os; os.kill(os.getpid(), 2)", -2, "KeyboardInterrupt"),
    "SIGKILL": ("if step == 3: import os; os.kill(os.getpid(), 9)", -9, ""),
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
    if code != -9:  # in memory until there is enough for a file
        stored = twinstep.open_trace(tmp_path / "trace")
        assert (stored.steps, stored.complete) == (4, False)
        assert apart(twinstep.load_trace(tmp_path / "trace")) == {}


def test_what_cannot_be_recorded_is_said_and_the_training_goes_on(tmp_path: Path) -> None:
    grown = "model.head.weight.data, model.head.bias.data = torch.ones(2, 4), torch.ones(2)"
    done = run(
        tmp_path,
        "train.py",
        at_each=f"if step == 1: optimizer = torch.optim.SGD(model.parameters(), 0.1); {grown}",
    )
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("twinstep: recording ended after 2 updates: step 3: ")
    assert "head.weight has shape (2, 4), before it had (1, 4)" in done.stderr
    assert twinstep.open_trace(tmp_path / "trace").steps == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_a_full_disk_is_said_and_the_training_goes_on(tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048)); "
    limit += "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
    done = run(tmp_path, "train.py", at_each=f"if step == 0: {limit}")
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1, done.stderr
    assert "cannot be written" in done.stderr


BAD: dict[str, tuple[list[str], str, str]] = {
    "no out": (["train.py"], "", "the following arguments are required: --out"),
    "no program": ([], "trace", "expected a program to run: program.py, or -m module"),
    "no file": (["nothing.py"], "trace", "program 'nothing.py' is no file"),
    "steps": (["--steps", "0", "train.py"], "trace", "steps is 0, expected a whole number from 1"),
    "steps in words": (["--steps", "all", "train.py"], "trace", "steps is 'all', expected numbers"),
    "steps among them": (
        ["--steps", "1,0", "train.py"],
        "trace",
        "steps is [1, 0], expected",
    ),
    "batch": (["--batch", "all", "train.py"], "trace", "unknown batch 'all'"),
    "a flag": (["--outt", "x", "train.py"], "trace", "unrecognized arguments: --outt"),
    "a used folder": (["train.py"], ".", "is not empty"),
}


@pytest.mark.parametrize(("words", "out", "says"), BAD.values(), ids=BAD)
def test_bad_usage_is_one_line_and_exit_code_2(
    words: list[str], out: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text(PROGRAM.replace("AT_EACH", "pass"))
    line = [sys.executable, "-m", "twinstep.torch", *(["--out", out] if out else []), *words]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stderr.startswith("twinstep: error: ")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_program_that_updates_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("print('done')")
    done = run(tmp_path, "empty.py")
    assert done.returncode == 2
    assert done.stdout == "done\n"
    assert done.stderr.startswith("twinstep: nothing was recorded: no step was made")


def test_workers_of_a_loader_and_what_is_pickled_find_the_program(tmp_path: Path) -> None:
    (tmp_path / "loads.py").write_text(LOADS)
    done = run(tmp_path, "loads.py")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert len(twinstep.load_trace(tmp_path / "trace")) == 3


LOADS = """
import pickle
import torch
from torch.utils.data import DataLoader, Dataset


class Numbers(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, i):
        return torch.full((2,), float(i))


if __name__ == "__main__":
    assert type(pickle.loads(pickle.dumps(Numbers()))) is Numbers
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loader = DataLoader(Numbers(), batch_size=2, num_workers=1, multiprocessing_context="spawn")
    for x in loader:
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()
"""
