"""Writes each update of a program as a row of its trace, and tells what is one."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from twinstep.errors import InputError
from twinstep.jax.accumulation import Micro
from twinstep.jax.names import ONLY, prefix
from twinstep.jax.states import Named, unchanged
from twinstep.jax.wrappers import Progress
from twinstep.trace.fingerprint import fingerprint
from twinstep.trace.keep import Keep
from twinstep.trace.ledger import Metadata
from twinstep.trace.rows import Rows, rows_at_once
from twinstep.trace.streaming import Stream

UPDATE, MICRO, NONE = "update", "micro", "none"
"""What a call of `rec.step` may be told of: an update, a part of one, or none."""


class Found(NamedTuple):
    """What was read of one update, or of T with the steps in front.

    stages: {stage: {leaf: array}}; held: what MultiSteps has accumulated; losses: "loss", and by
    the axes beside the steps; numbers: hyper-parameters; mean_given: whether what was given is the
    mean of micro-steps as MultiSteps has made it; before: {stage: {leaf: array}} that an update
    began from, where that may not be what the last row has; loss_is_known: else losses are NaN
    """

    stages: Mapping[str, Named]
    progress: Progress
    held: Named
    losses: Named
    batch: Named
    numbers: Named
    mean_given: bool = False
    before: Mapping[str, Named] = {}
    loss_is_known: bool = True

    def at(self, t: int) -> "Found":
        """That of one of the T."""

        def of(named: Named) -> Named:
            return {name: array[t] for name, array in named.items()}

        progress = Progress(*(None if one is None else one[t] for one in self.progress))
        stages = {stage: of(named) for stage, named in self.stages.items()}
        if self.stages.get("grads") is self.stages.get("raw_grads", {}):
            stages["grads"] = stages["raw_grads"]
        rest = of(self.held), of(self.losses), of(self.batch), of(self.numbers)
        before = {stage: of(named) for stage, named in self.before.items()}
        return Found(stages, progress, *rest, self.mean_given, before, self.loss_is_known)

    @property
    def own(self) -> set[str]:
        """The parameters that the optimizer updates; all of them where no gradients say which."""
        raw, params = self.stages.get("raw_grads", {}), self.stages["params"]
        return set(raw if raw and raw.keys() <= params.keys() else params)


class Optimizer:
    """How far one of a program's optimizers is.

    updates: how many were recorded, each a row; last: the row of the last one
    skipped: updates since then that were none; progress: where known
    """

    def __init__(self, progress: Progress | None = None) -> None:
        self.updates, self.last, self.skipped = 0, 0, 0
        self.progress = progress
        self.own: set[str] = set()
        self.form: dict[str, set[str]] = {}
        self.micro = Micro()
        self.renewed = False
        self.arrays: list[Any] = []
        self.loss: Any = None
        self.numbers: dict[str, float] = {}


class Updates:
    """The rows of a recording.

    initial: {stage: {leaf: array}} before the first update; started: of each optimizer, how far it
    is then; keep: what of an update is kept, and which
    """

    def __init__(
        self,
        metadata: Metadata,
        stream: Stream,
        initial: Mapping[str, Named],
        started: Mapping[str, Progress | None],
        keep: Keep,
    ) -> None:
        self._metadata, self._stream, self._keep = metadata, stream, keep
        entries = sum(4 * array.size for array in initial["params"].values())
        max_rows = rows_at_once(entries * np.dtype(metadata.dtype).itemsize)
        self.rows = Rows(max_rows, metadata.dtype)
        self._known: dict[str, set[str]] = {stage: set() for stage in initial}
        self._optimizers: dict[str, Optimizer] = {}
        self.join(initial, started)

    def join(self, initial: Mapping[str, Named], started: Mapping[str, Progress | None]) -> None:
        """There are these leaves too, and optimizers that have got so far."""
        for stage, leaves in initial.items():
            for leaf, array in self._keep.of(leaves):
                self.rows.initial(stage, leaf, array)
            self._known[stage] |= leaves.keys()
        self._optimizers |= {name: Optimizer(progress) for name, progress in started.items()}

    @property
    def over(self) -> bool:
        """Whether as many rows are there as are to be kept."""
        made = [one.updates for one in self._optimizers.values()]
        return self._keep.over(self.rows.step - 1, made)

    def flush(self) -> None:
        """Gives the finished rows away."""
        self.rows.flush(self._metadata, self._stream)

    def told(self, name: str, found: Found, arrays: list[Any]) -> None:
        """Of one update. arrays: the parameters as they were given"""
        one = self._optimizers.setdefault(name, Optimizer())
        self._check(one, found)
        try:
            kind = self._kind(one, name, found, arrays)
            if kind is MICRO or (kind is UPDATE and one.micro):
                stages = found.stages
                raw, rng = stages.get("raw_grads", {}), stages["rng"]
                one.micro.add(found.losses, raw, found.held, found.batch, rng)
                given = stages.get("grads")  # before the rule; of one that is watched outside alone
                inside = {} if given is None or given is stages["raw_grads"] else given
                one.micro.saw(found.held if kind is MICRO else inside)
                one.loss = found.losses["loss"]
            if kind is UPDATE and self._keep.has(one.updates + 1):
                self._write(one, name, found)
            elif kind is UPDATE:
                one.updates += 1
        except InputError:
            self.rows.discard()
            raise
        one.progress, one.arrays = found.progress, arrays
        one.skipped += kind is NONE
        if not found.progress.mini_step:  # one that is skipped among others leaves those
            one.micro.clear()
        if self.rows.full:
            self.flush()

    def told_many(self, name: str, found: Found, arrays: list[Any]) -> None:
        """Of T updates at once."""
        one = self._optimizers.setdefault(name, Optimizer())
        steps = len(found.losses["loss"])
        if self._is_plain(one, name, found):
            self._check(one, found)
            self._stack(one, name, found)
            last = found.at(steps - 1)
            one.progress, one.arrays, one.loss = last.progress, arrays, last.losses["loss"]
            return
        for t in range(steps):
            self.told(name, found.at(t), arrays if t == steps - 1 else [])

    # What it is

    def _check(self, one: Optimizer, found: Found) -> None:
        """InputError for leaves that are new, or gone."""
        step = self.rows.step
        for stage, named in found.stages.items():
            if missing := one.form.get(stage, set()) - named.keys():
                raise InputError(
                    f"step {step}: {stage}, {min(missing)} is missing, the steps before had it"
                )
        for stage, how in (("params", "record(state)"), ("buffers", "record(..., buffers=...)")):
            for leaf in found.stages[stage].keys() - self._known[stage]:
                raise InputError(
                    f"step {step}: {stage}, {leaf} was not there before the first update: {how}"
                )
        one.form = {stage: set(named) for stage, named in found.stages.items()}

    def _kind(self, one: Optimizer, name: str, found: Found, arrays: list[Any]) -> str:
        """Whether it is an update. InputError for one that was told already, or comes too late."""
        now, before = found.progress, one.progress
        if now.updates is None or before is None or before.updates is None:
            if _same(arrays, one.arrays):
                raise InputError(
                    f"step {one.last} was recorded already: params are the very same arrays"
                )
        elif self._stands_still(one, name, found, arrays):
            return NONE
        if now.mini_step is not None:
            kind = self._micro_kind(one, found)
            if kind is not UPDATE:
                return kind
        rejected = now.finite is not None and not now.finite
        return NONE if rejected and self._left_all(found) else UPDATE

    def _stands_still(self, one: Optimizer, name: str, found: Found, arrays: list[Any]) -> bool:
        """Whether what `watch` counts says that an update was thrown away, and none was missed."""
        assert one.progress is not None
        count, before = int(found.progress.updates), int(one.progress.updates)
        if count == before:
            told = one.loss is not None
            if told and (_same(arrays, one.arrays) or found.losses["loss"] == one.loss):
                step = self.rows.step if one.micro else one.last
                raise InputError(
                    f"step {step} was recorded already: optimizer {name!r} is still at its update "
                    f"{count}"
                )
            return True
        if count > before + 1:
            raise InputError(
                f"step {self.rows.step}: {count - before - 1} updates of optimizer {name!r} were "
                f"missed: it is at its update {count}, the last one that was told is {before}"
            )
        if count < before:
            if count != 1:
                raise InputError(
                    f"step {self.rows.step}: optimizer {name!r} is at its update {count} again, "
                    f"the last one that was told is {before}"
                )
            one.renewed = True
            one.micro.clear()
        return False

    def _micro_kind(self, one: Optimizer, found: Found) -> str:
        """What a micro-step of MultiSteps is."""
        now = found.progress
        at, made = int(now.mini_step), int(now.gradient_step)
        before = None if one.renewed else one.progress
        if before is not None and before.mini_step is None:
            before = None
        if before is not None and (at, made) == (before.mini_step, before.gradient_step):
            return NONE  # should_skip_update_fn
        told = len(one.micro)
        unseen = at - 1 - told if at else 0
        if not at and before is None and now.updates is not None and not told:
            unseen = int(now.updates) - made
        elif not at and before is not None:
            unseen = int(before.mini_step) - told
        if unseen > 0:
            raise InputError(
                f"step {self.rows.step}: {unseen} micro-steps of MultiSteps were made before the "
                "recording began: begin it where an update is complete, by record(state)"
            )
        return MICRO if at else UPDATE if made else NONE

    def _left_all(self, found: Found) -> bool:
        params = found.stages["params"]
        return unchanged(params, {name: self.rows.last("params", name) for name in params})

    # Rows

    def _write(self, one: Optimizer, name: str, found: Found) -> None:
        rows, stages, micro = self.rows, dict(found.stages), one.micro
        if len(micro) > 1:
            given, raw = stages.get("grads", {}), stages.get("raw_grads", {})
            stages["raw_grads"] = given if found.mean_given else micro.grads(raw)
            stages["grads"] = stages["raw_grads"] if given is raw else given
        several = len(micro) > 1
        for losses in micro.losses if several else [found.losses]:
            for leaf, array in losses.items():
                if several or leaf != "loss":
                    rows.put("micro_losses", leaf, array.astype(self._metadata.dtype), more=True)
        for rng in micro.rngs if several else [stages["rng"]]:
            for leaf, array in rng.items():
                rows.put("rng", leaf, array, more=True)
        keep = self._keep
        for stage, leaves in found.before.items():
            for leaf, array in keep.of(leaves):
                if not rows.was(stage, leaf, array):
                    rows.put("before", f"{stage}/{leaf}", array)
        for leaf, array in keep.of(stages.get("raw_grads", {})) if keep.raw_grads else ():
            rows.put("raw_grads", leaf, array)
        for leaf, array in keep.of(stages.get("grads", {})):
            rows.given(leaf, array)
        self._put_numbers(one, name, found)
        for stage in ("opt_state", "buffers") if keep.opt_state else ("buffers",):
            for leaf, array in keep.of(stages[stage]):
                rows.put(stage, leaf, array)
        self._put_params(one, name, found)
        flags = {
            "changed_outside": int(rows.has("before") and not keep.leaps),
            "renewed": int(one.renewed),
            "skipped": one.skipped,
            name: one.updates + 1,
        }
        for flag, value in flags.items():
            if value:
                rows.put("update", flag, np.array(value))
        spread = rows.program.get("shards", {})
        rows.batch(micro.batch(spread) if several else found.batch, values=keep.values)
        one.last, one.updates, one.own = rows.step, one.updates + 1, found.own
        one.skipped, one.renewed, one.loss = 0, False, found.losses["loss"]
        loss = micro.loss() if several else float(found.losses["loss"])
        rows.finish(loss if found.loss_is_known else None)

    def _put_params(self, one: Optimizer, name: str, found: Found) -> None:
        """Its own; and of what it does not update, what has changed since, as nobody has told."""
        rows, own = self.rows, found.own
        others = {
            leaf for other in self._optimizers.values() if other is not one for leaf in other.own
        }
        for leaf, array in self._keep.of(found.stages["params"]):
            if leaf not in own:
                last = rows.last("params", leaf)
                if not unchanged({leaf: array}, {leaf: last}):
                    rows.put("before", f"params/{leaf}", array)
                if name != ONLY or leaf in others:
                    continue
            rows.put("params", leaf, array)

    def _put_numbers(self, one: Optimizer, name: str, found: Found) -> None:
        """Its hyper-parameters; such as differ between runs beside each other, all of them."""
        numbers = {}
        for key, array in found.numbers.items():
            if array.ndim:
                self.rows.put("hyper_parameters", prefix(name) + key, _decimal(array))
            else:
                numbers[prefix(name) + key] = float(_decimal(array))
        if numbers != one.numbers:
            one.numbers = numbers
        self.rows.hyper_parameters(one.numbers, name)

    # T rows at once

    def _is_plain(self, one: Optimizer, name: str, found: Found) -> bool:
        """Whether each of T is an update, and all that there is a row."""
        now, before, known = found.progress, one.progress, self._known["params"]
        if len(self._optimizers) > 1 or one.skipped or now.mini_step is not None:
            return False
        if now.finite is not None and not np.all(now.finite):
            return False
        if not known <= found.stages["params"].keys() or found.own != known:
            return False
        if now.updates is None:
            return True
        start = now.updates[0] - 1 if before is None or before.updates is None else before.updates
        return np.array_equal(now.updates, start + 1 + np.arange(len(now.updates)))

    def _stack(self, one: Optimizer, name: str, found: Found) -> None:
        losses, steps = found.losses["loss"], len(found.losses["loss"])
        stages: dict[str, Named] = dict(found.stages)
        inputs: dict[str, dict[int, np.ndarray]] = {}
        stages["batch"] = {}
        for leaf, array in found.batch.items():
            numbers = [fingerprint(batch) for batch in array]
            stages["batch"][leaf] = np.array(numbers, np.uint32)
            inputs[leaf] = dict(zip(numbers, array, strict=True))
        stages["update"] = {name: np.arange(one.updates + 1, one.updates + 1 + steps)}
        stages["hyper_parameters"] = {
            prefix(name) + key: _decimal(array) for key, array in found.numbers.items()
        }
        stages["micro_losses"] = {
            leaf: array.astype(self._metadata.dtype)
            for leaf, array in found.losses.items()
            if leaf != "loss"
        }
        self.flush()
        self._stream.add(self.rows.stacked(self._metadata, losses, stages, inputs))
        one.updates, one.last, one.own = one.updates + steps, self.rows.step - 1, found.own


def _same(one: list[Any], other: list[Any]) -> bool:
    """Whether two trees' arrays are the very same."""
    pairs = zip(one, other, strict=False)
    return bool(one) and len(one) == len(other) and all(a is b for a, b in pairs)


def _decimal(array: np.ndarray) -> np.ndarray:
    """Numbers as they were written: 0.1 in float32 is not 0.1 of PyTorch's, in double precision."""
    found = [float(str(number)) for number in array.reshape(-1)]
    return np.array(found, np.float64).reshape(array.shape)
