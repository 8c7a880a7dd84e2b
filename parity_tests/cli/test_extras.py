"""Each side without the other, the core without both: what an extra brings, and says is missing."""

import subprocess
import sys
from pathlib import Path

import pytest

from twinstep import InputError, extras
from twinstep.cli import main
from twinstep.problems import EXAMPLES
from twinstep.runs import launch

MISSING = [
    (["run", "zero_grad", "--framework", "jax"], "flax", "framework jax", "jax"),
    (["run", "zero_grad"], "optax", "framework jax", "jax"),
    (["verify", "zero_grad"], "jax", "framework jax", "jax"),
    (["verify", "zero_grad"], "torch", "framework torch", "torch"),
    (["verify", "zero_grad", "--report", "page.html"], "jinja2", "--report", "report"),
    (["verify", "zero_grad", "--report", "page.html"], "matplotlib", "--report", "report"),
    (["bench", "zero_grad"], "torch", "framework torch", "torch"),
    (["bench", "zero_grad", "--plot", "plot.png"], "matplotlib", "--plot", "report"),
]


@pytest.mark.parametrize(("words", "module", "what", "extra"), MISSING, ids=str)
def test_what_is_missing_is_said_before_anything_trains(
    words: list[str],
    module: str,
    what: str,
    extra: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert main(words) == 2
    out, err = capsys.readouterr()
    says = f'{what} needs {module}, not installed: pip install "twinstep[{extra}]"'
    assert (out, err) == ("", f"twinstep: error: {says}\n")


def test_in_python_too(monkeypatch: pytest.MonkeyPatch) -> None:
    import twinstep.jax

    monkeypatch.setattr(twinstep, "jax", twinstep.jax)  # it is another one in the meantime
    ours = ("jax_impl", "twinstep.jax")
    for name in [name for name in sys.modules if name.startswith(ours)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optax", None)
    with pytest.raises(InputError, match=r"needs optax, not installed: pip install"):
        launch.run(EXAMPLES["zero_grad"](), "jax")


# rich brings pygments
CORE = f"""
import sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name in {[n for names in extras.MODULES.values() for n in names if n != "pygments"]}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Without())
from twinstep.cli import main
sys.exit(sum(main(words.split()) for words in sys.argv[1:]))
"""


def test_the_core_needs_no_extra(stored: Path) -> None:
    """Lists, shows, and judges what was recorded elsewhere."""
    commands = ["list", "show zero_grad", f"compare {stored} {stored}", "verify --help"]
    done = subprocess.run(
        [sys.executable, "-c", CORE, *commands], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
