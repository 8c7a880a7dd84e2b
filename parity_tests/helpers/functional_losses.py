"""torch.nn.functional's losses: calls of each, what is refused, and what JAX has for it."""

from helpers.kit_parity import Case, Port

CASES: dict[str, list[Case]] = {}
ERRORS: dict[str, list[Case]] = {}
PORTS: dict[str, Port] = {}
