"""Each side without the other, the core without both: what an extra brings, and says is missing."""

import sys
from pathlib import Path

import pytest
from helpers.commands import python, refusal, without

from twinstep import InputError, extras
from twinstep.problems import EXAMPLES
from twinstep.runs import launch

MISSING = [
    ("run zero_grad --framework jax", "flax", "framework jax", "jax"),
    ("run zero_grad", "optax", "framework jax", "jax"),
    ("verify zero_grad", "jax", "framework jax", "jax"),
    ("verify zero_grad", "torch", "framework torch", "torch"),
    ("verify zero_grad --report page.html", "jinja2", "--report", "report"),
    ("verify zero_grad --report page.html", "matplotlib", "--report", "report"),
    ("bench zero_grad", "torch", "framework torch", "torch"),
    ("bench zero_grad --plot plot.png", "matplotlib", "--plot", "report"),
]


@pytest.mark.parametrize(("line", "module", "what", "extra"), MISSING)
def test_what_is_missing_is_said_before_anything_trains(
    line: str, module: str, what: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    says = f'{what} needs {module}, not installed: pip install "twinstep[{extra}]"'
    assert refusal(*line.split()) == says


def test_in_python_too(monkeypatch: pytest.MonkeyPatch) -> None:
    import twinstep.jax

    monkeypatch.setattr(twinstep, "jax", twinstep.jax)  # it is another one in the meantime
    ours = ("jax_impl", "twinstep.jax")
    for name in [name for name in sys.modules if name.startswith(ours)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optax", None)
    with pytest.raises(InputError, match=r"needs optax, not installed: pip install"):
        launch.run(EXAMPLES["zero_grad"](), "jax")


COMMANDS = """
from twinstep.cli import main
print(*(main(words.split()) for words in sys.argv[1:]))
"""


def test_the_jax_side_runs_where_pytorch_is_not_installed() -> None:
    commands = ["run zero_grad --framework jax", "run zero_grad"]
    said = python("-c", without("torch") + COMMANDS, *commands)
    assert "Epoch 5, Loss: " in said.printed()
    assert said.out.splitlines()[-1] == "0 2"
    says = 'framework torch needs torch, not installed: pip install "twinstep[torch]"'
    assert said.err == f"twinstep: error: {says}\n"


def test_the_core_needs_no_extra(stored: Path) -> None:
    """Lists, shows, and judges what was recorded elsewhere."""
    brought = {name for names in extras.MODULES.values() for name in names}
    code = without(*brought - {"pygments"}) + COMMANDS  # which rich brings
    said = python("-c", code, "list", "show zero_grad", f"compare {stored} {stored}")
    assert said.well().splitlines()[-1] == "0 0 0"
    assert "usage: twinstep verify" in python("-c", code, "verify --help").well()
