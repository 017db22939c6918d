"""The decoder: a Transformer encoder stack, masked to look only backwards.

Pre-norm blocks after GPT-2 (Radford et al. 2019), attention after Vaswani et al. 2017::

    ids (B, T) -> token + position embeddings (B, T, C)
               -> n_layers times: x + attention(norm(x)), then x + mlp(norm(x))
               -> norm -> times the token embeddings, transposed -> logits (B, T, V)

B is the batch, T the time (at most ``block_size``), C ``d_model``, H the heads, V the vocabulary.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from copy import copy
from typing import Any, cast

import torch
from torch import LongTensor, Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as every_module

from llm.config import ConfigError, ModelConfig, Sampling
from llm.data import CharacterTokenizer
from llm.generate import choose


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
        qkv = self.in_proj(x).view(B, T, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv  # each (B, H, T, C / H)
        if past is not None:
            past.narrow(3, -T, T).copy_(qkv[1:])
            k, v = past
        low = q.dtype == torch.bfloat16 and q.device.type == "cpu"  # its backward: 2.6x slower
        with torch.autocast("cpu", enabled=False) if low else nullcontext():
            q, k, v = (q.float(), k.float(), v.float()) if low else (q, k, v)
            p = self.dropout if self.training else 0.0  # one query may see all that is past
            y = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=T > 1)
        return self.out_proj(y.transpose(1, 2).reshape(B, T, C))


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
        if not config.vocab_size or config.d_model % config.n_heads:
            raise ConfigError("vocab_size must be above 0, and d_model a multiple of n_heads")
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
                std = config.init_std * (config.residual_scale if writes else 1)
                nn.init.normal_(weight, 0, std)

    def forward(
        self, ids: Tensor, targets: Tensor | None = None, past: Tensor | None = None
    ) -> Tensor:
        """Return logits (B, T, V) for ids (B, T), or with targets (B, T) the mean loss in nats.

        The keys and values of ids are written to the end of ``past``, (n_layers, 2, B, H, all,
        C / H); those before them are read from there.
        """
        end = ids.size(1) if past is None else past.size(4)
        start = end - ids.size(1)
        if end > self.config.block_size or end > start + 1 > 1:
            raise ValueError(f"ids {start}..{end} overrun the block: generate slides over them")
        x = self.tokens(ids) + self.positions.weight[start:end]
        x = self.dropout(x)  # (B, T, C)
        for i, block in enumerate(self.layers):
            x = block(x, None if past is None else past[i])
        logits = F.linear(self.norm(x), self.tokens.weight)
        if targets is None:
            return logits
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def generate(
        self, ids: Tensor, max_new_tokens: int, temperature: float = 1.0, **sampling: Any
    ) -> LongTensor:
        """Continue ids (B, T) and return them with what follows, (B, T + new); see ``stream``."""
        new = self.stream(ids, max_new_tokens, temperature=temperature, **sampling)
        return cast("LongTensor", torch.stack([*ids.unbind(1), *new], dim=1))

    def stream(self, ids: Tensor, max_new_tokens: int, **sampling: Any) -> Iterator[Tensor]:
        """Yield the next token of every row, (B,), as it is drawn in the way of ``Sampling``.

        It ends early once every row has met the string ``stop``; a row that met it first is filled
        with its last character. While the text fits in the block, a token costs one row of work:
        the keys and values of the earlier ones are kept. Past it every learned position shifts,
        so the last ``block_size`` tokens are recomputed for each new one, as in nanoGPT.
        """
        (B, T), c, how = ids.shape, self.config, Sampling(**sampling)
        if not T or ids.min() < 0 or ids.max() >= c.vocab_size or max_new_tokens < 0:
            raise ValueError("give at least one id, all of the vocabulary, and no count below 0")
        if how.stop and not self.tokenizer:
            raise ValueError("a stop string needs the tokenizer: set model.tokenizer")
        tail = self.tokenizer.encode(how.stop) if how.stop and self.tokenizer else []
        seeded = None if how.seed is None else torch.Generator(ids.device).manual_seed(how.seed)
        text = torch.cat([ids, ids.new_zeros(B, max_new_tokens)], dim=1)  # (B, T + new)
        past = (c.n_layers, 2, B, c.n_heads, c.block_size, c.d_model // c.n_heads)
        ended, start, was_training = [False] * B, 0, self.training
        self.eval()
        try:
            with torch.inference_mode():
                step, past = lighten(self), self.norm.weight.new_zeros(past)
            for end in range(T, T + max_new_tokens):
                with torch.inference_mode():  # not across the yield, where the caller's code runs
                    if end <= c.block_size:
                        logits = step(text[:, start:end], None, past.narrow(4, 0, end))
                    else:
                        logits = step(text[:, end - c.block_size : end])
                    text[:, end], start = choose(logits[:, -1], how, seeded), end
                if tail:  # a row that has ended waits for the others, repeating its last character
                    text[torch.tensor(ended), end] = tail[-1]
                    news = text[:, max(T, end + 1 - len(tail)) : end + 1].tolist()
                    ended = [old or new == tail for old, new in zip(ended, news, strict=True)]
                yield text[:, end]
                if all(ended):
                    break
        finally:
            self.train(was_training)

    def encoder_state(self) -> dict[str, Tensor]:
        """Return the layers and the last norm by the names of ``nn.TransformerEncoder``."""
        shared = {k: v for k, v in self.state_dict().items() if k.startswith(("layers.", "norm."))}
        return {k.replace("in_proj.", "in_proj_"): v for k, v in shared.items()}

    def load_encoder_state(self, state: dict[str, Tensor]) -> None:
        """Take over the layers and the last norm of an encoder's ``state_dict()``."""
        own = {k.replace("in_proj_", "in_proj."): v for k, v in state.items()}
        self.load_state_dict(self.state_dict() | own)


PLAIN = {GPTDecoder, Block, CausalSelfAttention, nn.Linear, nn.LayerNorm, nn.Dropout, nn.ModuleList}


def lighten(module: nn.Module) -> Any:
    """Return a function that does what calling the module does, without a module's overhead.

    Finding members and looking for hooks takes a third of a decoding step. Only plain modules are
    lightened; what is hooked, parametrized, wrapped or of a subclass (such as LoRA's) is called.
    """
    own, hooks = vars(module), ("_forward_hooks", "_forward_pre_hooks")
    hooked = any(own[name] or vars(every_module)[f"_global{name}"] for name in hooks)
    if hooked or "forward" in own or type(module) not in PLAIN:
        return module
    if isinstance(module, nn.ModuleList):
        return [lighten(child) for child in module]
    if isinstance(module, nn.Dropout) and not module.training:
        return nn.Identity().forward
    twin = copy(module)  # shares all, but finds its members at once
    members = {name: lighten(child) for name, child in module.named_children()}
    vars(twin).update(module.named_parameters(recurse=False), **members)
    return twin.forward
