"""Records a JAX training from outside: a line in the loop says what a step has left.

The gradients come in the optimizer's state, from `watch`; nothing else in a step is changed.
Mirror: twinstep/torch/recorder.py
"""

from collections import abc
from os import PathLike
from types import TracebackType
from typing import Any, NamedTuple, Self

import jax

from twinstep.errors import InputError
from twinstep.jax import states, wrappers
from twinstep.jax.names import ONLY, Layouts, Names, prefix
from twinstep.jax.program import Program, module_in
from twinstep.jax.spread import Places, part_of
from twinstep.jax.states import STEP, Form, Leaf, Named
from twinstep.jax.update_rows import Found, Updates
from twinstep.jax.watching import gradients, watched
from twinstep.jax.wrappers import Progress
from twinstep.trace.keep import EVERYTHING, Keep
from twinstep.trace.ledger import Trace
from twinstep.trace.streaming import Stream

Tree = Any


def record(
    params: Tree = None,
    *,
    out: str | PathLike[str] | None = None,
    layout: Layouts | None = None,
    buffers: Tree = None,
    replicas: int | None = None,
) -> "Recorder":
    """What records, in a `with` block, the updates that it is told of.

    Args:
        params: Before the first update: the parameters, a tree of arrays, an nnx module or an
            equinox one, or a state that holds them, as `step` takes it. Of several optimizers,
            {name: its parameters or state}.
        out: A new folder for the trace, written as it comes; None: it stays in memory. Of several
            processes, as of `jax.distributed`, the same for all: each writes its part.
        layout: Puts leaves under PyTorch's names and layouts, such as `module_layout(model)`; of
            several optimizers one of all parameters, or {name: its own}. With None a leaf's name
            is its path in the tree, with dots.
        buffers: What layers keep beside parameters (BatchNorm's means), before the first update.
        replicas: How many copies `pmap` keeps of everything in a process, along the first axis of
            parameters, states and buffers. They have to agree bit for bit; one is recorded. Losses
            and raw gradients, which may be each device's own, are averaged.

    Returns:
        A context manager; its `trace` is what was recorded.

    Raises:
        InputError: For parameters that are none, or of float32 beside float64, an `out` that
            exists, replicas that differ, and in the block for what cannot be recorded.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from twinstep.jax import record, watch
        >>> tx = watch(optax.sgd(0.1))
        >>> params = {"w": jnp.ones(2)}
        >>> opt_state = tx.init(params)
        >>> with record(params) as rec:
        ...     for _ in range(3):
        ...         loss, grads = jax.value_and_grad(lambda p: jnp.sum(p["w"] ** 2))(params)
        ...         updates, opt_state = tx.update(grads, opt_state, params)
        ...         params = optax.apply_updates(params, updates)
        ...         rec.step(loss=loss, params=params, opt_state=opt_state)
        >>> rec.trace.raw_grads["w"].shape
        (3, 2)

    Source: https://optax.readthedocs.io/en/latest/getting_started.html
    """
    return Recorder(params, out=out, layout=layout, buffers=buffers, replicas=replicas)


class Recorder:
    """What `record` makes: told of each update, it keeps what that has left.

    Args:
        params, out, layout, buffers, replicas: As of `record`.
        keep: What of each update is kept, and which.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import record
        >>> with record({"w": jnp.ones(2)}) as rec:
        ...     rec.step(loss=0.5, params={"w": jnp.zeros(2)})
        >>> rec.trace.losses.tolist(), rec.trace.params["w"].tolist()
        ([0.5], [[1.0, 1.0], [0.0, 0.0]])

    Source: https://optax.readthedocs.io/en/latest/getting_started.html
    """

    def __init__(
        self,
        params: Tree = None,
        *,
        out: str | PathLike[str] | None = None,
        layout: Layouts | None = None,
        buffers: Tree = None,
        replicas: int | None = None,
        keep: Keep = EVERYTHING,
    ) -> None:
        self._names, self._places, self._stream = Names(layout), Places(), Stream(part_of(out))
        self._form, self._program = Form(replicas, places=self._places), Program(self._names)
        trees, models, started = {}, {}, {}
        for name, one in _by_optimizer(params, layout).items():
            trees[name], models[name], started[name] = self._learning(name, one)
        named = self._names.initial(trees)
        before = self._before(named, self._names.of(ONLY, "buffers", states.plain(buffers)))
        if not before["params"]:
            raise InputError(
                "record was given no parameters that learn: record(params) or record(state), as "
                "they are before the first update"
            )
        self._names.known(**before)
        for name, model in models.items():
            self._program.model(name, model, trees[name])
        metadata = states.metadata(trees, before["params"])
        self._updates = Updates(metadata, self._stream, before, started, keep)

    def _learning(self, name: str, given: Any) -> tuple[Tree, Any, Progress | None]:
        """The parameters of an optimizer's, their model, and how far it is, where that is known."""
        held = states.holds_state(given)  # parameters may be a tuple too
        learns, opt_state = states.parts(given) if held else (given, None)
        params, opt_state = states.plain(learns, numbers=False), states.plain(opt_state)
        self._program.optimizer(name, opt_state)
        model, progress = module_in(given, learns), None
        if watched(opt_state) is not None:
            said = wrappers.progress(opt_state)[0]
            progress = _progress(self._form, "before step 1", said)
        return params, model, progress

    def _before(self, params: list[Leaf], buffers: list[Leaf]) -> dict[str, Named]:
        step = "before step 1"
        return {
            "params": self._form.named(step, "params", params),
            "buffers": self._form.named(step, "buffers", buffers),
        }

    @property
    def trace(self) -> Trace:
        """All that was recorded.

        Raises:
            InputError: Where nothing was.
        """
        self._updates.flush()
        return self._stream.whole()

    @property
    def made(self) -> int:
        """How many updates are recorded."""
        return self._updates.rows.step - 1

    @property
    def over(self) -> bool:
        """Whether as many are as were asked for."""
        return self._updates.over

    def step(
        self,
        state: Any = None,
        *,
        loss: Any,
        params: Tree = None,
        opt_state: Tree = None,
        buffers: Tree = None,
        batch: Tree = None,
        rng: Tree = None,
        name: str = ONLY,
    ) -> None:
        """Says what an update has left.

        A micro-step of `optax.MultiSteps` that does not update makes no row: the one that does
        sums them up. Nor does what `optax.apply_if_finite` or a loss scale has thrown away: the
        next row says how many were, as `skipped`.

        Args:
            state: What holds parameters and optimizer's state: a train state, an
                `nnx.ModelAndOptimizer`, or a tuple that begins so, as (model, nnx.Optimizer); or
                parameters alone.
            loss: As the update found it, (); of accumulated gradients, what was differentiated.
            params, opt_state, buffers: After the update. Gradients are read from an optimizer's
                state that is watched.
            batch: What the update trained on, a tree of arrays, (N, ...) each.
            rng: Keys that the step used.
            name: Which optimizer made it. All but "optimizer" stand before the names of what is
                theirs; parameters that `record` was given under other names keep those.

        Raises:
            InputError: For a loss that is no number, a leaf whose shape changed or that is missing,
                traced or donated, replicas that differ, a step that was recorded already, updates
                that were missed.
        """
        params, opt_state = states.told(state, params, opt_state)
        self.told(Told(loss, params, opt_state, buffers, batch, rng), self._form, name)

    def steps(
        self,
        state: Any = None,
        *,
        loss: Any,
        params: Tree = None,
        opt_state: Tree = None,
        buffers: Tree = None,
        batch: Tree = None,
        rng: Tree = None,
        name: str = ONLY,
        axes: tuple[str, ...] = (STEP,),
    ) -> None:
        """Says what T updates have left that a compiled scan has stacked.

        Args:
            state, loss, params, opt_state, buffers, batch, rng, name: As of `step`, with the axes
                in front of each array, (T,) of the loss, (T, ...) of params.
            axes: The names of the leading axes, "step" among them, at any place. Runs beside each
                other that a `vmap` made, ("seed", "step"), stay an axis of each leaf. The loss of
                a row is then their mean, and theirs are a micro-loss, "loss.seed".

        Raises:
            InputError: As `step` does; and for stacks of different lengths, and axes that have no
                "step".

        Example:
            >>> import jax.numpy as jnp
            >>> from twinstep.jax import record
            >>> with record({"w": jnp.ones(2)}) as rec:
            ...     rec.steps(loss=jnp.array([0.5, 0.25]), params={"w": jnp.zeros((2, 2))})
            >>> rec.trace.losses.tolist()
            [0.5, 0.25]
        """
        axes = (axes,) if isinstance(axes, str) else tuple(axes)
        if axes.count(STEP) != 1 or len(set(axes)) != len(axes):
            raise InputError(f"axes is {axes}, expected names of leading axes, one of them 'step'")
        form = Form(self._form.replicas, axes)
        params, opt_state = states.told(state, params, opt_state)
        told = Told(loss, params, opt_state, buffers, batch, rng)
        found, arrays = self._found(told, form, name)
        self._updates.told_many(name, found, arrays)

    def told(self, told: "Told", form: Form, name: str = ONLY) -> None:
        """Says what an update has left, in whatever form.

        Args:
            told: All of it.
            form: What stands in front of its arrays; of axes the steps are the last, and one.
            name: Which optimizer made it.

        Raises:
            InputError: As `step` does.
        """
        found, arrays = self._found(told, form, name)
        if form.axes:
            found = found.at(0)
        self._updates.told(name, found, arrays)

    def join(self, name: str, state: Any, buffers: Tree = None) -> None:
        """Says that there is an optimizer more.

        Args:
            name: What it is called; that stands before the names of what is its own.
            state: Its parameters or state, before its first update, as `record` takes them.
            buffers: What its layers keep beside parameters.

        Raises:
            InputError: As `record` does.
        """
        params, model, progress = self._learning(name, state)
        named = (
            self._names.by_path(params, prefix(name)),
            self._names.by_path(buffers, prefix(name)),
        )
        before = self._before(*named)
        self._names.joined(**before)
        self._program.model(name, model, params)
        self._updates.join(before, {name: progress})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._updates.flush()
        self._stream.wait()
        if kind is None:
            self._stream.close()

    def _began(self, before: tuple[Tree, Tree], form: Form, name: str) -> dict[str, Named]:
        """What an update began from, as rows have it."""
        say, names = f"step {self._updates.rows.step}: before", self._names
        params, opt_state = states.plain(before[0], numbers=False), states.plain(before[1])
        state = names.opt_state(name, wrappers.bare(opt_state), params, form.lead)
        return {
            "params": form.named(say, "params", names.of(name, "params", params)),
            "opt_state": form.named(say, "opt_state", state),
        }

    def says(self, **known: Any) -> None:
        """Says what is known of the program.

        Args:
            known: JSON values, by what they are of.
        """
        rows = self._updates.rows
        rows.program = {**rows.program, **known}

    def _found(self, told: "Told", form: Form, name: str) -> tuple[Found, list[Any]]:
        """What an update has left, or T; and the parameters' arrays as they are given."""
        say, names, form.places = f"step {self._updates.rows.step}", self._names, self._places
        losses = form.losses(say, told.loss)
        if told.params is None:
            raise InputError(f"{say}: params is missing")
        params, opt_state = states.plain(told.params, numbers=False), states.plain(told.opt_state)
        stages: dict[str, Named] = {}

        def read(stage: str, tree: Tree, mean: bool = False) -> Named:
            of = "buffers" if stage == "buffers" else "params"
            return form.named(say, stage, names.of(name, of, tree), mean=mean)

        if watched(opt_state) is not None:
            raw, given = gradients(opt_state)
            stages["raw_grads"] = read("raw_grads", raw, mean=True)
            stages["grads"] = stages["raw_grads"] if given is raw else read("grads", given)
        bare = names.opt_state(name, wrappers.bare(opt_state), params, form.lead)
        stages["opt_state"] = form.named(say, "opt_state", bare)
        stages["params"] = read("params", params)
        stages["buffers"] = read("buffers", states.plain(told.buffers))
        stages["rng"] = form.inputs(say, "rng", names.by_path(states.plain(told.rng)))
        progress, accumulated = wrappers.progress(opt_state)
        numbers = {
            key: form.hyper_parameter(say, prefix(name) + key, value)
            for key, value in wrappers.hyper_parameters(opt_state).items()
        }
        found = Found(
            stages,
            _progress(form, say, progress),
            read("accumulated", accumulated, mean=True),
            form.losses_by_axes(losses),
            form.inputs(say, "batch", names.by_path(states.plain(told.batch))),
            numbers,
            wrappers.mean_is_given(opt_state),
            {} if told.before is None else self._began(told.before, form, name),
            told.is_known,
        )
        self._program.optimizer(name, opt_state)
        self.says(**self._program.said, **form.program)
        return found, jax.tree.leaves(params)


class Told(NamedTuple):
    """What a call of `rec.step` or `rec.steps` was given.

    before: parameters and optimizer's state as an update found them, where those may not be what
    the last one has left; is_known: whether the loss is, else it is NaN
    """

    loss: Any
    params: Tree
    opt_state: Tree
    buffers: Tree
    batch: Tree
    rng: Tree
    before: tuple[Tree, Tree] | None = None
    is_known: bool = True


def _by_optimizer(given: Any, layout: Layouts | None) -> dict[str, Any]:
    """{optimizer's name: its parameters or state}, of one or of several."""
    if isinstance(given, abc.Mapping) and given:
        layouts = isinstance(layout, abc.Mapping) and layout.keys() == given.keys()
        if layouts or all(map(states.holds_state, given.values())):
            return dict(given)
    return {ONLY: given}


def _progress(form: Form, say: str, said: Progress) -> Progress:
    """How far an optimizer is, as NumPy's numbers."""
    return Progress(*(form.numbers(say, what, one) for what, one in said._asdict().items()))
