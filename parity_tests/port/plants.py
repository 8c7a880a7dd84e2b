"""The table of planted faults. Those of Equinox's port need Equinox."""

import importlib.util

from port import (
    plants_adamw,
    plants_attention,
    plants_batch_norm,
    plants_conv,
    plants_gru,
    plants_momentum,
    plants_transformer,
)
from port.planting import Plant

PLANTS: list[Plant] = [
    *plants_batch_norm.PLANTS,
    *plants_conv.PLANTS,
    *plants_adamw.PLANTS,
    *plants_attention.PLANTS,
    *plants_transformer.PLANTS,
    *plants_momentum.PLANTS,
    *plants_gru.PLANTS,
]
if importlib.util.find_spec("equinox"):
    from port import plants_equinox

    PLANTS += plants_equinox.PLANTS
