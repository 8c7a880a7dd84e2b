"""A small GPT: character by character it learns to count in words.

Mirror: torch_impl/nano_gpt.py
"""

import math

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import twinstep.jax.nn.functional as F
from twinstep.jax import nn
from twinstep.jax.layout import load_params, module_layout
from twinstep.jax.optim import adamw, clip_grad_norm, param_groups
from twinstep.jax.optim.lr_scheduler import lambda_lr
from twinstep.jax.watching import watch
from twinstep.problems.nets.nano_gpt import NanoGPT
from twinstep.problems.torch_loader import TorchDataLoader
from twinstep.problems.torch_random import TorchGenerator


class CausalSelfAttention(nn.Module):
    """Each token attends to itself and to those before it."""

    def __init__(self, width, heads, dropout):
        super().__init__()
        self.heads = heads
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)
        self.attn_dropout = nn.Dropout(dropout)
        self.resid_dropout = nn.Dropout(dropout)

    def forward(self, x):
        batch, tokens, width = x.shape
        qkv = self.c_attn(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = jnp.permute_dims(
            qkv, (2, 0, 3, 1, 4)
        )  # each (batch, heads, tokens, width of a head)
        att = (q @ jnp.swapaxes(k, -2, -1)) / math.sqrt(k.shape[-1])
        seen = jnp.tril(jnp.ones((tokens, tokens), bool))
        att = F.softmax(jnp.where(seen, att, -math.inf), dim=-1)
        y = self.attn_dropout(att) @ v
        y = jnp.permute_dims(y, (0, 2, 1, 3)).reshape(batch, tokens, width)
        return self.resid_dropout(self.c_proj(y))


class MLP(nn.Module):
    """Two linear layers with gelu between them, token by token."""

    def __init__(self, width, dropout):
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        return self.dropout(self.c_proj(F.gelu(self.c_fc(x))))


class Block(nn.Module):
    """Attention and MLP, each added to what it is given."""

    def __init__(self, width, heads, dropout):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = CausalSelfAttention(width, heads, dropout)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = MLP(width, dropout)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """Embeddings, blocks, and a head that is the embedding itself."""

    def __init__(self, problem: NanoGPT):
        super().__init__()
        width, dropout = problem.width, problem.dropout
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(problem.tokens, width),
                "wpe": nn.Embedding(problem.block_size, width),
                "drop": nn.Dropout(dropout),
                "h": nn.ModuleList(
                    [Block(width, problem.heads, dropout) for _ in range(problem.layers)]
                ),
                "ln_f": nn.LayerNorm(width),
            }
        )
        self.lm_head = nn.Linear(width, problem.tokens, bias=False)
        self.transformer["wte"].weight = self.lm_head.weight  # tied
        self.apply(self._init_weights)
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(parameter, 0.0, 0.02 / math.sqrt(2 * problem.layers))

    def _init_weights(self, module):
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, 0.0, 0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(self, tokens):
        places = jnp.arange(tokens.shape[1])
        x = self.transformer["wte"](tokens) + self.transformer["wpe"](places)
        x = self.transformer["drop"](x)
        for block in self.transformer["h"].children():
            x = block(x)
        return self.lm_head(self.transformer["ln_f"](x))


def next_token_loss(logits, y):
    """The cross entropy of every token's successor."""
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.reshape(-1))


def build(problem: NanoGPT):
    """The model, the loss, and the optimizer with its schedule, behind the clipping."""
    model = GPT(problem)
    load_params(model, problem.initial_params())  # PyTorch's draws
    shapes = {name: param.ndim for name, param in model.named_parameters()}
    groups = [
        {
            "params": [name for name, ndim in shapes.items() if ndim >= 2],
            "weight_decay": problem.weight_decay,
        },
        {"params": [name for name, ndim in shapes.items() if ndim < 2], "weight_decay": 0.0},
    ]
    updates = max(problem.total_steps, problem.epochs * problem.steps_per_epoch)
    rule = param_groups(
        groups,
        adamw,
        layout=module_layout(model),
        lr=lambda_lr(problem.learning_rate, problem.rate).tabulate(updates),
        betas=problem.betas,
    )
    optimizer = optax.chain(clip_grad_norm(problem.max_norm), watch("grads"), rule)
    return model, next_token_loss, optimizer


def init_state(model, optimizer):
    """What the first step is given: parameters, the optimizer's state, random numbers."""
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return params, optimizer.init(params), nnx.state(model, nnx.Not(nnx.Param))


def make_train_step(model, criterion, optimizer):
    """The step, compiled: (state, batch) -> (state, loss)."""
    graph = nnx.graphdef(model)

    def loss_fn(params, rest, x, y):
        model = nnx.merge(graph, params, rest, copy=True)
        return criterion(model(x), y), nnx.state(model, nnx.Not(nnx.Param))

    @jax.jit
    def train_step(state, batch):
        params, opt_state, rest = state
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, rest), grads = grad_fn(params, rest, *batch)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, rest), loss

    return train_step


def train(model, criterion, optimizer, batches, log=print):
    """The loop. batches: of each epoch what gives tokens x and y, both (N, block_size)"""
    train_step = make_train_step(model, criterion, optimizer)
    state = init_state(model, optimizer)
    for loader in batches:
        for i, batch in enumerate(loader):
            state, loss = train_step(state, batch)
            if (i + 1) % 10 == 0:
                log(f"Step [{i + 1}/{len(loader)}], Loss: {loss.item():.4f}")
    return state


def main():
    """Trains an epoch, and prints its lines."""
    problem = NanoGPT.from_flags()
    jax.config.update("jax_enable_x64", problem.dtype == "float64")
    nn.manual_seed(problem.seed)
    model, criterion, optimizer = build(problem)
    loader = TorchDataLoader(
        tuple(jnp.asarray(array) for array in problem.samples().values()),
        problem.batch_size,
        shuffle=True,
        generator=TorchGenerator(problem.seed),
    )
    train(model, criterion, optimizer, [loader] * problem.epochs)


if __name__ == "__main__":
    main()
