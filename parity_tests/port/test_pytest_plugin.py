"""The fixture `prove_port`, in a pytest of its own: what passes, what fails, and what it loads."""

import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from helpers.commands import ROOT, Said, python
from helpers.readme import snippets

from port.small_pair import torch_side
from twinstep.port.golden import golden_of, save_golden

PORT = """
import optax
from port.small_pair import adam, renamed, state_of, step_of

def params_of(shapes=((32, 6), (32,), (32, 32), (32,))):
    import numpy as np
    names = ("0.weight", "0.bias", "2.weight", "2.bias")
    return dict(zip(names, map(np.zeros, shapes)))

def plain_step(state, batch, rate=2.0**-6):
    import jax, jax.numpy as jnp
    params, opt_state = state
    def loss_fn(p):
        hidden = jnp.tanh(batch["x"] @ p["0.weight"].T + p["0.bias"])
        return jnp.mean((hidden @ p["2.weight"].T + p["2.bias"]) ** 2)
    loss, grads = jax.value_and_grad(loss_fn)(params)
    updates, opt_state = optax.adam(rate).update(grads, opt_state)
    return (optax.apply_updates(params, updates), opt_state), loss

def test_honest(prove_port):
    found = prove_port(
        "golden/", step_fn=plain_step, params=params_of(), opt_state=optax.adam(1.0).init
    )
    assert found.verdict.same

def test_with_state(prove_port):
    prove_port("golden/", step_fn=step_of(adam()), state=state_of(adam()))

def test_fault(prove_port):
    tx = adam(2.0**-5)
    prove_port("golden/", step_fn=step_of(tx), state=state_of(tx))

def test_bad_input(prove_port):
    prove_port("other/", step_fn=plain_step, params=params_of())

def test_both(prove_port):
    prove_port("golden/", step_fn=plain_step, params=params_of(), state=state_of(adam()))
"""


def own_pytest(folder: Path, *words: object, start: Path | None = None) -> Said:
    """pytest with the plugin, and no other that is not its own."""
    plugin = ("-p", "twinstep.pytest_plugin", "-p", "no:cacheprovider", "-q")
    env = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    return python("-m", "pytest", *plugin, *words, folder, cwd=start or folder, env=env)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Somebody's tests, with a golden beside them."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_port.py").write_text(PORT)
    save_golden(golden_of(torch_side()), tmp_path / "tests" / "golden")
    return tmp_path


def test_the_fixture_passes_and_fails(project: Path) -> None:
    said = own_pytest(project / "tests", start=project).printed(1)
    assert "3 failed, 2 passed" in said
    assert "mismatch: step 1, params" in said
    assert (
        "cause: each update of step 1 that is off is 2 times PyTorch's: the learning rate" in said
    )
    assert "8 steps; allowance: a run by itself from the golden weights" in said
    assert f"{project / 'tests' / 'other'} is no golden: it has no golden.json" in said
    assert "state is given, expected no params and opt_state with it" in said
    assert "Traceback" not in said


def test_the_page_says_how(project: Path) -> None:
    """Its snippet is a test, where a port of one's own is."""
    page = (ROOT / "docs/commands.md").read_text()
    (snippet,) = (text for text in snippets(page) if "prove_port" in text)
    (project / "tests" / "test_port.py").write_text(snippet)
    own = "params, train_step, tx = params_of(), plain_step, optax.adam(1.0)"
    (project / "tests" / "my_port.py").write_text(PORT.partition("def test_")[0] + own)
    assert "1 passed" in own_pytest(project).printed()


LOADED = """
import sys

def test_nothing_is_loaded():
    heavy = {"jax", "torch", "numpy", "flax", "safetensors", "rich"}
    assert heavy & sys.modules.keys() == set()
    assert {n for n in sys.modules if n.startswith("twinstep.")} == {"twinstep.pytest_plugin"}
"""


def test_the_plugin_loads_nothing_until_it_is_used(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_loaded.py").write_text(LOADED)
    assert "1 passed" in own_pytest(tmp_path).printed()
    (tmp_path / "conftest.py").write_text("import numpy")
    own_pytest(tmp_path).printed(1)


def test_pytest_finds_it_by_its_entry_point() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (home,) = project["entry-points"]["pytest11"].values()
    assert hasattr(import_module(home), "prove_port")
