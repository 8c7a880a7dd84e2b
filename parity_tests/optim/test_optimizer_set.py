"""The set `optimizers`: every class of torch.optim has rows, and what they find is right.

A row is verified as `twinstep verify optimizers` does it, in fewer steps.
"""

import html
import inspect
import json
import shlex
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from faults.pairs import leave_noise_out, spot_of

import twinstep.jax.programs.matrix_training
import twinstep.jax.programs.sparse_training
from twinstep import Verdict, verify
from twinstep.cli import main
from twinstep.cli.verify import _specs_to_verify
from twinstep.errors import InputError
from twinstep.jax.optim import from_torch, muon
from twinstep.jax.optim._from_torch import TORCH
from twinstep.problems import SETS, closures, optimizers
from twinstep.report.page import command_of
from twinstep.torch.muon import Muon

STEPS = 12
PROBES = {
    name: optimizers.training_of(name)(
        optimizer=name, options=optimizers.CONFIGURATIONS[name][-1], dtype="float64", steps=STEPS
    )
    for name in ("Muon", "SGD", "SparseAdam")
}


# What there is


def test_every_class_of_torch_optim_has_rows_and_no_two_are_the_same() -> None:
    specs: Any = SETS["optimizers"]()
    assert {spec.optimizer for spec in specs} == set(TORCH)
    names = {spec.name for spec in specs}
    assert len(names) == len(specs)
    assert "LBFGS(line_search_fn=strong_wolfe)" in names


def test_rows_are_of_what_the_installed_torch_takes() -> None:
    specs: Any = SETS["optimizers"]()
    large = [s.name for s in specs if s.optimizer == "LBFGS" and s.maximize]
    takes = "maximize" in inspect.signature(torch.optim.LBFGS).parameters
    assert len(large) == (2 if takes else 0)
    parameters = [torch.nn.Parameter(torch.ones(2, 2))]
    for spec in specs:
        getattr(torch.optim, spec.optimizer)(parameters, **spec.options)


@pytest.mark.parametrize(("source", "more"), [("", 0), ("maximize, spectral_unclamped", 3)])
def test_rows_follow_the_installed_source(
    source: str, more: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a PyTorch that is not loaded for it; where there is none, every row is there."""
    folder = tmp_path / "optim"
    folder.mkdir()
    for name in ("lbfgs.py", "_muon.py"):
        (folder / name).write_text(source)
    found = types.SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    count = len(SETS["optimizers"]())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert len(SETS["optimizers"]()) - count == 3 - more


@pytest.mark.parametrize(
    ("kind", "optimizer"),
    [
        (optimizers.OptimizerTraining, "Muon"),
        (optimizers.SparseTraining, "Adam"),
        (optimizers.MatrixTraining, "Sgd"),
        (closures.ClosureTraining, "Adam"),
    ],
)
def test_an_optimizer_is_refused_what_it_cannot_train(kind: Any, optimizer: str) -> None:
    expected = f"optimizer is '{optimizer}', expected one of .*{kind().optimizer}"
    with pytest.raises(InputError, match=expected):
        kind(optimizer=optimizer)


def test_muon_is_given_matrices_alone() -> None:
    params = optimizers.MatrixTraining().initial_params()
    assert [array.ndim for array in params.values()] == [2, 2, 2]


def test_sparse_batches_name_rows_twice_and_some_rows_late() -> None:
    batches = [batch["x"] for batch in optimizers.SparseTraining().batches()]
    assert all(len(set(x.tolist())) < len(x) for x in batches)
    late = set(np.concatenate(batches).tolist()) - set(np.concatenate(batches[:8]).tolist())
    assert len(late) >= 5


# What is the same


def test_a_row_of_each_kind_is_the_same_in_both_and_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `verify optimizers` says of them."""
    page, found = tmp_path / "page.html", tmp_path / "found.json"
    probes = {spec.optimizer: [spec.options] for spec in PROBES.values()}
    monkeypatch.setattr(optimizers, "CONFIGURATIONS", probes)
    monkeypatch.setattr(closures, "CONFIGURATIONS", {})
    files = ["--report", str(page), "--json", str(found)]
    assert main(["verify", "optimizers", "--steps", str(STEPS), "--jobs", "1", *files]) == 0
    results = json.loads(found.read_text())["results"]
    assert [result["example"] for result in results] == [spec.name for spec in PROBES.values()]
    assert all(result["verdict"] in ("equal", "rounding") for result in results)
    assert all(result["steps"] == STEPS for result in results)
    for spec in PROBES.values():
        assert html.escape(spec.name) in page.read_text()
        assert f"twinstep/torch/programs/{spec.implementation}.py" in page.read_text()


@pytest.mark.parametrize("row", ["Adam", "NAdam()", "Muon(weight"])
def test_a_command_verifies_a_row(row: str) -> None:
    """The one that the report page has beside it, and what begins as it does."""
    spec = next(spec for spec in optimizers.rows(steps=7) if spec.name.startswith(row))
    words = shlex.split(command_of(spec))
    assert words[:5] == ["twinstep", "verify", "optimizers", "--row", spec.name]
    assert _specs_to_verify(["optimizers"], words[3:])[1] == [spec]


def test_rows_are_named_by_how_they_begin(capsys: pytest.CaptureFixture[str]) -> None:
    found = _specs_to_verify(["optimizers"], ["--row", "Adam("])[1]
    assert [spec.options for spec in found] == optimizers.CONFIGURATIONS["Adam"]
    for words, says in (
        ("optimizers --row Adem", "unknown row 'Adem': did you mean Adam"),
        ("zero_grad --row Adam", "row is 'Adam', but zero_grad is no set of rows"),
    ):
        assert main(["verify", *words.split()]) == 2
        assert says in capsys.readouterr().err


# Muon on the PyTorch side


def updated(kind: Any, **more: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A matrix before and after an update, and its gradient."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(4, 6, dtype=torch.float64))
    before = weight.detach().clone()
    optimizer = kind([weight], lr=0.1, **more)
    weight.grad = torch.randn(4, 6, dtype=torch.float64)
    optimizer.step()
    return before, weight.detach(), weight.grad


def test_muon_is_torchs_own_but_for_the_one_cast() -> None:
    """And leaves PyTorch as it was."""
    theirs, same = updated(torch.optim.Muon)[1], updated(Muon)[1]
    exact = updated(Muon, round_to_bfloat16=False)[1]
    assert torch.equal(theirs, same)
    assert 1e-5 < (theirs - exact).abs().max() < 1e-1
    assert "bfloat16" not in vars(torch.Tensor)


Cast = Callable[[torch.Tensor], torch.Tensor]


def steps_with(patch: pytest.MonkeyPatch, cast: Cast) -> None:
    """PyTorch's update is p -= 2 cast(grad), the double written over what the cast gave."""

    def step(self: Any, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.data.sub_(cast(p.grad).mul_(2))

    patch.setattr(torch.optim.Muon, "step", step)


BFLOAT16 = torch.ones((), dtype=torch.bfloat16)
CASTS: dict[str, Cast] = {
    "torch 2.13": lambda grad: grad.bfloat16(),
    "torch 2.15": lambda grad: grad.to(dtype=torch.bfloat16, copy=True),
    "by position": lambda grad: grad.to(torch.bfloat16),
    "as another": lambda grad: grad.to(BFLOAT16),
    "type": lambda grad: grad.type(torch.bfloat16),
}


@pytest.mark.parametrize("how", CASTS)
def test_muons_cast_is_left_out_however_it_is_written(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps_with(monkeypatch, CASTS[how])
    before, after, grad = updated(Muon, round_to_bfloat16=False)
    assert torch.equal(after, before - 2 * grad)
    assert not torch.equal(updated(Muon)[1], after)


OTHERWISE: dict[str, Cast] = {
    "no cast to bfloat16": torch.clone,
    "bfloat16 from aten.empty": lambda grad: torch.empty(grad.shape, dtype=torch.bfloat16).copy_(
        grad
    ),
}


@pytest.mark.parametrize("says", OTHERWISE)
def test_a_muon_whose_cast_is_not_met_says_so(says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    steps_with(monkeypatch, OTHERWISE[says])
    with pytest.raises(InputError, match=says):
        updated(Muon, round_to_bfloat16=False)


def test_what_a_closure_casts_is_its_own() -> None:
    weight = torch.nn.Parameter(torch.full((2, 3), 1 / 3, dtype=torch.float64))
    optimizer = Muon([weight], round_to_bfloat16=False)

    def closure() -> torch.Tensor:
        loss = (weight.bfloat16() ** 2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).dtype is torch.bfloat16
    optimizer.zero_grad()
    assert optimizer.step() is None  # no gradient: there is nothing to cast


# What is not


def _muon_with(**wrong: Any) -> Any:
    """Plants a twin with other options."""
    return lambda patch: patch.setattr(
        twinstep.jax.programs.matrix_training, "muon", lambda **options: muon(**options | wrong)
    )


def _touching(change: Callable[[jax.Array], jax.Array]) -> Any:
    """Plants a twin that is told of other rows."""

    def wrong(name: str, **options: Any) -> Any:
        right: Any = from_torch(name, **options)

        def update(*arguments: Any, touched: Any) -> Any:
            return right.update(*arguments, touched=jax.tree.map(change, touched))

        return optax.GradientTransformationExtraArgs(right.init, update)

    return lambda patch: patch.setattr(twinstep.jax.programs.sparse_training, "from_torch", wrong)


NESTEROV = PROBES["Muon"].options["nesterov"]
PLANTS = {
    "Nesterov's momentum left out": ("Muon", _muon_with(nesterov=not NESTEROV), 1),
    "rounded on one side": ("Muon", _muon_with(round_to_bfloat16=True), 1),
    "all rows move": ("SparseAdam", _touching(jnp.ones_like), 2),
    "no row moves": ("SparseAdam", _touching(jnp.zeros_like), 1),
}
SPOTS = {
    "Muon": ("params", "layer1.weight"),
    "SparseAdam": ("opt_state", "embedding.weight.exp_avg"),
}


@pytest.mark.parametrize("fault", PLANTS)
def test_a_fault_is_found_where_it_is(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, plant, step = PLANTS[fault]
    plant(monkeypatch)
    leave_noise_out(monkeypatch)
    comparison = verify(PROBES[name]).comparison
    assert comparison.verdict is Verdict.MISMATCH, comparison.reason
    assert spot_of(comparison) == (step, *SPOTS[name]), comparison.reason
