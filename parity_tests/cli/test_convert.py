"""`twinstep convert`: all bits through every kind of file and back, a port's map, one line for all
that does not fit.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from flax import nnx
from helpers.commands import command, python, refusal, without
from helpers.weights_files import Named, same, saved, shards
from port.programs import transformer_linen, transformer_torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch

from twinstep import match
from twinstep.port.mapping import Mapping as Map
from twinstep.port.mapping import flat
from twinstep.port.probing import probe
from twinstep.weights import pickled
from twinstep.weights.reading import read_weights

DTYPES = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2",
          "complex64", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16",
          "uint8", "bool")  # fmt: skip


def convert(*words: object) -> str:
    """What `twinstep convert` prints, which has to end well."""
    return command("convert", *words).well()


def every_dtype() -> dict[str, np.ndarray]:
    """An array of any bits of each dtype, and one number of each."""
    found: dict[str, np.ndarray] = {}
    for number, name in enumerate(DTYPES):
        dtype = np.dtype(getattr(ml_dtypes, name, None) or name)
        drawn = np.random.default_rng(number).integers(0, 2 if name == "bool" else 256, 192, "u1")
        found[f"{name}.array"] = drawn[: 24 * dtype.itemsize].view(dtype).reshape(2, 3, 4)
        found[f"{name}.number"] = drawn[: dtype.itemsize].view(dtype).reshape(())
    return found


def test_every_bit_goes_through_every_kind_of_file_and_back(tmp_path: Path) -> None:
    """NaNs of any bits too: in this order each kind is read and written."""
    named, file = every_dtype(), tmp_path / "in.safetensors"
    saved(tmp_path, named)
    for out in ("a.pt", "b.safetensors", "c", "d.safetensors", "e", "f.bin", "g.pth"):
        said = convert(file, tmp_path / out, "--allow-nan")
        assert said == f"{tmp_path / out}: 32 arrays of 400 numbers\n"
        file = tmp_path / out
        assert same(read_weights(file), named), out
    theirs = torch.load(file, weights_only=True)
    assert torch.equal(theirs["int64.array"], torch.from_numpy(named["int64.array"]))
    assert theirs["bfloat16.array"].dtype == torch.bfloat16
    assert {*load_torch(tmp_path / "d.safetensors")} == {*named}
    assert len([*tmp_path.iterdir()]) == 8  # nothing else is left behind


def test_empty_arrays_and_an_own_order(tmp_path: Path) -> None:
    named = {"z": np.zeros((0, 3), "float32"), "a": np.ones(2, "int64"), "m": np.ones((), "bool")}
    torch.save({name: torch.from_numpy(array) for name, array in named.items()}, tmp_path / "a.pt")
    convert(tmp_path / "a.pt", tmp_path / "b.safetensors")
    convert(tmp_path / "a.pt", tmp_path / "c.pt")
    assert same(load_file(tmp_path / "b.safetensors"), named)
    assert [*torch.load(tmp_path / "c.pt", weights_only=True)] == [*named]
    says = refusal("convert", tmp_path / "a.pt", tmp_path / "d")
    assert says.endswith("d: 'z' is of shape (0, 3), which orbax keeps nothing of")


def test_tensors_that_are_views_are_what_they_show(tmp_path: Path) -> None:
    """Transposed, a part of another's memory, and conjugate by a mark alone."""
    whole = torch.arange(12.0).reshape(3, 4)
    views = {"t": whole.T, "part": whole[1:, ::2], "conj": torch.tensor([1 + 2j]).conj()}
    views["imag"] = torch.tensor([1 + 2j]).conj().imag  # negative by a mark
    torch.save(views, tmp_path / "a.pt")
    convert(tmp_path / "a.pt", tmp_path / "b.safetensors")
    found = load_torch(tmp_path / "b.safetensors")
    assert all(torch.equal(found[name], view) for name, view in views.items())


def test_a_float_is_cast_where_it_is_asked_for_alone(tmp_path: Path) -> None:
    named: dict[str, np.ndarray] = {"a": np.array([0.1, -np.inf]), "c": np.ones(2, "float16")}
    named["b"] = np.array([1], "int64")
    saved(tmp_path, named)
    convert(tmp_path / "in.safetensors", tmp_path / "b.safetensors", "--dtype", "bfloat16")
    found = read_weights(tmp_path / "b.safetensors")
    theirs = torch.from_numpy(named["a"]).to(torch.bfloat16).view(torch.int16).numpy()
    assert found["a"].tobytes() == theirs.tobytes()
    kinds = [found[name].dtype.name for name in "abc"]
    assert kinds == ["bfloat16", "int64", "bfloat16"]
    convert(tmp_path / "in.safetensors", tmp_path / "c.safetensors")
    assert same(read_weights(tmp_path / "c.safetensors"), named)


def test_a_checkpoint_of_an_nnx_state_and_one_that_a_manager_keeps(tmp_path: Path) -> None:
    """Numbers of a list are text there, and each array is behind a `value`."""
    linear = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    model = nnx.List([linear, nnx.BatchNorm(2, rngs=nnx.Rngs(0))])
    checkpoint = pytest.importorskip("orbax.checkpoint")
    with checkpoint.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "100" / "default", nnx.state(model))
    says = refusal("convert", tmp_path / "100", tmp_path / "a.pt")
    assert says.endswith(f"no checkpoint of orbax's, did you mean {tmp_path / '100' / 'default'}?")
    convert(tmp_path / "100" / "default", tmp_path / "a.pt")
    found = pickled.read(tmp_path / "a.pt")
    assert {*found} == {"0.kernel", "0.bias", "1.scale", "1.bias", "1.mean", "1.var"}
    np.testing.assert_array_equal(found["0.kernel"], linear.kernel[...])


# A port's own map


def torch_model() -> torch.nn.Module:
    """A language model with fused attention, whose head is its embedding; all of it is drawn."""
    torch.manual_seed(0)
    model = transformer_torch.Transformer()
    for param in model.parameters():
        torch.nn.init.normal_(param, 0, 0.3)
    return model


def arrays_of(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """A model's state_dict in NumPy."""
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def port_map(folder: Path) -> Map:
    """Its port's map, which is written too."""
    model = torch_model()
    probed = probe({name: (tuple(p.shape), "float32") for name, p in model.named_parameters()})
    found = match(probed, flat(transformer_linen.from_torch(probed)))
    assert found.complete
    found.mapping.save(folder / "map.json")
    return found.mapping


def given_as(kind: str, folder: Path, model: torch.nn.Module) -> Path:
    """A model's state_dict as a file of a kind, as people have them."""
    if kind == "checkpoint of DDP":
        state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
        torch.save({"epoch": 3, "model_state_dict": state}, folder / "model.pt")
        return folder / "model.pt"
    if kind == "shards":
        return shards(folder, arrays_of(model))[0]
    return saved(folder, {f"_orig_mod.module.{n}": a for n, a in arrays_of(model).items()})


def nested(named: Named) -> dict[str, Any]:
    """A tree of dicts by the dots of names, as linen has it."""
    tree: dict[str, Any] = {}
    for name, array in named.items():
        *path, last = name.split(".")
        node = tree
        for key in path:
            node = node.setdefault(key, {})
        node[last] = array
    return tree


def outputs_agree(model: torch.nn.Module, params: Any) -> bool:
    """Whether the port computes with these what PyTorch does."""
    tokens = np.random.default_rng(0).integers(0, transformer_torch.VOCAB, (3, 7))
    ours: Any = transformer_linen.Transformer().apply({"params": params}, jnp.asarray(tokens))
    theirs = model(torch.from_numpy(tokens)).detach().numpy()
    # float32 through two blocks: rounding moves logits of about 1 by some 1e-6
    return bool(np.abs(np.asarray(ours) - theirs).max() <= 1e-5)


@pytest.mark.parametrize("kind", ["checkpoint of DDP", "shards", "safetensors of torch.compile"])
def test_a_port_loads_what_is_made_and_pytorch_what_comes_back(kind: str, tmp_path: Path) -> None:
    model, mapping = torch_model(), tmp_path / "map.json"
    port_map(tmp_path)
    file = given_as(kind, tmp_path, model)
    said = convert(file, tmp_path / "tree", "--mapping", mapping, "--skip", "head.*")
    assert said == f"{tmp_path / 'tree'}: 36 arrays of 6976 numbers\n"
    params = nested(read_weights(tmp_path / "tree"))
    assert outputs_agree(model, params)
    convert(tmp_path / "tree", tmp_path / "back.pt", "--mapping", mapping)
    theirs = {name: a for name, a in arrays_of(model).items() if name != "head.weight"}
    assert same(pickled.read(tmp_path / "back.pt"), theirs)
    convert(tmp_path / "tree", tmp_path / "back.safetensors", "--mapping", mapping)
    again = transformer_torch.Transformer()
    again.load_state_dict(load_torch(tmp_path / "back.safetensors"), strict=False)
    assert all(
        torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True)
    )


def test_a_square_kernel_that_is_turned_and_a_shard_that_is_another_are_noticed(
    tmp_path: Path,
) -> None:
    """Of the first what the port computes alone can tell: its bits come back all the same."""
    mapping, model = port_map(tmp_path), torch_model()
    index, where = shards(tmp_path, arrays_of(model))
    leaf = "block_0.proj.kernel"
    (piece,) = mapping.leaves[leaf]
    turned = dataclasses.replace(piece, axes=piece.axes[::-1])
    wrong = dataclasses.replace(mapping, leaves={**mapping.leaves, leaf: (turned,)})
    wrong.save(tmp_path / "wrong.json")
    words = ("--mapping", tmp_path / "wrong.json", "--skip", "head.*")
    convert(index, tmp_path / "tree", *words)
    assert not outputs_agree(model, nested(read_weights(tmp_path / "tree")))
    convert(tmp_path / "tree", tmp_path / "back.pt", *words[:2])
    assert {*pickled.read(tmp_path / "back.pt")} == {*mapping.torch_shapes}
    one, two = (tmp_path / f"model-{number}.safetensors" for number in (1, 2))
    one.rename(tmp_path / "other")
    two.rename(one)
    (tmp_path / "other").rename(two)
    says = refusal("convert", index, tmp_path / "new", *words)
    assert f"'wte.weight' is not in {where['wte.weight']}, it is in {two.name}; " in says
    assert not (tmp_path / "new").exists()


# What each kind of file needs


ALONE = """
import sys
from twinstep.cli import main
codes = [main(["convert", *words]) for words in (sys.argv[1:3], [sys.argv[2], "tree"])]
print(*codes, "jax" in sys.modules)
"""


def test_each_kind_of_file_asks_for_what_it_needs_alone(tmp_path: Path) -> None:
    """bfloat16 where NumPy has none: without ml_dtypes; a .pt without JAX, safetensors without
    either.
    """
    torch.save({"a": torch.tensor([1.5, -2]).bfloat16()}, tmp_path / "a.pt")
    said = python("-c", without("jax", "ml_dtypes") + ALONE, "a.pt", "b.safetensors", cwd=tmp_path)
    assert said.printed().splitlines()[-1] == "0 2 False"
    assert said.err.startswith("twinstep: error: tree needs jax, not installed: ")
    assert load_torch(tmp_path / "b.safetensors")["a"].tolist() == [1.5, -2]
    code = without("jax", "torch") + ALONE
    said = python("-c", code, "b.safetensors", "c.safetensors", cwd=tmp_path)
    assert said.printed().splitlines()[-1] == "0 2 False"
    assert same(read_weights(tmp_path / "c.safetensors"), read_weights(tmp_path / "a.pt"))
    said = python("-c", code, "a.pt", "d.safetensors", cwd=tmp_path)
    assert "twinstep: error: a.pt needs torch, not installed: pip install" in said.err
