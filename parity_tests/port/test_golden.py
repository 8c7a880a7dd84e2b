"""A golden: what it holds, that honest ports pass its gate, and that faults do not."""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers.commands import command, refusal
from helpers.synthetic_traces import refused

from port import small_pair
from port.ports import jax_trace, torch_trace
from port.programs import conv_nnx
from port.small_pair import adam, one_entry, renamed, state_of, step_of, to_renamed, transposed
from twinstep import Comparison, Trace, Verdict, match, prove_golden
from twinstep.port import golden as module
from twinstep.port.golden import DATA, MANIFEST, Golden, golden_of, load_golden, save_golden
from twinstep.port.mapping import Mapping
from twinstep.trace import dtypes
from twinstep.trace.sketch import sketch

EPS = float(np.finfo("float64").eps)
torch_side = functools.cache(small_pair.torch_side)


def proved(golden: Golden | Path | None = None, tx: Any = None, **changed: Any) -> Comparison:
    """The small port, or another, against its golden."""
    step = {name: changed.pop(name) for name in ("forward", "spoil") if name in changed}
    tx = adam() if tx is None else tx
    golden = golden_of(torch_side()) if golden is None else golden
    return prove_golden(
        golden, **{"step_fn": step_of(tx, **step), "state": state_of(tx), **changed}
    )


# What it holds


def held(golden: Golden) -> dict[str, Any]:
    """All of it as what can be compared: bits, dtypes, shapes."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return value.dtype.str, value.shape, value.tobytes()
        if isinstance(value, dict):
            return {name: plain(one) for name, one in value.items()}
        return [plain(one) for one in value] if isinstance(value, tuple | list) else value

    return {f.name: plain(getattr(golden, f.name)) for f in dataclasses.fields(golden)}


@pytest.mark.parametrize("mapping", [None, to_renamed()])
def test_it_comes_back_bit_for_bit(mapping: Mapping | None, tmp_path: Path) -> None:
    golden = golden_of(torch_side(), mapping=mapping)
    size = save_golden(golden, tmp_path / "new" / "golden")
    assert size == sum(path.stat().st_size for path in (tmp_path / "new" / "golden").iterdir())
    assert held(load_golden(tmp_path / "new" / "golden")) == held(golden)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["golden"], "nothing beside it"


def test_it_is_the_same_files_whenever_it_is_made(tmp_path: Path) -> None:
    for name in ("one", "other"):
        save_golden(golden_of(torch_side(), mapping=to_renamed()), tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()


def test_batches_of_several_shapes_and_other_dtypes_come_back(tmp_path: Path) -> None:
    golden = golden_of(torch_side(), 2)
    calls = [np.zeros((2, 3)), np.zeros((3, 2)), np.zeros(6, "int64"), np.ones((), bool)]
    half = np.arange(6, dtype=np.uint16).view(dtypes.bfloat16())
    changed = dataclasses.replace(
        golden,
        batches=({"x": calls, "y": half}, {"y": half}),
        buffers={"half": half},
        losses=np.array([0.1, np.nan]),
        sketches={**golden.sketches, "buffers/half": sketch(np.stack([half] * 3))},
    )
    save_golden(changed, tmp_path / "golden")
    assert held(load_golden(tmp_path / "golden")) == held(changed)


def test_it_holds_what_the_trace_has() -> None:
    trace = torch_side()
    golden = golden_of(trace, 3)
    assert len(golden) == 3
    assert golden.losses.tobytes() == trace.losses[:3].tobytes()
    assert golden.params["2.weight"].tobytes() == trace.params["2.weight"][0].tobytes()
    assert golden.batches[2]["x"].tobytes() == trace.inputs_of(2)["x"].tobytes()
    assert golden.hyper_parameters["0.lr"] == small_pair.RATE
    for stage, rows in (("params", 4), ("raw_grads", 3)):
        array = getattr(trace, stage)["2.weight"][:rows]
        assert golden.sketches[f"{stage}/2.weight"].tobytes() == sketch(array).tobytes()


def test_a_leaf_without_a_row_stays_and_has_no_gradient() -> None:
    trace = torch_side()
    keys = [f"{stage}/2.bias" for stage in ("params", "raw_grads", "grads")]
    rows = dict.fromkeys(keys, np.array([1, 3]))
    cut: dict[str, Any] = {
        stage: {**getattr(trace, stage), "2.bias": getattr(trace, stage)["2.bias"][:length]}
        for stage, length in (("params", 3), ("raw_grads", 2), ("grads", 2))
    }
    golden = golden_of(dataclasses.replace(trace, **cut, rows=rows), 5)
    one, two, three = sketch(trace.params["2.bias"][:3])
    assert np.array_equal(golden.sketches["params/2.bias"], [one, one, two, two, three, three])
    grads = golden.sketches["raw_grads/2.bias"]
    assert np.isnan(grads).all(axis=1).tolist() == [True, False, True, False, True]
    assert np.array_equal(grads[[1, 3]], sketch(trace.raw_grads["2.bias"][:2]))


# Honest ports


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_an_honest_port_passes(dtype: str) -> None:
    found = proved(golden_of(torch_side(dtype=dtype)))
    assert found.verdict is Verdict.ROUNDING
    assert found.steps == 8
    assert found.causes == ()
    assert found.smallest_allowance("free") < 0.5  # of a hundred honest ones none came above 0.7


def test_other_names_go_by_the_map_beside_it(tmp_path: Path) -> None:
    save_golden(golden_of(torch_side(), mapping=to_renamed()), tmp_path / "golden")
    assert proved(tmp_path / "golden", forward=renamed).verdict.same
    to_renamed().save(tmp_path / "map.json")
    for mapping in (to_renamed(), tmp_path / "map.json"):
        assert proved(forward=renamed, mapping=mapping).verdict.same


@functools.cache
def conv() -> Golden:
    """The golden of the convolutional port with its map."""
    trace = torch_trace("conv_nnx", 3, "float32")
    mapping = match(trace, jax_trace("conv_nnx", trace)).mapping
    return golden_of(trace, mapping=mapping)


def conv_proved(norm: type[conv_nnx.BatchNorm] = conv_nnx.BatchNorm) -> Comparison:
    """The convolutional port, its buffers in its state."""
    golden = conv()
    model = conv_nnx.ConvNet(rngs=nnx.Rngs(0), norm=norm)
    graph = nnx.graphdef(model)
    params, stats = nnx.state(model, nnx.Param), nnx.state(model, nnx.BatchStat)
    schedule = optax.cosine_decay_schedule(golden.hyper_parameters["0.initial_lr"], len(golden))
    tx = optax.chain(conv_nnx.CLIP, conv_nnx.adamw(schedule))

    def train_step(state: Any, batch: Any) -> Any:
        params, stats, opt_state = state

        def loss_fn(params: Any) -> Any:
            model = nnx.merge(graph, params, stats, copy=True)
            return conv_nnx.criterion(model(batch["x"]), batch["y"]), nnx.state(
                model, nnx.BatchStat
            )

        (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), stats, opt_state), loss

    return prove_golden(
        golden,
        step_fn=train_step,
        state=(params, stats, tx.init),
        batch_of=lambda batch: {"x": batch["x"].transpose(0, 2, 3, 1), "y": batch["y"]},
    )


def test_a_convolutional_port_passes_and_its_golden_is_small(tmp_path: Path) -> None:
    assert save_golden(conv(), tmp_path / "golden") < 1_000_000
    found = conv_proved()
    assert found.verdict.same
    assert {*found.worst["free"]} == {"loss", "params", "buffers"}
    notes = " ".join(found.notes)
    assert "moves conv1.bias and 1 leaves more as far" in notes, "before BatchNorm, they are moot"
    assert "not judged, the state has none of them: bn1.num_batches_tracked" in notes


class Biased(conv_nnx.BatchNorm):
    """Keeps the biased variance."""

    def keep(self, mean: jax.Array, var: jax.Array, count: int) -> None:
        """Moves the running statistics."""
        super().keep(mean, var * (count - 1) / count, count)


def test_a_wrong_buffer_is_found() -> None:
    found = conv_proved(Biased).first
    assert found is not None
    assert (found.step, found.stage) == (1, "buffers")
    assert found.leaf.endswith("running_var")


# Faults


FAULTS: dict[str, tuple[dict[str, Any], tuple[int, str], str]] = {
    "learning rate off by 1e-6": (
        {"tx": adam(small_pair.RATE * (1 + 1e-6))},
        (1, "params"),
        "(1 + 1e-06) times PyTorch's: the learning rate",
    ),
    "eps": ({"tx": adam(eps=1e-6)}, (1, "params"), "the optimizer's rule"),
    "a schedule's third value": (
        {"tx": adam(optax.piecewise_constant_schedule(small_pair.RATE, {2: 0.5}))},
        (3, "params"),
        "0.5 times PyTorch's",
    ),
    "a transposed weight": ({"forward": transposed}, (1, "loss"), "no update was made yet"),
    # of 32 x 32 entries under Adam one is seen from about 2e3 eps of 1 on, see docs/commands.md
    "one wrong entry": ({"spoil": one_entry(3, 1e5 * EPS)}, (3, "params"), "rule"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_where_it_is(name: str) -> None:
    changed, where, cause = FAULTS[name]
    found = proved(**changed)
    assert found.verdict is Verdict.MISMATCH
    assert found.first is not None
    assert (found.first.step, found.first.stage) == where
    assert found.causes
    assert cause in found.causes[0]
    assert str(found.first) in found.reason
    assert found.smallest_allowance("free") == max(f.ratio for f in found.worst["free"].values())


def test_one_wrong_entry_is_named_by_its_leaf_and_lost_where_it_is_small() -> None:
    found = proved(spoil=one_entry(3, 1e5 * EPS)).first
    assert found is not None
    assert found.leaf == "2.weight"
    assert found.entry.endswith(" of 2.weight")
    assert proved(spoil=one_entry(3, 100 * EPS)).verdict.same, "what a sketch cannot see"


def test_nan_is_no_pass() -> None:
    found = proved(spoil=one_entry(2, float("nan")))
    assert found.verdict is Verdict.MISMATCH
    assert found.first is not None
    assert (found.first.step, found.first.leaf) == (2, "2.weight")
    json.dumps(found.to_dict(), allow_nan=False)


def test_reruns_that_overflow_excuse_nothing() -> None:
    """An allowance without end is none."""
    start, right = torch_side().params["2.weight"][0], step_of(adam())

    def step(state: Any, batch: Any) -> Any:
        exact = jnp.all(state[0]["2"]["weight"] == start)  # of reruns, which are off by an eps, not
        (params, rest), loss = right(state, batch)
        spoiled = one_entry(1, jnp.where(exact, 1e-3, 1e308))(params, rest[1])
        return (spoiled, rest), loss

    found = proved(step_fn=step)
    assert found.verdict is Verdict.MISMATCH
    assert found.first is not None
    assert (found.first.step, found.first.leaf) == (1, "2.weight")


def test_where_rounding_decides_all_nothing_is_proved() -> None:
    def chaotic(params: Any, x: jax.Array) -> jax.Array:
        return small_pair.forward(params, x) + jnp.sin(1e13 * params["0"]["bias"][0])

    found = proved(forward=chaotic)
    assert found.verdict is Verdict.INVALID
    assert found.chaotic_from == 1


# Bad input


BAD_STEPS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "names": (
        {"state": ({"kernel": np.zeros(2)},)},
        ["PyTorch has '0.weight' of shape (32, 6), the port none: give mapping", "twinstep match"],
    ),
    "no tuple": ({"state": [1]}, ["state is a list, expected a tuple (params, ...)"]),
    "raises": ({"batch_of": lambda batch: batch["y"]}, ["step 1: batch_of raised KeyError: 'y'"]),
    "no loss": (
        {"step_fn": lambda state, batch: state, "state": (None,)},
        ["step_fn gives a tuple, expected (state, loss)"],
    ),
    "a leaf left out": (
        {
            "step_fn": lambda state, batch: (state, batch["x"].sum()),
            "state": ({"inner": {"kernel": np.zeros((6, 32)), "bias": np.zeros(32)}},),
            "mapping": to_renamed(),
        },
        ["params has nothing of PyTorch's '2.weight', which the map has in it"],
    ),
    "another map": (
        {"mapping": Mapping({}, {}, {"fc.weight": (2, 2)})},
        ["the map names 'fc.weight', which PyTorch's trace does not have"],
    ),
    "an empty map": ({"mapping": Mapping({}, {}, {})}, ["the map leaves out '0.weight'"]),
}


@pytest.mark.parametrize("name", BAD_STEPS)
def test_a_step_that_does_not_fit_gets_one_line(name: str) -> None:
    changed, says = BAD_STEPS[name]
    refused(lambda: proved(**changed), *says)


def changed_manifest(folder: Path, **values: Any) -> None:
    """Gives a golden's manifest other values, and seals it."""
    manifest = json.loads((folder / MANIFEST).read_text()) | values
    manifest["sha256"] = module.seal(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "another format": (lambda f: changed_manifest(f, format=2), "has format 2, expected 1"),
    "no JSON": (lambda f: (f / MANIFEST).write_text("{"), "is damaged: it is not JSON"),
    "a list": (lambda f: (f / MANIFEST).write_text("[]"), "has format None, expected 1"),
    "edited": (
        lambda f: (f / MANIFEST).write_text((f / MANIFEST).read_text().replace("torch", "jax")),
        "is damaged: it is not what was written",
    ),
    "a bit": (
        lambda f: (f / DATA).write_bytes((f / DATA).read_bytes()[:-1] + b"\1"),
        "is damaged: its bytes are not those written",
    ),
    "no data": (lambda f: (f / DATA).unlink(), "cannot be read: No such file or directory"),
    "no manifest": (lambda f: (f / MANIFEST).unlink(), "is no golden: it has no golden.json"),
    "losses": (lambda f: changed_manifest(f, losses=[1.0]), "1 losses, 8 batches"),
    "batches": (lambda f: changed_manifest(f, batches=[{"x": "y"}] * 8), "is damaged: KeyError"),
    "metadata": (lambda f: changed_manifest(f, metadata={}), "is damaged: TypeError"),
    "a map": (lambda f: (f / module.MAP).write_text("{"), "is damaged: it is not JSON"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_golden_gets_one_line(name: str, tmp_path: Path) -> None:
    save_golden(golden_of(torch_side()), tmp_path / "golden")
    damage, says = DAMAGE[name]
    damage(tmp_path / "golden")
    refused(lambda: load_golden(tmp_path / "golden"), says)


def without(**changed: Any) -> Trace:
    """The small trace, changed."""
    return dataclasses.replace(torch_side(), **changed)


def test_a_trace_of_which_none_can_be_made_gets_one_line() -> None:
    trace = torch_side()
    refused(lambda: golden_of(without(inputs={})), "no values of batch x, a fingerprint alone")
    refused(lambda: golden_of(without(batch={})), "step 1 has no batch, expected its values")
    refused(lambda: golden_of(trace, 9), "steps is 9, expected 1 to 8")
    refused(lambda: golden_of(trace, 0), "steps is 0, expected 1 to 8")
    still = {name: np.repeat(array[:1], len(array), 0) for name, array in trace.params.items()}
    refused(lambda: golden_of(without(params=still)), "no parameter ever moved")
    none = {name: np.zeros_like(array) for name, array in trace.raw_grads.items()}
    refused(lambda: golden_of(without(raw_grads=none)), "all gradients are zero")
    losses = np.where(np.arange(8) == 4, np.nan, trace.losses)
    refused(lambda: golden_of(without(losses=losses)), "step 5: the loss is nan")


# The command


def test_the_command_writes_one_and_keeps_the_map(tmp_path: Path) -> None:
    torch_side().save(tmp_path / "torch")
    to_renamed().save(tmp_path / "own.json")
    words = ("golden", tmp_path / "torch", "--out", tmp_path / "golden", "--steps", 3)
    said = command(*words, "--map", tmp_path / "own.json").well()
    assert said.startswith(f"{tmp_path / 'golden'}: 3 steps, 4 parameters, 0 buffers, ")
    assert held(load_golden(tmp_path / "golden")) == held(golden_of(torch_side(), 3, to_renamed()))


def test_a_disk_that_is_full_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        if path.name == MANIFEST:
            raise OSError(28, "No space left on device")
        path.write_bytes(content)

    monkeypatch.setattr(module.files, "replace", full)
    out = tmp_path / "golden"
    line = refused(lambda: save_golden(golden_of(torch_side()), out))
    assert line == f"output folder {out} cannot be written: No space left on device"
    assert [*tmp_path.iterdir()] == []


def test_the_command_refuses_and_leaves_nothing(tmp_path: Path) -> None:
    torch_side().save(tmp_path / "torch")
    without(inputs={}).save(tmp_path / "bare")
    Mapping({}, {}, {}).save(tmp_path / "map.json")
    before, trace, out = {*tmp_path.iterdir()}, tmp_path / "torch", tmp_path / "golden"
    for words, says in {
        (): "golden takes PyTorch's trace, 0 given",
        (trace, trace): "golden takes PyTorch's trace, 2 given",
        (tmp_path / "bare", "--out", out): "no values of batch x",
        (trace, "--out", out, "--steps", 9): "steps is 9, expected 1 to 8",
        (trace, "--out", out, "--map", tmp_path / "map.json"): "the map leaves out '0.weight'",
        (trace, "--out", trace): f"output folder {trace} is not empty",
        (tmp_path / "none", "--out", out): "is no trace",
    }.items():
        assert says in refusal("golden", *words)
    assert {*tmp_path.iterdir()} == before
    refused(lambda: load_golden(trace), "is no golden", f"twinstep golden {trace} makes one")
