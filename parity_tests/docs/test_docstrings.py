"""What a user calls teaches itself: each argument is said, and each example runs as printed."""

import doctest
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

PUBLIC = [
    "twinstep",
    "twinstep.torch",
    "twinstep.jax",
    "twinstep.jax.layout",
    "twinstep.jax.nn",
    "twinstep.jax.nn.functional",
    "twinstep.jax.nn.init",
    "twinstep.jax.nn.utils",
    "twinstep.jax.nn.utils.parametrizations",
    "twinstep.jax.nn.utils.parametrize",
    "twinstep.jax.nn.utils.rnn",
    "twinstep.jax.nn.utils.stateless",
    "twinstep.jax.optim",
    "twinstep.jax.optim.lr_scheduler",
]
KIT = "twinstep.jax.optim", "twinstep.jax.nn"
"""What stands for a thing of PyTorch's, and names the page of it."""


def public() -> dict[str, Any]:
    """{dotted name: function or class} of all that the modules above export."""
    found: dict[str, Any] = {}
    for home in PUBLIC:
        module = importlib.import_module(home)
        for name in module.__all__:
            value = getattr(module, name)
            if not inspect.ismodule(value):
                found[f"{home}.{name}"] = value
    return found


NAMES = public()


def members(name: str, value: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The functions that a public name stands for: itself, or its own methods, by dotted names."""
    if not inspect.isclass(value):
        yield name, value
        return
    for key, member in vars(value).items():
        if key == "forward" and section(inspect.getdoc(value) or "", "Shape"):
            continue  # what a layer is called with, it says itself, as PyTorch's pages do
        function = getattr(member, "__func__", member)
        generated = "<string>" in getattr(getattr(function, "__code__", None), "co_filename", "")
        if inspect.isfunction(function) and not key.startswith("_") and not generated:
            yield f"{name}.{key}", function


def section(text: str, head: str) -> str | None:
    """What stands below a head such as "Args:", or None."""
    found = re.search(rf"^{head}:\n((?:[ ]+.*\n|\n)+)", f"{text}\n", re.MULTILINE)
    return found[1] if found else None


def unsaid(function: Callable[..., Any]) -> list[str]:
    """What the docstring of a function lacks: its one line, its arguments, what it returns."""
    text, signature = inspect.getdoc(function) or "", inspect.signature(function)
    lacks = [] if re.match(r"\S.*[.?]$", text.partition("\n")[0]) else ["one line"]
    arguments = section(text, "Args") or ""
    said = {
        n
        for names in re.findall(r"^    ([\w*][\w*, ]*):", arguments, re.MULTILINE)
        for n in re.split(r",\s*", names.replace("*", ""))
    }
    for name in signature.parameters:
        if name not in said and name not in ("self", "cls"):
            lacks.append(f"argument {name}")
    lacks += [f"no such argument: {name}" for name in sorted(said - {*signature.parameters})]
    returns = signature.return_annotation not in (None, "None", inspect.Signature.empty)
    if returns and not isinstance(function, property) and section(text, "Returns") is None:
        lacks += [] if re.search(r"^(Yields):$", text, re.MULTILINE) else ["Returns"]
    return lacks


@pytest.mark.parametrize("name", NAMES)
def test_what_is_public_is_said(name: str) -> None:
    value = NAMES[name]
    text = inspect.getdoc(value) or ""
    assert ">>> " in text, "an example"
    if name.startswith(KIT):
        assert "Source: http" in text or "Source:\n" in text
    for member, function in members(name, value):
        assert unsaid(function) == [], member


@pytest.mark.parametrize("name", NAMES)
def test_examples_run(name: str) -> None:
    value = NAMES[name]
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    said: list[str] = []
    for test in doctest.DocTestFinder().find(value, name, globs={}):
        runner.run(test, out=said.append)
    assert runner.failures == 0, "".join(said)


_SAID = """Adds.

    Args:
        a, b: Numbers.

    Returns:
        The sum.
    """


def test_what_is_left_out_is_noticed() -> None:
    def adds(a: int, b: int) -> int:
        return a + b

    adds.__doc__ = _SAID
    assert unsaid(adds) == []
    for old, new, lacks in (
        ("Adds.\n", "\n", "one line"),
        ("a, b", "a", "argument b"),
        ("a, b", "a, b, c", "no such argument: c"),
        ("Returns:", "Gives:", "Returns"),
    ):
        adds.__doc__ = _SAID.replace(old, new)
        assert unsaid(adds) == [lacks]
