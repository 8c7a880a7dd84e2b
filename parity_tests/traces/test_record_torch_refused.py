"""What several processes train in ways that are not followed: one clear line, and no other bit."""

import subprocess
import sys
from pathlib import Path

import pytest

RPC = """
import torch
from torch import nn
from torch.distributed import autograd, rpc
from torch.distributed.optim import DistributedOptimizer

torch.manual_seed(0)
options = rpc.TensorPipeRpcBackendOptions(init_method="file://" + __file__ + ".rendezvous")
rpc.init_rpc("worker", rank=0, world_size=1, rpc_backend_options=options)
model = nn.Linear(2, 1)
references = [rpc.RRef(parameter) for parameter in model.parameters()]
optimizer = DistributedOptimizer(torch.optim.SGD, references, lr=0.1)
for _ in range(3):
    with autograd.context() as context:
        autograd.backward(context, [model(torch.ones(3, 2)).square().sum()])
        optimizer.step(context)
print([parameter.tolist() for parameter in model.parameters()])
rpc.shutdown()
"""
SHARDED = """
import torch
from torch import distributed, nn
from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

torch.manual_seed(0)
distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
whole = torch.ones(4, 3)
weight = distribute_tensor(whole, init_device_mesh("cpu", (1,)), [Shard(0)])
weight = nn.Parameter(weight)
optimizer = torch.optim.SGD([weight], lr=0.1)
distributed.destroy_process_group()
for _ in range(3):
    weight.grad = torch.ones_like(weight)
    optimizer.step()
print(weight.to_local().tolist())
"""
PROGRAMS = {
    "rpc": (RPC, "torch.distributed.rpc runs: what is updated through it, in other processes,"),
    "sharded": (SHARDED, "is sharded, and no process group is there that holds its shards"),
}


@pytest.mark.parametrize(("program", "says"), PROGRAMS.values(), ids=PROGRAMS)
def test_refused_in_one_line_and_undisturbed(program: str, says: str, tmp_path: Path) -> None:
    printed = []
    for words in ([], ["-m", "twinstep.torch", "--out", str(tmp_path / "trace")]):
        (tmp_path / "train.py").write_text(program)
        (tmp_path / "train.py.rendezvous").unlink(missing_ok=True)
        command = [sys.executable, "-W", "ignore", *words, str(tmp_path / "train.py")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200)
        printed.append(done.stdout)
        said = [line for line in done.stderr.splitlines() if line.startswith("twinstep: ")]
        if words:
            assert done.returncode == 2, done.stderr
            assert len(said) == 1, done.stderr
            assert said[0].startswith("twinstep: recording ended after 0 updates: ")
            assert says in said[0]
    assert printed[0] == printed[1] != ""
