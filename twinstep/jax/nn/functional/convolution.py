"""torch.nn.functional's convolutions: channels first, kernels as PyTorch keeps them."""

import jax
import jax.numpy as jnp

from twinstep.errors import InputError
from twinstep.jax.nn.functional.windows import Sizes, per_axis

__all__ = [
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
]


def conv1d(
    input: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> jax.Array:
    """1-D convolution, that is cross-correlation.

    Args:
        input: (N, C, L) or (C, L).
        weight, bias: (O, C / groups, k) and (O,), of input's dtype; the bias may be None.
        stride, dilation: A number, or one for each axis.
        padding: Zeros on either side, numbers; "valid": none; "same": what keeps the size.
        groups: Into how many parts the channels are split.

    Returns:
        (N, O, ...) or (O, ...).

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import conv1d
        >>> x, weight = jnp.ones((1, 2, 5)), jnp.ones((4, 1, 3))
        >>> conv1d(x, weight, padding="same", groups=2).shape
        (1, 4, 5)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv1d.html
    """
    return _convolved("conv1d", 1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> jax.Array:
    """2-D convolution, that is cross-correlation.

    Args:
        input: (N, C, H, W) or (C, H, W).
        weight, bias: (O, C / groups, kH, kW) and (O,), of input's dtype; the bias may be None.
        stride, dilation: A number, or one for each axis.
        padding: Zeros on either side, numbers; "valid": none; "same": what keeps the size.
        groups: Into how many parts the channels are split.

    Returns:
        (N, O, ...) or (O, ...).

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import conv2d
        >>> x, weight = jnp.ones((1, 2, 5, 5)), jnp.ones((4, 1, 3, 3))
        >>> conv2d(x, weight, padding="same", groups=2).shape
        (1, 4, 5, 5)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv2d.html
    """
    return _convolved("conv2d", 2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> jax.Array:
    """3-D convolution, that is cross-correlation.

    Args:
        input: (N, C, D, H, W) or (C, D, H, W).
        weight, bias: (O, C / groups, kD, kH, kW) and (O,), of input's dtype; the bias may be None.
        stride, dilation: A number, or one for each axis.
        padding: Zeros on either side, numbers; "valid": none; "same": what keeps the size.
        groups: Into how many parts the channels are split.

    Returns:
        (N, O, ...) or (O, ...).

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import conv3d
        >>> x, weight = jnp.ones((1, 2, 5, 5, 5)), jnp.ones((4, 1, 3, 3, 3))
        >>> conv3d(x, weight, padding="same", groups=2).shape
        (1, 4, 5, 5, 5)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv3d.html
    """
    return _convolved("conv3d", 3, input, weight, bias, stride, padding, dilation, groups)


def conv_transpose1d(
    input: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> jax.Array:
    """1-D transposed convolution: what the gradient of `conv1d` does to its output.

    Args:
        input: (N, C, L) or (C, L).
        weight, bias: (C, O / groups, k) and (O,), of input's dtype; the bias may be None.
        stride, dilation: Of that convolution, a number or one for each axis.
        padding: Of that convolution: what is cut off on either side.
        output_padding: What is added at the end, less than the stride or the dilation.
        groups: Into how many parts the channels are split.

    Returns:
        (N, O, ...) or (O, ...).

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import conv_transpose1d
        >>> x, weight = jnp.ones((1, 2, 4)), jnp.ones((2, 1, 3))
        >>> conv_transpose1d(x, weight, stride=2, padding=1, output_padding=1, groups=2).shape
        (1, 2, 8)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv_transpose1d.html
    """
    return _transposed(
        "conv_transpose1d",
        1,
        input,
        weight,
        bias,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
    )


def conv_transpose2d(
    input: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> jax.Array:
    """2-D transposed convolution: what the gradient of `conv2d` does to its output.

    Args:
        input: (N, C, H, W) or (C, H, W).
        weight, bias: (C, O / groups, kH, kW) and (O,), of input's dtype; the bias may be None.
        stride, dilation: Of that convolution, a number or one for each axis.
        padding: Of that convolution: what is cut off on either side.
        output_padding: What is added at the end, less than the stride or the dilation.
        groups: Into how many parts the channels are split.

    Returns:
        (N, O, ...) or (O, ...).

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import conv_transpose2d
        >>> x, weight = jnp.ones((1, 2, 4, 4)), jnp.ones((2, 1, 3, 3))
        >>> conv_transpose2d(x, weight, stride=2, padding=1, output_padding=1, groups=2).shape
        (1, 2, 8, 8)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv_transpose2d.html
    """
    return _transposed(
        "conv_transpose2d",
        2,
        input,
        weight,
        bias,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
    )


def conv_transpose3d(
    input: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> jax.Array:
    """3-D transposed convolution: what the gradient of `conv3d` does to its output.

    Args:
        input: (N, C, D, H, W) or (C, D, H, W).
        weight, bias: (C, O / groups, kD, kH, kW) and (O,), of input's dtype; the bias may be None.
        stride, dilation: Of that convolution, a number or one for each axis.
        padding: Of that convolution: what is cut off on either side.
        output_padding: What is added at the end, less than the stride or the dilation.
        groups: Into how many parts the channels are split.

    Returns:
        (N, O, ...) or (O, ...).

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import conv_transpose3d
        >>> x, weight = jnp.ones((1, 2, 4, 4, 4)), jnp.ones((2, 1, 3, 3, 3))
        >>> conv_transpose3d(x, weight, stride=2, padding=1, output_padding=1, groups=2).shape
        (1, 2, 8, 8, 8)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv_transpose3d.html
    """
    return _transposed(
        "conv_transpose3d",
        3,
        input,
        weight,
        bias,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
    )


def _convolved(
    name: str,
    rank: int,
    input: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None,
    stride: Sizes,
    padding: Sizes | str,
    dilation: Sizes,
    groups: int,
) -> jax.Array:
    input, weight = jnp.asarray(input), jnp.asarray(weight)
    steps = per_axis(name, rank, "stride", stride)
    spread = per_axis(name, rank, "dilation", dilation)
    _check(name, rank, input, weight, groups)
    channels = weight.shape[1] * groups
    if input.shape[-rank - 1] != channels or weight.shape[0] % groups or not weight.shape[0]:
        raise InputError(
            f"{name}: input is of shape {input.shape} and weight of {weight.shape}, expected "
            f"{channels} channels of input and a multiple of {groups} of output, for {groups} "
            "groups"
        )
    spans = [d * (k - 1) for d, k in zip(spread, weight.shape[2:], strict=True)]
    edges = _edges(name, rank, padding, spans, steps)
    for size, (low, high), span in zip(input.shape[-rank:], edges, spans, strict=True):
        if size + low + high <= span:
            raise InputError(
                f"{name}: input is of shape {input.shape} and weight of {weight.shape}, expected a "
                f"kernel no larger than the padded input: {span + 1} against {size + low + high}"
            )
    out = jax.lax.conv_general_dilated(
        input if input.ndim == rank + 2 else input[None],
        weight,
        steps,
        edges,
        rhs_dilation=spread,
        feature_group_count=groups,
    )
    return _with_bias(name, out if input.ndim == rank + 2 else out[0], bias, rank)


def _edges(
    name: str, rank: int, padding: Sizes | str, spans: list[int], steps: tuple[int, ...]
) -> list[tuple[int, int]]:
    """How many zeros there are before and after each axis."""
    if padding == "valid":
        return [(0, 0)] * rank
    if padding == "same":
        if max(steps) > 1:
            raise InputError(f"{name}: stride is {steps}, expected 1 with padding 'same'")
        return [(span // 2, span - span // 2) for span in spans]
    return [(p, p) for p in per_axis(name, rank, "padding", padding, 0)]


def _transposed(
    name: str,
    rank: int,
    input: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None,
    stride: Sizes,
    padding: Sizes,
    output_padding: Sizes,
    groups: int,
    dilation: Sizes,
) -> jax.Array:
    input, weight = jnp.asarray(input), jnp.asarray(weight)
    steps = per_axis(name, rank, "stride", stride)
    cut = per_axis(name, rank, "padding", padding, 0)
    more = per_axis(name, rank, "output_padding", output_padding, 0)
    spread = per_axis(name, rank, "dilation", dilation)
    _check(name, rank, input, weight, groups)
    channels, kernel = weight.shape[0], weight.shape[2:]
    if input.shape[-rank - 1] != channels or channels % groups:
        raise InputError(
            f"{name}: input is of shape {input.shape} and weight of {weight.shape}, expected "
            f"{channels} channels of input, in {groups} groups"
        )
    if any(m >= max(s, d) for m, s, d in zip(more, steps, spread, strict=True)):
        raise InputError(
            f"{name}: output_padding is {output_padding}, expected less than stride {stride} or "
            f"dilation {dilation}"
        )
    spans = [d * (k - 1) for d, k in zip(spread, kernel, strict=True)]
    edges = [(span - p, span - p + m) for span, p, m in zip(spans, cut, more, strict=True)]
    for size, step, (low, high), span in zip(input.shape[-rank:], steps, edges, spans, strict=True):
        if (length := (size - 1) * step + 1 + low + high - span) < 1:
            raise InputError(
                f"{name}: padding is {padding}, expected one that leaves some output, not {length}"
            )
    # (groups, C / groups, O / groups, ...) to (O, C / groups, ...), every axis from its end
    parts = weight.reshape(groups, channels // groups, *weight.shape[1:]).swapaxes(1, 2)
    turned = jnp.flip(parts.reshape(-1, channels // groups, *kernel), range(2, rank + 2))
    out = jax.lax.conv_general_dilated(
        input if input.ndim == rank + 2 else input[None],
        turned,
        (1,) * rank,
        edges,
        lhs_dilation=steps,
        rhs_dilation=spread,
        feature_group_count=groups,
    )
    return _with_bias(name, out if input.ndim == rank + 2 else out[0], bias, rank)


def _with_bias(name: str, out: jax.Array, bias: jax.Array | None, rank: int) -> jax.Array:
    if bias is None:
        return out
    bias, channels = jnp.asarray(bias), out.shape[-rank - 1]
    if bias.shape != (channels,) or bias.dtype != out.dtype:
        raise InputError(
            f"{name}: bias is {bias.dtype}{bias.shape}, expected {out.dtype}({channels},)"
        )
    return out + bias.reshape(-1, *[1] * rank)


def _check(name: str, rank: int, input: jax.Array, weight: jax.Array, groups: int) -> None:
    if input.ndim not in (rank + 1, rank + 2) or weight.ndim != rank + 2:
        raise InputError(
            f"{name}: input is of shape {input.shape} and weight of {weight.shape}, expected "
            f"(N, C, ...) or (C, ...) and (O, C, ...), with {rank} axes more"
        )
    if input.dtype != weight.dtype:
        raise InputError(f"{name}: weight is {weight.dtype}, expected input's {input.dtype}")
    if not isinstance(groups, int) or groups < 1:
        raise InputError(f"{name}: groups is {groups!r}, expected an integer from 1 on")
