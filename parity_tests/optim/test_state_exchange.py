"""What states go to PyTorch and back: of narrow floats and complex numbers, of
torch.distributed, and of groups whose parameters have made different numbers of steps.
"""

import copy
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
import torch
from helpers.given_gradients import (
    SHAPES,
    STEPS,
    state_of,
    torch_params,
    torch_state,
)
from helpers.optimizer_pairs import REAL
from helpers.training import (
    BATCHES,
    NAMES,
    Cut,
    TorchNetwork,
    arrays,
    cut,
    goes_on,
    jax_params,
    settings,
    tensors,
    torch_setup,
    torch_steps,
)

from twinstep.errors import InputError
from twinstep.jax import optim
from twinstep.jax.layout import tree_layout
from twinstep.jax.optim import from_torch, opt_state_from_torch, opt_state_to_torch
from twinstep.jax.optim._from_torch import TORCH
from twinstep.jax.trees import by_name

pytestmark = pytest.mark.quick_to_compile

BAR = 1e-12


# Narrow and complex


WIDTHS = [torch.bfloat16, torch.float16, torch.float32, torch.complex128, torch.complex64]
_OF_MATRICES = ("Muon",)


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("dtype", WIDTHS, ids=str)
def test_state_of_any_dtype_comes_back_bit_for_bit(name: str, dtype: torch.dtype) -> None:
    """As PyTorch's own state_dict does: all that it keeps, in the kind that it keeps it in."""
    given = torch_params(dtype)
    if name in _OF_MATRICES:
        given = given[:1]
    if dtype.is_complex and name in REAL:
        pytest.skip("PyTorch takes no complex parameters")
    optimizer = getattr(torch.optim, name)(given, lr=0.1)
    before = torch_state(optimizer, given)
    names = list(SHAPES)[: len(given)]
    with settings():
        kind = str(dtype).removeprefix("torch.")
        params = {key: jnp.zeros(SHAPES[key], kind) for key in names}
        layout = tree_layout(params)
        if name == "LBFGS" and dtype.itemsize < 4:
            with pytest.raises(InputError, match="expected one of 32 bits or more"):
                from_torch(name).init(params)
            return
        reset = from_torch(name, lr=0.1).init(params)
        state = opt_state_from_torch(before, reset, layout, names=names)
        back = opt_state_to_torch(state, before["param_groups"], layout, names=names)
    loaded, again = (getattr(torch.optim, name)(given, lr=0.1) for _ in range(2))
    loaded.load_state_dict(before)
    again.load_state_dict(tensors(back))
    for parameter in given:
        ours, theirs = again.state[parameter], loaded.state[parameter]
        for key, value in theirs.items():
            # a scratch list of LBFGS's, and its numbers, which are of the parameters' dtype here
            if value is None or key in ("al", "t", "prev_loss"):
                continue
            for one, other in zip(listed(ours[key]), listed(value), strict=True):
                one, other = torch.as_tensor(one), torch.as_tensor(other)
                assert torch.equal(one.to(other.dtype), other), key
                assert one.dtype == other.dtype or not one.ndim, key


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


# Names for numbers, groups of nothing


def test_the_state_dict_of_torch_distributed_is_by_names() -> None:
    checkpoints = pytest.importorskip("torch.distributed.checkpoint.state_dict")
    model, optimizer = torch_setup("Adam", lr=0.02)
    half = cut(model, optimizer, BATCHES[:8])
    again = TorchNetwork()
    again.load_state_dict({name: torch.tensor(array) for name, array in half.params.items()})
    other = torch.optim.Adam(again.parameters(), lr=0.02)
    other.load_state_dict(half.state_dict)
    state_dict = checkpoints.get_optimizer_state_dict(again, other)
    assert set(state_dict["state"]) == set(NAMES)
    by_name = half._replace(state_dict=state_dict)
    assert goes_on(by_name, optim.adam(lr=0.02), names=None)[0] <= BAR
    flat = checkpoints.StateDictOptions(flatten_optimizer_state_dict=True)
    state_dict = checkpoints.get_optimizer_state_dict(again, other, options=flat)
    with pytest.raises(InputError, match="state_dict has no 'state'"):
        goes_on(half._replace(state_dict=state_dict), optim.adam(lr=0.02), names=None)


def test_groups_of_nothing_go_both_ways() -> None:
    model = TorchNetwork()
    layers = [list(layer.parameters()) for layer in model.children()]
    for parameter in layers[1]:
        parameter.requires_grad = False
    groups: list[Any] = [{"params": group} for group in (layers[1], layers[2], [], layers[0])]
    optimizer = torch.optim.Adam(groups, lr=0.02)
    half = cut(model, optimizer, BATCHES[:8])
    names = [*NAMES[2:], *NAMES[:2]]
    with settings():
        ours = from_torch(optimizer, model.named_parameters())
    gap, state = goes_on(half, ours, names=names)
    assert gap <= BAR
    with settings():
        back = opt_state_to_torch(
            state, half.state_dict["param_groups"], tree_layout(jax_params()), names=names
        )
    assert back["state"].keys() == half.state_dict["state"].keys()
    optimizer.load_state_dict(tensors(back))


# Counts


def late(steps: int = 5) -> tuple[TorchNetwork, Any]:
    """A network whose second layer has gradients from its third step on only."""
    model = TorchNetwork()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(steps):

        def forget(model: Any, step: int = step) -> None:
            for parameter in list(model.children())[1].parameters():
                parameter.grad = None if step < 2 else parameter.grad

        torch_steps(model, optimizer, BATCHES[step : step + 1], change=forget)
    return model, optimizer


@pytest.mark.parametrize("steps", [2, 5])
def test_parameters_that_came_later_are_taken_over(steps: int) -> None:
    model, optimizer = late(steps)
    with settings():
        ours = from_torch(optimizer, model.named_parameters())
    before = copy.deepcopy(optimizer.state_dict()), arrays(model)
    rest = BATCHES[steps : steps + 4]
    start = Cut(*before, rest, torch_steps(model, optimizer, rest))
    assert goes_on(start, ours)[0] <= BAR
    with pytest.raises(InputError, match="differs between parameters" if steps > 2 else "missing"):
        goes_on(start, optim.adam(lr=0.02))
    with pytest.raises(InputError, match="another number of steps than others"):
        from_torch(optimizer)


def lr(count: Any) -> Any:
    return 0.1 / (count + 1)


COUNTED: dict[str, tuple[str, dict[str, Any], Any]] = {
    "SGD": ("SGD", {}, lambda: optim.sgd(lr=lr)),
    "LBFGS": ("LBFGS", {}, lambda: optim.lbfgs(lr=lr)),
    "momentum": ("SGD", {"momentum": 0.9}, lambda: optim.sgd(lr=lr, momentum=0.9)),
    "scheduled decay": (
        "SGD",
        {"momentum": 0.9},
        lambda: optim.sgd(lr=0.1, momentum=0.9, weight_decay=lr),
    ),
    "optax's sgd": ("SGD", {}, lambda: optax.sgd(lr)),
    "optax's momentum": ("SGD", {"momentum": 0.9}, lambda: optax.sgd(lr, momentum=0.9)),
}


@pytest.mark.parametrize("kind", COUNTED)
def test_a_schedules_count_is_asked_for(kind: str) -> None:
    name, options, make = COUNTED[kind]
    given = torch_params()
    state_dict = torch_state(getattr(torch.optim, name)(given, lr=0.1, **options), given)
    with settings():
        state, layout = state_of(make())
        with pytest.raises(InputError, match="count is None, expected the updates made"):
            opt_state_from_torch(state_dict, state, layout, names=list(SHAPES))
        found = opt_state_from_torch(state_dict, state, layout, names=list(SHAPES), count=STEPS)
    assert [int(leaf) for key, leaf in by_name(found).items() if key.endswith("count")] == [STEPS]


def test_muons_count_is_asked_for() -> None:
    """Of a schedule alone, as SGD's."""
    given = torch_params()[:1]
    state_dict = torch_state(torch.optim.Muon(given, lr=0.1), given)
    with settings():
        params = {"w": jnp.zeros(SHAPES["w"])}
        layout = tree_layout(params)
        scheduled, constant = (optim.muon(lr=rate).init(params) for rate in (lr, 0.1))
        with pytest.raises(InputError, match="count is None"):
            opt_state_from_torch(state_dict, scheduled, layout, names=["w"])
        for state, count in ((scheduled, STEPS), (constant, None)):
            found = opt_state_from_torch(state_dict, state, layout, names=["w"], count=count)
            assert found.count == (STEPS if count else True)


def test_the_step_that_torch_keeps_is_the_count() -> None:
    given = torch_params()
    state_dict = torch_state(torch.optim.Adam(given, lr=0.1), given)
    with settings():
        for make in (optim.adam(lr=lr), optax.adam(lr)):
            state, layout = state_of(make)
            found = opt_state_from_torch(state_dict, state, layout, names=list(SHAPES))
            counts = [int(leaf) for leaf in jax.tree.leaves(found) if leaf.ndim == 0]
            assert set(counts) == {STEPS}
