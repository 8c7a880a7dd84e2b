"""What every script here does: train one example in both frameworks, side by side, and judge it."""

import sys
from itertools import zip_longest

import twinstep
from twinstep.cli.parsing import parse_spec
from twinstep.specs import Spec


def main(name: str) -> int:
    """Trains the example with the command line's flags; 0 where both train the same, else 1."""
    try:
        spec = parse_spec(name, sys.argv[1:], prog=f"python examples/{name}.py")
        lines = {framework: log(spec, framework) for framework in ("torch", "jax")}
        result = twinstep.verify(spec)
    except twinstep.InputError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 2
    width = max(map(len, ["PyTorch", *lines["torch"]]))
    print(f"{'PyTorch':<{width}} | JAX")
    for torch, jax in zip_longest(lines["torch"], lines["jax"], fillvalue=""):
        print(f"{torch:<{width}} | {jax}")
    print()
    for claim in result.claims:
        print(f"the document: {claim.says}\nmeasured:     {claim.measured}")
    print(f"verdict:      {result.comparison.verdict}, {result.comparison.reason}")
    return 0 if result.comparison.verdict.same else 1


def log(spec: Spec, framework: str) -> list[str]:
    """The lines that the document prints."""
    outcome = twinstep.run(spec, framework=framework, noise=False).outcome()
    lines = [spec.log_line(step, loss) for step, loss in enumerate(outcome.losses.tolist())]
    return [line for line in lines if line] + spec.final_lines(outcome)
