"""The decoder: a Transformer encoder stack, masked to look only backwards.

Pre-norm blocks after GPT-2 (Radford et al. 2019), attention after Vaswani et al. 2017::

    ids (B, T) -> token + position embeddings (B, T, C)
               -> n_layers times: x + attention(norm(x)), then x + mlp(norm(x))
               -> norm -> times the token embeddings, transposed -> logits (B, T, V)

B is the batch, T the time (at most ``block_size``), C ``d_model``, H the heads, V the vocabulary.
Layers are called by ``.forward``: calling the modules would cost a quarter of a decoding step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import LongTensor, Tensor, nn
from torch.nn import functional as F

from llm.config import ConfigError, ModelConfig
from llm.data import CharacterTokenizer
from llm.generate import Sampling, stream


class CausalSelfAttention(nn.Module):
    """Every position mixes the values of itself and of those before it."""

    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        self.n_heads, self.dropout = c.n_heads, c.dropout
        self.in_proj = nn.Linear(c.d_model, 3 * c.d_model, bias=c.bias)
        self.out_proj = nn.Linear(c.d_model, c.d_model, bias=c.bias)

    def forward(self, x: Tensor, past: Tensor | None = None, start: int = 0) -> Tensor:
        """Map x (B, T, C) to (B, T, C); write keys and values into ``past`` from ``start`` on."""
        B, T, C = x.shape
        qkv = self.in_proj.forward(x)  # (B, T, 3C)
        if past is None:
            q, k, v = (p.view(B, T, self.n_heads, -1).transpose(1, 2) for p in qkv.split(C, 2))
        else:  # (2, B, H, block_size, C / H)
            qkv = qkv.view(B, T, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
            past[:, :, :, start : start + T] = qkv[1:]
            q, (k, v) = qkv[0], past[:, :, :, : start + T].unbind()
        p = self.dropout if self.training else 0.0
        if q.dtype == torch.bfloat16 and q.device.type == "cpu":  # its backward is 2.6x slower
            with torch.autocast("cpu", enabled=False):
                q, k, v = q.float(), k.float(), v.float()
                y = F.scaled_dot_product_attention(q, k, v, None, p, is_causal=True)
        else:  # one query (T = 1) may see all that is past; more of them start at position 0
            y = F.scaled_dot_product_attention(q, k, v, None, p, is_causal=T > 1)
        return self.out_proj.forward(
            y.transpose(1, 2).reshape(B, T, C)
        )  # (B, H, T, C / H) -> (B, T, C)


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

    def forward(self, x: Tensor, past: Tensor | None = None, start: int = 0) -> Tensor:
        """Map x (B, T, C) to (B, T, C)."""
        drop = self.dropout.forward if self.training else _same
        x = x + drop(self.self_attn.forward(self.norm1.forward(x), past, start))
        inner = F.gelu(self.linear1.forward(self.norm2.forward(x)))  # (B, T, 4C)
        return x + drop(self.linear2.forward(inner))


def _same(x: Tensor) -> Tensor:
    return x


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
                scale = config.residual_scale if writes else 1.0
                nn.init.normal_(weight, 0.0, config.init_std * scale)

    def forward(self, ids: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return logits (B, T, V) for ids (B, T), or with targets (B, T) the mean loss in nats."""
        logits = F.linear(self.hidden(ids), self.tokens.weight)
        if targets is None:
            return logits
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def decode(self, ids: Tensor, past: Tensor, start: int) -> Tensor:
        """Return the logits (B, V) after ids (B, T), which follow the ``start`` ids in the past."""
        return F.linear(self.hidden(ids, past, start)[:, -1], self.tokens.weight)

    def hidden(self, ids: Tensor, past: Tensor | None = None, start: int = 0) -> Tensor:
        """Return what the head reads, (B, T, C), for ids (B, T) from position ``start`` on."""
        end = start + ids.size(1)
        if end > self.config.block_size or end > start + 1 > 1:
            advice = "shorten them, or use generate, whose window slides"
            raise ValueError(f"ids {start}..{end} overrun {self.config.block_size}: {advice}")
        drop = self.dropout.forward if self.training else _same
        x = drop(self.tokens.forward(ids) + self.positions.weight[start:end])  # (B, T, C)
        for i, block in enumerate(self.layers):
            x = block.forward(x, None if past is None else past[i], start)
        return self.norm(x)

    def new_past(self, batch: int) -> Tensor:
        """Return room for the keys and values of a block, (n_layers, 2, B, H, block_size, C/H)."""
        c = self.config
        shape = (c.n_layers, 2, batch, c.n_heads, c.block_size, c.d_model // c.n_heads)
        return self.norm.weight.new_zeros(shape)

    def stream(self, ids: Tensor, max_new_tokens: int, **sampling: Any) -> Iterator[Tensor]:
        """Yield the next token of every row, (B,), as it is drawn; the options of ``Sampling``."""
        return stream(self, ids, max_new_tokens, Sampling(**sampling))

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

    def to_encoder(self) -> nn.TransformerEncoder:
        """Return torch's own encoder with these layers; it wants embeddings and a causal mask."""
        c = self.config
        sizes = (c.d_model, c.n_heads, 4 * c.d_model, c.dropout)
        options = {"activation": F.gelu, "batch_first": True, "norm_first": True, "bias": c.bias}
        layer = nn.TransformerEncoderLayer(*sizes, **options)
        norm = nn.LayerNorm(c.d_model, bias=c.bias)
        encoder = nn.TransformerEncoder(layer, c.n_layers, norm, enable_nested_tensor=False)
        shared = {k: v for k, v in self.state_dict().items() if k.startswith(("layers.", "norm."))}
        encoder.load_state_dict({k.replace("in_proj.", "in_proj_"): v for k, v in shared.items()})
        return encoder

    def load_encoder(self, encoder: nn.TransformerEncoder) -> None:
        """Take over the layers and the last norm of an encoder of the same shape."""
        state = {k.replace("in_proj_", "in_proj."): v for k, v in encoder.state_dict().items()}
        self.load_state_dict(self.state_dict() | state)
