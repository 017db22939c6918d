"""The decoder: a Transformer encoder stack, masked to look only backwards.

Pre-norm blocks after GPT-2 (Radford et al. 2019), attention after Vaswani et al. 2017::

    ids (B, T) -> token + position embeddings (B, T, C)
               -> n_layers times: x + attention(norm(x)), then x + mlp(norm(x))
               -> norm -> times the token embeddings, transposed -> logits (B, T, V)

B is the batch, T the time (at most ``block_size``), C ``d_model``, H the heads, V the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from functools import partial
from typing import Any, cast

import torch
from torch import LongTensor, Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as every_module

from llm.config import ConfigError, ModelConfig
from llm.data import CharacterTokenizer
from llm.generate import Sampling, choose


class CausalSelfAttention(nn.Module):
    """Every position mixes the values of itself and of those before it."""

    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        self.n_heads, self.dropout = c.n_heads, c.dropout
        self.in_proj = nn.Linear(c.d_model, 3 * c.d_model, bias=c.bias)
        self.out_proj = nn.Linear(c.d_model, c.d_model, bias=c.bias)

    def forward(self, x: Tensor, past: Tensor | None = None) -> Tensor:
        """Map x (B, T, C) to (B, T, C); its keys and values end ``past`` (2, B, H, all, C / H)."""
        B, T, C = x.shape
        qkv = self.in_proj(x)  # (B, T, 3C)
        if past is None:
            q, k, v = (p.view(B, T, self.n_heads, -1).transpose(1, 2) for p in qkv.split(C, 2))
        else:
            qkv = qkv.view(B, T, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)  # (3, B, H, T, C / H)
            past.narrow(3, -T, T).copy_(qkv[1:])
            q, (k, v) = qkv[0], past.unbind()
        p = self.dropout if self.training else 0.0
        causal = T > 1  # one query may see all that is past; more of them start at position 0
        if q.dtype == torch.bfloat16 and q.device.type == "cpu":  # its backward is 2.6x slower
            with torch.autocast("cpu", enabled=False):
                q, k, v = q.float(), k.float(), v.float()
                y = F.scaled_dot_product_attention(q, k, v, None, p, causal)
        else:
            y = F.scaled_dot_product_attention(q, k, v, None, p, causal)
        return self.out_proj(y.transpose(1, 2).reshape(B, T, C))  # from (B, H, T, C / H)


class Block(nn.Module):
    """One layer; its members have the names of ``nn.TransformerEncoderLayer``."""

    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(c.d_model, bias=c.bias)
        self.self_attn = CausalSelfAttention(c)
        self.norm2 = nn.LayerNorm(c.d_model, bias=c.bias)
        self.linear1 = nn.Linear(c.d_model, 4 * c.d_model, bias=c.bias)
        self.linear2 = nn.Linear(4 * c.d_model, c.d_model, bias=c.bias)
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, x: Tensor, past: Tensor | None = None) -> Tensor:
        """Map x (B, T, C) to (B, T, C)."""
        x = x + self.dropout(self.self_attn(self.norm1(x), past))
        inner = F.gelu(self.linear1(self.norm2(x)))  # (B, T, 4C)
        return x + self.dropout(self.linear2(inner))


class GPTDecoder(nn.Module):
    """A causal language model whose head shares its weight with the token embedding."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if not config.vocab_size:
            raise ConfigError("vocab_size = 0: take tokenizer.vocab_size")
        self.config = config
        self.tokenizer: CharacterTokenizer | None = None  # set by train and load_checkpoint
        self.tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.positions = nn.Embedding(config.block_size, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.d_model, bias=config.bias)
        for name, weight in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(weight)
            elif weight.dim() > 1:  # the norms' weights stay 1
                writes = name.endswith(("out_proj.weight", "linear2.weight"))
                nn.init.normal_(
                    weight, 0, config.init_std * (config.residual_scale if writes else 1)
                )

    def forward(
        self, ids: Tensor, targets: Tensor | None = None, past: Tensor | None = None
    ) -> Tensor:
        """Return logits (B, T, V) for ids (B, T), or with targets (B, T) the mean loss in nats.

        The keys and values of ids end ``past``, (n_layers, 2, B, H, all, C / H), a part of
        ``new_past``: those before them are not computed again.
        """
        logits = F.linear(self.hidden(ids, past), self.tokens.weight)
        if targets is None:
            return logits
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def hidden(self, ids: Tensor, past: Tensor | None = None) -> Tensor:
        """Return what the head reads, (B, T, C)."""
        end = ids.size(1) if past is None else past.size(4)
        start = end - ids.size(1)
        if end > self.config.block_size or end > start + 1 > 1:
            advice = "shorten them, or use generate, whose window slides"
            raise ValueError(f"ids {start}..{end} overrun {self.config.block_size}: {advice}")
        x = self.tokens(ids) + self.positions(torch.arange(start, end, device=ids.device))
        x = self.dropout(x)  # (B, T, C)
        pasts = [None] * len(self.layers) if past is None else past
        for block, its_past in zip(self.layers, pasts, strict=True):
            x = block(x, its_past)
        return self.norm(x)

    def new_past(self, batch: int) -> Tensor:
        """Return room for the keys and values of a block, (n_layers, 2, B, H, block_size, C/H)."""
        c = self.config
        shape = (c.n_layers, 2, batch, c.n_heads, c.block_size, c.d_model // c.n_heads)
        return self.norm.weight.new_zeros(shape)

    def generate(
        self, ids: Tensor, max_new_tokens: int, temperature: float = 1.0, **sampling: Any
    ) -> LongTensor:
        """Continue ids (B, T) and return them with what follows, (B, T + new).

        Temperature 0 takes the likeliest token; ``top_k`` and ``top_p`` narrow the choice, ``seed``
        repeats it. It ends early once every row has met the string ``stop``; a row that met it
        first is filled with its last character. Past the block, the window slides.
        """
        new = self.stream(ids, max_new_tokens, temperature=temperature, **sampling)
        return cast("LongTensor", torch.stack([*ids.unbind(1), *new], dim=1))

    def stream(self, ids: Tensor, max_new_tokens: int, **sampling: Any) -> Iterator[Tensor]:
        """Yield the next token of every row, (B,), as it is drawn; options as in ``generate``.

        While the text fits in the block, a token costs one row of work: the keys and values of the
        earlier ones are kept. Past it every learned position shifts, so the last ``block_size``
        tokens are recomputed for each new one, as in nanoGPT.
        """
        (B, T), c, options = ids.shape, self.config, Sampling(**sampling)
        if not T or ids.min() < 0 or ids.max() >= c.vocab_size or max_new_tokens < 0:
            raise ValueError("give at least one id, all of the vocabulary, and no count below 0")
        if options.stop and not self.tokenizer:
            raise ValueError("a stop string needs the tokenizer: set model.tokenizer")
        stop = self.tokenizer.encode(options.stop) if options.stop and self.tokenizer else []
        seed = options.seed
        generator = None if seed is None else torch.Generator(ids.device).manual_seed(seed)
        text = torch.cat([ids, ids.new_zeros(B, max_new_tokens)], dim=1)  # (B, T + new)
        ended, start, was_training = [False] * B, 0, self.training
        self.eval()
        try:
            with torch.inference_mode():
                step, past = lighten(self), self.new_past(B)
            for end in range(T, T + max_new_tokens):
                with torch.inference_mode():  # not across the yield, where the caller's code runs
                    if end <= c.block_size:
                        logits = step(text[:, start:end], None, past.narrow(4, 0, end))
                    else:
                        logits = step(text[:, end - c.block_size : end])
                    text[:, end], start = choose(logits[:, -1], options, generator), end
                if stop:  # a row that has ended waits for the others, repeating its last character
                    text[torch.tensor(ended), end] = stop[-1]
                    tails = text[:, max(T, end + 1 - len(stop)) : end + 1].tolist()
                    ended = [old or tail == stop for old, tail in zip(ended, tails, strict=True)]
                yield text[:, end]
                if all(ended):
                    break
        finally:
            self.train(was_training)

    def to_encoder(self) -> nn.TransformerEncoder:
        """Return torch's own encoder with these layers; it wants embeddings and a causal mask."""
        c = self.config
        options = {"activation": F.gelu, "batch_first": True, "norm_first": True, "bias": c.bias}
        layer = nn.TransformerEncoderLayer(
            c.d_model, c.n_heads, 4 * c.d_model, c.dropout, **options
        )
        norm = nn.LayerNorm(c.d_model, bias=c.bias)
        encoder = nn.TransformerEncoder(layer, c.n_layers, norm, enable_nested_tensor=False)
        shared = {k: v for k, v in self.state_dict().items() if k.startswith(("layers.", "norm."))}
        encoder.load_state_dict({k.replace("in_proj.", "in_proj_"): v for k, v in shared.items()})
        return encoder

    def load_encoder(self, encoder: nn.TransformerEncoder) -> None:
        """Take over the layers and the last norm of an encoder of the same shape."""
        state = {k.replace("in_proj_", "in_proj."): v for k, v in encoder.state_dict().items()}
        self.load_state_dict(self.state_dict() | state)


def lighten(module: nn.Module) -> Any:
    """Return a function that does what calling the module does, without a module's overhead.

    Finding members and looking for hooks takes a third of a decoding step. Only plain modules are
    lightened: one that is hooked, parametrized, wrapped or of the caller's own class is called.
    """
    own, kind, light = vars(module), type(module), module
    names = ("forward_hooks", "forward_pre_hooks")
    hooked = any(own[f"_{name}"] or vars(every_module)[f"_global_{name}"] for name in names)
    if hooked or "forward" in own:
        return module
    if isinstance(module, nn.Linear) and kind is nn.Linear:  # and no subclass, such as LoRA's
        light = partial(F.linear, weight=module.weight, bias=module.bias)
    elif kind is nn.LayerNorm:
        values = {
            name: getattr(module, name) for name in ("normalized_shape", "weight", "bias", "eps")
        }
        light = partial(torch.layer_norm, **values)
    elif kind is nn.Dropout and not module.training:
        light = nn.Identity().forward
    elif kind is nn.ModuleList:
        light = [lighten(child) for child in module.children()]
    elif kind in {GPTDecoder, Block, CausalSelfAttention}:
        twin = copy(module)  # shares all, but finds its members at once
        vars(twin).update((name, lighten(child)) for name, child in module.named_children())
        light = twin.forward
    return light
