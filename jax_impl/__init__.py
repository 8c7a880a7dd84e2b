"""The JAX side: one file an example, explicit gradients and optax updates in compiled loops.

Beside the examples stands the kit: `state`, `recording`, `replay`, `conversion`, `devices`,
`layers`, `losses`, `optimizers`, `schedules`. Nothing here imports PyTorch.
"""

import os

# PyTorch computes beside JAX on the same GPU, and several examples may: JAX takes memory as it
# needs it, and not three quarters of all there is when it starts.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

# XLA runs a small loop as one compiled function instead of one dispatch an operation: a scan over
# the steps of a small model is 4 to 16 times as fast. Read when JAX first asks for a device.
_OPTION = "xla_cpu_small_while_loop_byte_threshold"
_flags = os.environ.get("XLA_FLAGS", "")
if "xla_backend_extra_options" not in _flags:
    os.environ["XLA_FLAGS"] = f"{_flags} --xla_backend_extra_options={_OPTION}=1000000000".strip()
