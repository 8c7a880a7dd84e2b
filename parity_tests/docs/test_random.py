"""docs/random.md says what is drawn when: each row is run, and its words are counted."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import readme
from helpers.differences import TRAITS, traits
from helpers.torch_draws import as_arrays
from helpers.torch_loaders import apart, words_between
from torch.nn import functional

from twinstep import TorchGenerator
from twinstep.problems import torch_init

TEXT = (Path(__file__).parents[2] / "docs" / "random.md").read_text()
_CODE = r" `([^|]+)` \|"
CALLS = re.findall(rf"^\| [^|`]*(?:`[^|`]+`[^|`]*)*\|{_CODE}{_CODE} (\d+) \|$", TEXT, re.MULTILINE)
LOADERS = re.findall(rf"^\|{_CODE} (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", TEXT, re.MULTILINE)


def test_the_snippets_run(tmp_path: Path) -> None:
    assert [readme.ran(["-c", snippet], tmp_path) for snippet in readme.snippets(TEXT)] == [""]


def test_every_row_is_read() -> None:
    lines = [line for line in TEXT.splitlines() if line.startswith("|")]
    assert len(lines) == len(CALLS) + len(LOADERS) + 4  # two heads of two lines
    assert len(CALLS) > 20
    assert len(LOADERS) > 10


@pytest.mark.parametrize(("theirs", "ours", "words"), CALLS, ids=[row[0] for row in CALLS])
def test_a_call_draws_so_many_words(theirs: str, ours: str, words: str) -> None:
    if (
        re.search("bernoulli|exponential|dropout|multinomial", theirs)
        and TRAITS[-1] not in traits()
    ):
        pytest.skip("draws from MKL's own generator on this processor")
    g = TorchGenerator(0)
    torch.manual_seed(0)
    before = torch.get_rng_state().numpy()
    there: Any = eval(theirs, {"torch": torch, "F": functional})
    here: Any = eval(ours, {"g": g, "np": np, "torch_init": torch_init})
    if isinstance(there, torch.nn.Module):
        there = {name: tensor.numpy() for name, tensor in there.state_dict().items()}
    expected, found = as_arrays(there), as_arrays(here)
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        assert np.asarray(found[name]).tobytes() == array.tobytes(), name
    assert g.get_state().tobytes() == torch.get_rng_state().numpy().tobytes()
    assert words_between(before, g.get_state()) == int(words)


def test_a_loader_draws_so_many_words() -> None:
    drawn = apart("words", *(options for options, *_ in LOADERS))
    assert drawn == [" ".join(words) for _, *words in LOADERS]
