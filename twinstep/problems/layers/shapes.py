"""The parameters that layers of torch.nn have: {name: shape}, as their state_dicts have them."""

Shapes = dict[str, tuple[int, ...]]


def affine(outputs: int, *inputs: int, bias: bool = True) -> Shapes:
    """Of a linear layer or a convolution.

    Args:
        outputs: Output features or channels.
        inputs: Input features; or channels a group and the kernel's sizes.
        bias: Whether there is one.

    Returns:
        {name: shape}
    """
    return {"weight": (outputs, *inputs)} | ({"bias": (outputs,)} if bias else {})


def transposed(inputs: int, outputs: int, *kernel: int) -> Shapes:
    """Of a transposed convolution.

    Args:
        inputs, outputs: Channels.
        kernel: Its sizes.

    Returns:
        {name: shape}
    """
    return {"weight": (inputs, outputs, *kernel), "bias": (outputs,)}


def norm(*size: int) -> Shapes:
    """Of a norm with weight and bias.

    Args:
        size: Of each.

    Returns:
        {name: shape}
    """
    return {"weight": size, "bias": size}


def cell(gates: int, inputs: int, hidden: int, suffix: str = "") -> Shapes:
    """Of a recurrent cell, or a layer in one direction.

    Args:
        gates: 1, 3 of a GRU, 4 of an LSTM.
        inputs, hidden: Its sizes.
        suffix: Behind each name.

    Returns:
        {name: shape}
    """
    rows = gates * hidden
    return {
        f"weight_ih{suffix}": (rows, inputs),
        f"weight_hh{suffix}": (rows, hidden),
        f"bias_ih{suffix}": (rows,),
        f"bias_hh{suffix}": (rows,),
    }


def recurrent(
    gates: int, inputs: int, hidden: int, layers: int = 1, bidirectional: bool = False
) -> Shapes:
    """Of a recurrent net.

    Args:
        gates, inputs, hidden: As of a cell.
        layers: How many.
        bidirectional: Whether each is there for both directions.

    Returns:
        {name: shape}
    """
    found: Shapes = {}
    for layer in range(layers):
        for suffix in ("", "_reverse")[: 1 + bidirectional]:
            found |= cell(gates, inputs, hidden, f"_l{layer}{suffix}")
        inputs = hidden * (1 + bidirectional)
    return found


def attention(width: int) -> Shapes:
    """Of multi-head attention.

    Args:
        width: Its embed_dim.

    Returns:
        {name: shape}
    """
    return {
        "in_proj_weight": (3 * width, width),
        "in_proj_bias": (3 * width,),
        **under("out_proj", affine(width, width)),
    }


def transformer_layer(width: int, inner: int, decoder: bool = False) -> Shapes:
    """Of a layer of a Transformer.

    Args:
        width, inner: Its d_model and dim_feedforward.
        decoder: Whether it attends to what an encoder gives, too.

    Returns:
        {name: shape}
    """
    found = under("self_attn", attention(width))
    found |= under("multihead_attn", attention(width)) if decoder else {}
    found |= under("linear1", affine(inner, width)) | under("linear2", affine(width, inner))
    for i in range(2 + decoder):
        found |= under(f"norm{i + 1}", norm(width))
    return found


def under(name: str, shapes: Shapes) -> Shapes:
    """A layer's parameters in another one.

    Args:
        name: Where it is.
        shapes: Of its parameters.

    Returns:
        {name: shape}
    """
    return {f"{name}.{key}": shape for key, shape in shapes.items()}
