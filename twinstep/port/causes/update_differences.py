"""The known ways in which a port's optimizer differs from PyTorch's; each changes a rule."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from twinstep.port.causes.update_groups import groups_of
from twinstep.port.causes.update_optimizers import OTHERS
from twinstep.port.causes.update_steps import Rule
from twinstep.port.clipping import plainest
from twinstep.port.updates import Clipping, Updates


@dataclass(frozen=True)
class Difference:
    """One difference.

    kind, says: as `Cause` has them; what is solved for is said after
    changes: {number, form or "core": what it is instead}
    free: the number that is to be solved for; "": none
    values: numbers that were read off the updates
    alone: whether it is tried with no second difference: it is rare, or two already
    """

    kind: str
    says: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    free: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    alone: bool = False

    def touches(self, other: "Difference") -> bool:
        """Whether both change the same, so that they are no two differences."""
        return bool(self.changes.keys() & other.changes.keys()) or (
            self.free != "" and self.free == other.free
        )


_AT_BOUND = 3
"""So many entries are of one size, if they are clipped to it."""
_NO_MOMENTUM = {"momentum": 0.0, "nesterov": False}


def listed(words: Sequence[str]) -> str:
    """Names as a sentence has them, the first of many."""
    if len(words) > 4:
        return f"{', '.join(words[:3])} and {len(words) - 3} more"
    return ", ".join(words)


def differences(rule: Rule, updates: Updates, stood_still: list[int]) -> list[Difference]:
    """Those that may be told from a rule, one by one.

    Args:
        rule: PyTorch's.
        updates: The updates.
        stood_still: The updates that changed nothing.
    """
    every = [
        *_of_core(rule),
        *_of_decay(rule, [*updates.grads]),
        *_of_gradients(rule, updates),
        *_of_clipping(updates.clipping),
        *_of_own_leaves(updates),
        *_of_state(len(updates), stood_still),
        *_of_bound(updates),
        *_other_optimizers(rule),
    ]
    return [one for one in every if one.free or not _same(rule, one.changes)]


def partners(rule: Rule, other: Difference, known: Sequence[Difference]) -> list[Difference]:
    """The numbers that are another optimizer's alone, where a difference is one."""
    if "core" not in other.changes:
        return []
    there = {one.free for one in known}
    return [one for one in _of_core(rule.but(other.changes)) if one.free and one.free not in there]


def _same(rule: Rule, changes: Mapping[str, Any]) -> bool:
    """Whether changes leave a rule as it is."""
    there = {"core": rule.core, **rule.forms, **rule.numbers}
    return all(np.array_equal(np.unique(there[name]), [value]) for name, value in changes.items())


def _free(name: str) -> Difference:
    return Difference(f"another {name}", name, free=name)


def _of_core(rule: Rule) -> Iterator[Difference]:
    if rule.core in ("adam", "nadam", "radam", "rmsprop", "adagrad"):
        corrected = {"adam", "nadam", "radam"}
        yield Difference(
            "eps inside the root", "eps is inside the root", {"eps_form": "inside the root"}
        )
        yield Difference(
            "eps outside the root", "eps is added to the root", {"eps_form": "outside"}
        )
        yield Difference(
            "eps as a maximum",
            "the root is at least eps, not eps added to it",
            {"eps_form": "maximum"},
        )
        if rule.core in corrected:
            for form in ("before the correction", "inside the root, before the correction"):
                where = form.replace("before", "added before") if form[0] == "b" else form
                yield Difference(f"eps {where}", f"eps is {where} of the bias", {"eps_form": form})
    if rule.core == "adam":
        yield from _of_adam(rule)
    if rule.core in ("adam", "nadam", "radam", "adamax", "lion", "yogi", "novograd"):
        yield from (_free("betas.0"), _free("betas.1"))
    if rule.core == "adamax":
        yield Difference(
            "eps outside the maximum",
            "eps is added to the maximum",
            {"eps_form": "outside the maximum"},
        )
        yield Difference("no bias correction", "the bias is not corrected", {"corrected": "none"})
    if rule.core == "nadam":
        yield _free("momentum_decay")
    if rule.core == "radam":
        yield Difference(
            "rectified from 5 on", "the length may be 5, as in optax", {"threshold": 5 - 1e-12}
        )
    if rule.core == "rmsprop":
        yield from _of_rmsprop()
    if rule.core == "adagrad":
        yield from (_free("lr_decay"), _free("initial"))
    if rule.core == "adadelta":
        yield _free("rho")
    if rule.core == "sgd":
        yield from _of_sgd(rule)
    elif rule.core == "signed":
        yield _free("momentum")
    elif rule.core != "lion":
        yield _free("eps")


def _of_adam(rule: Rule) -> Iterator[Difference]:
    missing = {"none": "no bias correction", "second": "first moment's bias correction missing"}
    missing["first"] = "second moment's bias correction missing"
    for form, kind in missing.items():
        yield Difference(kind, kind, {"corrected": form})
    yield Difference(
        "bias correction one update ahead", "the bias correction counts from 2", {"ahead": 1}
    )
    yield Difference("eps_root", "eps is inside the root and beside it", {"eps_root": 1e-8})
    yield Difference("eps_root", "eps_root", free="eps_root")
    yield Difference("amsgrad missing", "amsgrad is off", {"amsgrad": ""})
    yield Difference("amsgrad added", "amsgrad is on", {"amsgrad": "torch"})
    yield Difference(
        "amsgrad over corrected moments",
        "amsgrad's maximum is over the bias-corrected second moments, as in optax",
        {"amsgrad": "corrected"},
    )
    yield Difference(
        "nesterov added", "the first moment is Nesterov's (optax's)", {"nesterov": True}
    )
    for form, which in (("both", "both moments"), ("first", "the first"), ("second", "the second")):
        says = f"of the moments {'both' if form == 'both' else which} are sums, not averages"
        yield Difference("moments are sums", says, {"sums": form}, alone=True)
    yield from _of_moment_dtype("the first moment", "mu_dtype")


def _of_moment_dtype(moment: str, option: str) -> Iterator[Difference]:
    for kind in ("bfloat16", "float16", "float32"):
        says = f"{moment} is kept in {kind} ({option})"
        yield Difference("moments in another dtype", says, {"moment_dtype": kind}, alone=True)


def _of_rmsprop() -> Iterator[Difference]:
    yield from (_free("alpha"), _free("momentum"))
    yield Difference("lr inside the momentum", "the momentum sums lr g", {"lr_inside": True})
    yield Difference("initial second moment", "the second moment starts at 1", {"initial": 1.0})
    yield Difference("centered added", "the second moment is centered", {"centered": True})
    yield Difference("centered missing", "the second moment is not centered", {"centered": False})
    yield Difference("nesterov added", "the momentum is Nesterov's", {"nesterov": True})
    yield Difference(
        "bias correction added", "the second moment's bias is corrected", {"debiased": True}
    )


def _of_sgd(rule: Rule) -> Iterator[Difference]:
    yield from (_free("momentum"), _free("dampening"))
    averaged = {"first": "averaged"}
    nesterov = {"nesterov": True}
    yield Difference("momentum missing", "there is no momentum", {"momentum": 0.0})
    if not np.any(rule.numbers["momentum"]):
        yield Difference("nesterov momentum added", "Nesterov's momentum", nesterov, "momentum")
        yield Difference("averaged momentum added", "averaged momentum", averaged, "momentum")
        return
    yield Difference("nesterov added", "the momentum is Nesterov's", nesterov)
    yield Difference("nesterov missing", "the momentum is not Nesterov's", {"nesterov": False})
    yield Difference("dampening missing", "nothing is damped", {"dampening": 0.0})
    yield Difference("first buffer damped", "the first buffer is damped too", {"first": "damped"})
    yield Difference(
        "momentum averaged", "the momentum averages: new gradients count (1 - momentum)", averaged
    )
    yield Difference(
        "momentum averaged and debiased",
        "the momentum averages, and its bias is corrected",
        averaged | {"debiased": True},
    )
    yield Difference("lr inside the momentum", "the momentum sums lr g", {"lr_inside": True})
    yield from _of_moment_dtype("the momentum", "accumulator_dtype")


_DECAYS = {
    "coupled": ("coupled decay", "the decay is part of the gradient"),
    "decoupled": ("decoupled decay", "the decay is apart from the gradient, times lr"),
    "unscaled": ("decay not scaled by lr", "the decay is apart from the gradient, not times lr"),
    "first lr": ("decay not scheduled", "the decay is apart from the gradient, times the first lr"),
    "after": ("decay after the update", "the decay is of the updated parameters, times lr"),
}


def _of_decay(rule: Rule, names: list[str]) -> Iterator[Difference]:
    decay = rule.numbers["weight_decay"]
    largest = float(decay.max())
    if largest == 0:
        for form in ("coupled", "decoupled", "unscaled"):
            kind, says = _DECAYS[form]
            yield Difference(
                f"{kind} added",
                f"weight_decay, where there is none: {says}",
                {"decay": form},
                "weight_decay",
            )
        return
    for form, (kind, says) in _DECAYS.items():
        yield Difference(kind, says, {"decay": form})
    yield Difference("no decay", "nothing decays", {"weight_decay": 0.0})
    by_leaf = np.broadcast_to(decay.max((0, 1)), len(names))
    without = [name for name, one in zip(names, by_leaf, strict=True) if one == 0]
    if without:
        says = f"all leaves decay, by {largest:g}, those too that should not: {listed(without)}"
        yield Difference("decay on all leaves", says, {"weight_decay": largest})
    yield _free("weight_decay")


def _of_gradients(rule: Rule, updates: Updates) -> Iterator[Difference]:
    sign = not rule.forms["maximize"]
    yield Difference("other sign", "the gradient's sign is another (maximize)", {"maximize": sign})
    if updates.passes > 1:
        yield Difference(
            "gradients summed",
            f"the gradients of {updates.passes} passes are summed, not averaged",
            {"factor": float(updates.passes)},
        )
        yield Difference(
            "gradients divided twice",
            f"the gradients are divided by {updates.passes} once more",
            {"factor": 1 / updates.passes},
        )
    yield Difference("gradients scaled", "the gradients are multiplied by", free="factor")


def _of_clipping(clipping: Clipping | None) -> Iterator[Difference]:
    limited = {"clip": "norm", "clip_type": 2.0}
    yield Difference(
        "adaptive clipping",
        "gradients are clipped unit by unit to a part of the parameters' norm, as "
        "optax.adaptive_grad_clip does:",
        {"clip": "adaptive", "clip_after_decay": False},
        "limit",
    )
    if clipping is None:
        for added, where in ((1e-6, ""), (0.0, ", as optax does,")):
            eps = limited | {"clip_eps": added}
            yield Difference(
                "clipping added", f"gradients are clipped{where} to norm", eps, "limit"
            )
            yield Difference(
                "clipping by leaf added",
                f"each leaf's gradient is clipped{where} to norm",
                eps | {"clip_scope": "leaf"},
                "limit",
            )
        yield Difference(
            "clipping by value added",
            "gradients are clipped to values of",
            {"clip": "value"},
            "limit",
        )
        return
    yield Difference("no clipping", "gradients are not clipped", {"clip": ""})
    yield Difference(
        "clipping by value", "gradients are clipped by value", {"clip": "value", "clip_type": 2.0}
    )
    if clipping.kind == "value":
        yield Difference("clipping by norm", "gradients are clipped by norm", limited)
    yield Difference("another clipping limit", "gradients are clipped to", free="limit")
    for kind, word in ((1.0, "1"), (2.0, "2"), (math.inf, "inf")):
        yield Difference(
            f"clipping by the {word}-norm",
            f"gradients are clipped by their {word}-norm",
            {"clip": "norm", "clip_type": kind},
        )
    if clipping.kind == "norm":
        yield Difference(
            "clipping by leaf",
            "each leaf's gradient is clipped by its own norm",
            {"clip_scope": "leaf"},
        )
        yield Difference(
            "clipping without 1e-6",
            "gradients are clipped to max_norm itself, as in optax",
            {"clip_eps": 0.0},
        )
        if clipping.norm_type == 2:
            yield Difference(
                "clipping after the decay",
                "gradients are clipped with the decay in them",
                {"clip_after_decay": True},
            )
        for form, said in (
            ("norm", "the update is"),
            ("norm before lr", "the update is, before lr,"),
        ):
            yield Difference(
                "the update clipped",
                f"{said} clipped by norm, not the gradient",
                {"clip": "", "update_clip": form},
            )


def _of_own_leaves(updates: Updates) -> Iterator[Difference]:
    """Clipping leaf by leaf where the port's leaves are not PyTorch's."""
    if groups_of(updates)["leaf"].are_leaves:
        return
    own = {"clip": "norm", "clip_type": 2.0, "clip_scope": "own leaf", "clip_after_decay": False}
    if updates.clipping is None:
        says = "each of the port's own leaves has its gradient clipped to norm"
        for added in (1e-6, 0.0):
            yield Difference("clipping by leaf added", says, own | {"clip_eps": added}, "limit")
    elif updates.clipping.kind == "norm":
        says = "each leaf's gradient is clipped by its own norm, of the port's own leaves"
        yield Difference("clipping by leaf", says, own)


def _of_state(count: int, stood_still: list[int]) -> Iterator[Difference]:
    for t in range(1, count):
        yield Difference("state reset", f"the optimizer's state is new at update {t}", {"reset": t})
    for t in stood_still:
        yield Difference(
            "update skipped", f"update {t} is skipped, and its gradient forgotten", {"skip": t}
        )
    yield Difference(
        "averaged parameters stored",
        "what is stored is the parameters' moving average, decay",
        {"stored": "average"},
        "average",
    )
    for period in (2, 3, 4, 5, 6, 8, 10):
        if period <= count:
            yield Difference(
                "Lookahead",
                f"every {period} updates parameters go back toward older ones (Lookahead), by",
                {"stored": "lookahead", "period": period},
                "average",
            )


def _of_bound(updates: Updates) -> Iterator[Difference]:
    """Parameters that are clipped after each update: then the largest are all of one size."""
    sizes = [np.abs(np.asarray(leaf[1:], float)).reshape(-1) for leaf in updates.params.values()]
    largest = max(float(size.max(initial=0.0)) for size in sizes)
    eps = 4 * max(np.finfo(leaf.dtype).eps for leaf in updates.params.values())
    if sum(int((size >= largest * (1 - eps)).sum()) for size in sizes) >= _AT_BOUND:
        bound = plainest(largest, eps)
        says = f"parameters are clipped to {bound:.12g} after each update"
        yield Difference("parameters clipped", says, {"bound": bound}, values={"bound": bound})


def _other_optimizers(rule: Rule) -> Iterator[Difference]:
    """Others, with their own defaults or with the numbers that are there."""
    for name, core, changes in OTHERS:
        given = ", ".join(f"{k} {v}" for k, v in changes.items() if isinstance(v, float))
        kind, says = f"another optimizer: {name}", f"the optimizer is {name}"
        says += f" ({given})" if given else ""
        if core != rule.core:
            own = "weight_decay" in changes
            yield Difference(kind, says, {"core": core, **_NO_MOMENTUM, **changes}, alone=own)
            if core == "rmsprop" and np.any(rule.numbers["momentum"]):
                yield Difference(kind, f"{says}, with momentum", {"core": core, **changes})
        # else it is a difference of the same optimizer, named above
        elif changes.keys() - {"momentum", "nesterov", "amsgrad", "alpha", "decay", "weight_decay"}:
            yield Difference(kind, says, {"core": core, **changes})
