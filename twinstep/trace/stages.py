"""The one table of what a step leaves, in the order in which it is made.

Comparison walks it in this order, so the first entry that is off is where the fault is. A new stage
is a row here and a field of `Trace`: it is recorded, saved, compared and drawn by what stands here.
"""

from typing import NamedTuple


class Stage(NamedTuple):
    """One kind of entry of a step.

    name: as findings, files and reports have it
    holds: what it is, for people
    field: of `Trace`
    initial: rows that stand before the first step's
    numbers: whether it is in the run's dtype; else each leaf has its own
    exact: compared bit for bit: it is drawn or chosen, not computed
    one_step: what one step may round, in eps of the leaf's largest entry or, where it is measured
        on the step, of what the entry is made of; `judge.tolerance` has the reasons
    noisy: whether what rounding does to it over a run is measured, and drawn over the steps
    both: compared only where both sides have it
    column: of the terminal's table: its turn to leave a narrow screen; 0: it has none
    """

    name: str
    holds: str
    field: str
    initial: int = 0
    numbers: bool = True
    exact: bool = False
    one_step: float = 0
    noisy: bool = False
    both: bool = False
    column: int = 0


_TABLE = (
    Stage(
        "update", "which it is, of which optimizer", "update", numbers=False, exact=True, both=True
    ),
    Stage(
        "before",
        "what is not as the last update left it",
        "before",
        numbers=False,
        one_step=8,
    ),
    Stage("batch", "what the step trained on", "batch", numbers=False, exact=True),
    Stage("rng", "the state of random numbers", "rng", numbers=False, exact=True, both=True),
    Stage("activations", "what a layer put out", "activations", one_step=64, both=True),
    Stage(
        "micro_losses",
        "of the backward passes that are summed",
        "micro_losses",
        one_step=16,
        both=True,
    ),
    Stage("loss", "as the update found it", "losses", one_step=16, noisy=True, column=6),
    Stage(
        "raw_grads",
        "what was backpropagated, before clipping",
        "raw_grads",
        one_step=64,
        noisy=True,
        column=4,
    ),
    Stage("grads", "what the optimizer is given", "grads", one_step=64),
    Stage(
        "hyper_parameters",
        "the optimizer's, at this update",
        "hyper_parameters",
        numbers=False,
        exact=True,
        both=True,
    ),
    Stage("opt_state", "after the update", "opt_state", one_step=8, noisy=True, column=3),
    Stage("params", "after the update", "params", initial=1, one_step=4, noisy=True, column=5),
    Stage("buffers", "after the update", "buffers", initial=1, numbers=False, one_step=8),
    Stage(
        "evaluation", "what a test makes of the last ones", "evaluation", one_step=64, noisy=True
    ),
)

STAGES = {stage.name: stage for stage in _TABLE}
"""{name: stage}, in the ledger's order"""
STEPS = [stage for stage in _TABLE if stage.name != "evaluation"]
"""Those that every step has."""
LEAVES = [stage for stage in STEPS if stage.name != "loss"]
"""Those that hold arrays by name."""
