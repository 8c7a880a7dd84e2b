"""`--start`: a program trains from values that it is given; its trace begins with their bits."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.recording import step
from helpers.replaying import apart
from helpers.synthetic_traces import refused
from safetensors.torch import load_file, save_file
from torch import nn

import twinstep
from twinstep.torch import record
from twinstep.trace.ledger import Trace

PROGRAM = """
import sys
import torch
from torch import nn

torch.manual_seed(7)
model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
MORE
for _ in range(3):
    optimizer.zero_grad()
    net(torch.randn(8, 3)).square().mean().backward()
    optimizer.step()
print("the end")
"""
KINDS = {
    "plain": "net = model",
    "compiled": "net = torch.compile(model, backend='eager')",
    "compiled in place": "net = model; model.compile(backend='eager')",
    "looked at before": "net = model.eval()\nwith torch.no_grad(): net(torch.ones(2, 3))\n"
    "net.train()",
    "warmed up": "net = model\nwith torch.no_grad(): net(torch.randn(8, 3))",
    "loaded at last": "net = model; model.load_state_dict({k: v * 0 for k, v in "
    "model.state_dict().items()})",
}


def network(seed: int = 1) -> nn.Module:
    """What the program trains, at other values."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    model(torch.randn(5, 3))  # running statistics too
    return model


def run(
    folder: Path, *words: str, more: str = "net = model", framework: str = "torch"
) -> subprocess.CompletedProcess[str]:
    """The program, recorded into `trace`."""
    (folder / "train.py").write_text(PROGRAM.replace("MORE", more))
    line = [sys.executable, "-m", f"twinstep.{framework}", "--out", "trace", *words, "train.py"]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=300)


def check_begins(trace: Trace, values: dict[str, torch.Tensor]) -> None:
    """Asserts that a trace begins with some values, to the bit, and trains from them."""
    found = {**trace.params, **trace.buffers}
    assert found.keys() == values.keys()
    for name, value in values.items():
        assert found[name][0].tobytes() == value.detach().numpy().tobytes(), name
        assert found[name].dtype == value.detach().numpy().dtype
    assert "changed_outside" not in trace.update
    assert apart(trace) == {}, "the rule, made again from these values, to the bit"


@pytest.mark.parametrize("more", KINDS.values(), ids=KINDS)
def test_a_program_starts_from_a_file(more: str, tmp_path: Path) -> None:
    values = network().state_dict()
    save_file(values, tmp_path / "weights.safetensors")
    done = run(tmp_path, "--start", "weights.safetensors", more=more)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    check_begins(twinstep.load_trace(tmp_path / "trace"), values)


def test_the_training_is_that_of_the_program_with_these_values(tmp_path: Path) -> None:
    """And without them it is another: nothing passes because nothing is given."""
    save_file(network().state_dict(), tmp_path / "weights.safetensors")
    load = "from safetensors.torch import load_file as load; net = model; "
    load += "model.load_state_dict(load('weights.safetensors'))"
    traces = {}
    for name, words, more in (
        ("given", ["--start", "weights.safetensors"], "net = model"),
        ("loaded", [], load),
        ("drawn", [], "net = model"),
    ):
        assert run(tmp_path, *words, more=more).returncode == 0
        (tmp_path / "trace").rename(tmp_path / name)
        traces[name] = twinstep.load_trace(tmp_path / name)
    assert twinstep.compare(traces["given"], traces["loaded"]).verdict == "equal"
    assert twinstep.compare(traces["given"], traces["drawn"]).verdict != "equal"


def test_a_program_starts_as_another_recording_did(tmp_path: Path) -> None:
    model = network().double().bfloat16()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with record(model, out=tmp_path / "theirs") as rec:
        for _ in range(2):
            step(optimizer, model(torch.ones(4, 3, dtype=torch.bfloat16)).sum())
    other = network(seed=2).bfloat16()
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    with record(other, start=tmp_path / "theirs") as again:
        for _ in range(2):
            step(optimizer, other(torch.ones(4, 3, dtype=torch.bfloat16)).sum())
    assert twinstep.compare(rec.trace, again.trace).verdict == "equal"
    assert twinstep.compare(rec.trace, again.trace).reason == "the same bits"


def test_a_module_that_is_given_begins_with_the_values(tmp_path: Path) -> None:
    """Also where it then computes something, or something else changes it, before the update."""
    values = network().state_dict()
    save_file(values, tmp_path / "weights.safetensors")
    model = network(seed=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with record(model, start=tmp_path / "weights.safetensors") as rec:
        with torch.no_grad():
            model(torch.randn(8, 3))
            model[0].bias.add_(1)  # type: ignore[index]  # a Sequential, though typed a Module
        step(optimizer, model(torch.randn(8, 3)).sum())
    for name, value in values.items():
        found = {**rec.trace.params, **rec.trace.buffers}[name][0]
        assert found.tobytes() == value.numpy().tobytes(), name
    assert rec.trace.update["changed_outside"].tolist() == [1]


MISFITS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "missing": (lambda values: values.pop("0.bias"), "missing 0.bias"),
    "a buffer": (lambda values: values.pop("1.running_mean"), "missing 1.running_mean"),
    "unexpected": (lambda values: values.update(odd=torch.ones(1)), "unexpected odd"),
    "shape": (
        lambda values: values.update({"2.weight": torch.ones(4, 1)}),
        "2.weight has shape (4, 1), expected (1, 4)",
    ),
    "dtype": (
        lambda values: values.update({"2.bias": torch.ones(1).double()}),
        "2.bias is float64, expected float32",
    ),
    "several": (
        lambda values: [values.pop("0.bias"), values.update(odd=torch.ones(1))],
        "missing 0.bias; unexpected odd",
    ),
    "many": (
        lambda values: values.update({f"odd{i:02}": torch.ones(1) for i in range(20)}),
        "unexpected odd00, odd01, odd02, odd03, odd04, odd05, odd06, odd07, odd08, odd09, odd10, "
        "odd11, and 8 more",
    ),
}


@pytest.mark.parametrize(("change", "says"), MISFITS.values(), ids=MISFITS)
def test_what_does_not_fit_is_one_line_before_any_update(
    change: Callable[[dict[str, Any]], object], says: str, tmp_path: Path
) -> None:
    values = network().state_dict()
    change(values)
    save_file(values, tmp_path / "weights.safetensors")
    model, before = network(), network().state_dict()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train() -> None:
        with record(model, start=tmp_path / "weights.safetensors"):
            step(optimizer, model(torch.ones(4, 3)).sum())

    line = refused(train, says)
    assert line.startswith(f"start {tmp_path}/weights.safetensors does not fit: ")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_program_that_does_not_fit_ends(tmp_path: Path) -> None:
    """Though it catches all that it may."""
    save_file({"other": torch.ones(2)}, tmp_path / "weights.safetensors")
    catching = "class Net:\n    def __call__(self, x):\n        try: return model(x)\n"
    catching += "        except Exception: print('caught')\nnet = Net()"
    done = run(tmp_path, "--start", "weights.safetensors", more=catching)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(
        "twinstep: start weights.safetensors does not fit: missing 0.weig"
    )
    assert "unexpected other" in done.stderr
    assert twinstep_steps(tmp_path / "trace") == 0


def twinstep_steps(folder: Path) -> int:
    """How many updates a folder holds, if any."""
    return twinstep.open_trace(folder).steps if (folder / "manifest.json").exists() else 0


def test_an_update_before_any_call_is_refused(tmp_path: Path) -> None:
    """Nothing is recorded as if it had started from the values when it has not."""
    save_file(network().state_dict(), tmp_path / "weights.safetensors")
    net = "net = lambda x: nn.functional.linear(x, model[0].weight)"
    done = run(tmp_path, "--start", "weights.safetensors", more=net)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "an update is made before a module is called" in done.stderr
    model = nn.Linear(3, 4)
    save_file(model.state_dict(), tmp_path / "linear.safetensors")
    with record(model, start=tmp_path / "linear.safetensors") as rec:
        refused(rec.step, "an update is made before a module is called")
        model(torch.ones(1, 3)).sum().backward()
        rec.step()


BAD: dict[str, tuple[str, str]] = {
    "nothing": ("none.safetensors", "cannot be read: No such file"),
    "another kind": ("weights.pt", "is expected to be a .safetensors file or a trace's folder"),
    "damaged": ("bad.safetensors", "is no safetensors file"),
    "no trace": ("folder", "is no trace: it has no manifest.json"),
}


@pytest.mark.parametrize(("start", "says"), BAD.values(), ids=BAD)
def test_what_is_no_start_is_refused_at_once(start: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"no safetensors")
    (tmp_path / "weights.pt").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    refused(lambda: record(network(), start=tmp_path / start), says)
    done = run(tmp_path, "--start", start)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert says in done.stderr


def test_jax_programs_are_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "--start", "weights.safetensors", framework="jax")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--start is of python -m twinstep.torch alone" in done.stderr


class Tied(nn.Module):
    """A head that is the embedding, a buffer that is not saved, a layer that nothing updates."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("scale", torch.rand(3), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.frozen(self.embedding(x)) * self.scale)


@pytest.mark.parametrize("kept", ["embedding.weight", "head.weight", "both", "both, apart"])
def test_a_tied_parameter_bears_any_of_its_names(kept: str, tmp_path: Path) -> None:
    values = {name: value.clone() for name, value in Tied().state_dict().items()}
    if kept == "both, apart":
        values["head.weight"] += 1
    for name in ("embedding.weight", "head.weight"):
        if kept != name and not kept.startswith("both"):
            del values[name]
    save_file(values, tmp_path / "weights.safetensors")
    model = Tied()
    optimizer = torch.optim.SGD([model.embedding.weight], lr=0.1)

    def train() -> Trace:
        with record(start=tmp_path / "weights.safetensors") as rec:
            step(optimizer, model(torch.arange(4)).sum())
        return rec.trace

    if kept == "both, apart":
        refused(train, "embedding.weight and head.weight are one tensor, and differ")
        return
    trace = train()
    tied = values.get("embedding.weight", values.get("head.weight"))
    assert tied is not None
    assert np.array_equal(trace.params["embedding.weight"][0], tied)
    assert np.array_equal(trace.params["frozen.weight"][1], values["frozen.weight"])


def test_several_modules_are_named_as_in_their_trace(tmp_path: Path) -> None:
    """Two that the program trains, and one beside them that it only calls."""

    def train(**options: Any) -> Trace:
        teacher, generator, critic = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1)
        g = torch.optim.SGD(generator.parameters(), lr=0.1)
        c = torch.optim.SGD(critic.parameters(), lr=0.1)
        with record(**options) as rec:
            for _ in range(2):
                x = teacher(torch.ones(3, 2)).detach()
                step(c, critic(generator(x).detach()).sum())
                step(g, critic(generator(x)).sum())
        return rec.trace

    torch.manual_seed(0)
    theirs = train(out=tmp_path / "theirs")
    assert [*theirs.params] == [
        "generator.weight",
        "generator.bias",
        "critic.weight",
        "critic.bias",
    ]
    ours = train(start=tmp_path / "theirs")
    for name, array in theirs.params.items():
        assert ours.params[name][0].tobytes() == array[0].tobytes()


SPREAD = """
import sys, torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
dist.init_process_group("gloo")
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
if sys.argv[1] == "ddp":
    model = torch.compile(nn.parallel.DistributedDataParallel(model), backend="eager")
else:
    mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
    for layer in [*model, model]:
        fully_shard(layer, mesh=mesh)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
for _ in range(2):
    optimizer.zero_grad()
    model(torch.ones(4, 3)).square().mean().backward()
    optimizer.step()
dist.destroy_process_group()
"""


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_several_processes_start_alike(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    values = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).state_dict()
    save_file(values, tmp_path / "weights.safetensors")
    (tmp_path / "train.py").write_text(SPREAD)
    words = "-m torch.distributed.run --standalone --nproc_per_node=2 -m twinstep.torch --out"
    line = [*words.split(), "trace", "--start-from", "weights.safetensors", "train.py", kind]
    done = subprocess.run(
        [sys.executable, *line], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    trace = twinstep.load_trace(tmp_path / "trace")
    check_begins(trace, load_file(tmp_path / "weights.safetensors"))
    # and what is of several processes is what one starts from
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with record(model, start=tmp_path / "trace") as rec:
        step(optimizer, model(torch.ones(4, 3)).sum())
    check_begins(rec.trace, values)


def test_what_has_no_shape_yet_is_refused(tmp_path: Path) -> None:
    save_file(nn.Linear(3, 4).state_dict(), tmp_path / "weights.safetensors")
    model = nn.LazyLinear(4)

    def train() -> None:
        with record(start=tmp_path / "weights.safetensors"):
            model(torch.ones(1, 3))

    refused(train, "weight has no shape before the first call (lazy)")
