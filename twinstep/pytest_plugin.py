"""The pytest fixture `prove_port`: a port's own step against a golden, as a test.

pytest loads this in every project that has twinstep installed, so it loads nothing itself.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from twinstep.judge.findings import Comparison


@pytest.fixture
def prove_port(request: pytest.FixtureRequest) -> Callable[..., "Comparison"]:
    """Fails a test where a port does not train as its golden; see `twinstep.prove_golden`.

    Args:
        request: pytest's.

    Returns:
        `prove_port(golden, *, step_fn, params=None, opt_state=None, state=None, mapping=None,
        batch_of=None)`, which gives the Comparison. The state that step_fn takes is (params,
        opt_state), or what is given as `state`; names of files are relative to the test's own.

    Example:
        def test_it_trains_as_pytorch_does(prove_port):
            prove_port("golden/", step_fn=train_step, params=params, opt_state=tx.init)
    """

    def prove(
        golden: Any,
        *,
        step_fn: Callable[[Any, Any], Any],
        params: Any = None,
        opt_state: Any = None,
        state: Any = None,
        mapping: Any = None,
        batch_of: Callable[[Any], Any] | None = None,
    ) -> "Comparison":
        from twinstep.errors import InputError
        from twinstep.port.gate import prove_golden

        if state is not None and (params is not None or opt_state is not None):
            pytest.fail("state is given, expected no params and opt_state with it", pytrace=False)
        try:
            comparison = prove_golden(
                _beside(request, golden),
                step_fn=step_fn,
                state=(params, opt_state) if state is None else state,
                mapping=_beside(request, mapping),
                batch_of=batch_of,
            )
        except InputError as error:
            pytest.fail(str(error), pytrace=False)
        if not comparison.verdict.same:
            pytest.fail("\n".join(_lines(comparison)), pytrace=False)
        return comparison

    return prove


def _beside(request: pytest.FixtureRequest, name: Any) -> Any:
    """A file's name from the test's own folder; what is none stays."""
    from pathlib import Path

    return request.path.parent / name if isinstance(name, str | Path) else name


def _lines(comparison: "Comparison") -> list[str]:
    """The verdict, why that may be, what else is known, and what is furthest off."""
    several = "may be" if len(comparison.causes) > 1 else "cause"
    worst = [
        f"  {stage:9} {finding.ratio:.2g} of what is allowed: {finding}"
        for stages in comparison.worst.values()
        for stage, finding in stages.items()
    ]
    causes = [f"{several}: {cause}" for cause in comparison.causes]
    return [
        str(comparison),
        *causes,
        f"{comparison.steps} steps; allowance: {comparison.bound}",
        *comparison.notes,
        *worst,
    ]
