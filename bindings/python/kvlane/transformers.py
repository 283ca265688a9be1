"""An attention implementation for Hugging Face transformers, and a cache for it.

    import kvlane.transformers
    kvlane.transformers.register()
    model = AutoModelForCausalLM.from_pretrained(name, attn_implementation="kvlane")
    model.generate(**inputs, cache=kvlane.transformers.KvlaneCache(model.config, format="q8"))

KvlaneCache stores each layer and sequence in a kvlane.Cache, which attention reads in place. With any other cache, or
without one, attention reads the model's own key and value tensors in place.

Inference on CPUs only. Attention weights are not returned. torch.compile does not see into the calls.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import transformers
from transformers.cache_utils import CacheLayerMixin
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

import kvlane

__all__ = ["KvlaneCache", "register"]

NAME = "kvlane"
_FORMATS = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}


def register(threads: kvlane.Threads | None = None) -> None:
    """Makes "kvlane" an attention implementation of transformers.

    Args:
        threads: the pool that runs attention; None: a new one of torch.get_num_threads() threads
    """
    pool = threads or kvlane.Threads(torch.get_num_threads())

    def attention(module: torch.nn.Module, query: torch.Tensor, key: Any, value: Any, attention_mask: torch.Tensor | None,
                  **arguments: Any) -> tuple[torch.Tensor, None]:  # fmt: skip
        return _attention(pool, module, query, key, value, attention_mask, **arguments)

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, _mask)


class KvlaneCache(transformers.Cache):
    """The keys and values of a batch of sequences: a kvlane.Cache for each layer and sequence.

    Models whose attention implementation is "kvlane" can use it as any other cache: generate with padded batches, beam
    search and several return sequences, crop, reset. Layers with a sliding window keep all tokens.
    """

    def __init__(self, config: transformers.PreTrainedConfig, *, format: str = "f16", max_tokens: int | None = None,
                 **layer: Any) -> None:  # fmt: skip
        """Makes an empty cache.

        Args:
            config: the model's
            format: of keys and values: "f32", "f16", "bf16", "q8" or "q4"
            max_tokens: capacity of each sequence; None: config.max_position_embeddings
            layer: other arguments of kvlane.Layer: k_format, v_format, n_first_f16, n_recent_f16, ...
        """
        text_config = config.get_text_config(decoder=True)
        arguments = {"format": format, "max_tokens": max_tokens or text_config.max_position_embeddings, **layer}
        super().__init__(layers=[_Layer(arguments) for _ in range(text_config.num_hidden_layers)])

    @property
    def bytes(self) -> int:
        """The size of the stored tokens of all sequences in bytes."""
        return sum(cache.bytes for layer in self.layers for cache in layer.caches)


class _Layer(CacheLayerMixin):  # type: ignore[misc]
    """One layer of a KvlaneCache. It stands for the layer's keys and values in the call of attention."""

    is_sliding = False
    is_croppable = True
    supports_early_init = False  # the number of sequences is that of the first update

    def __init__(self, arguments: dict[str, Any]) -> None:
        super().__init__()
        self.arguments = arguments
        self.caches: list[kvlane.Cache] = []  # of each sequence
        self.n_pending = 0
        self.attentions: dict[Any, kvlane.Attention] = {}  # by score rules

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        n_sequences, n_kv_heads, _, head_dim = key_states.shape
        geometry = {"n_kv_heads": n_kv_heads, "head_dim": head_dim, "v_head_dim": value_states.shape[-1]}
        self.caches = [kvlane.Cache(n_layers=1, **geometry, **self.arguments) for _ in range(n_sequences)]
        self.is_initialized = True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[_Layer, _Layer]:
        """Appends [n_sequences, n_kv_heads, n_tokens, dim] and returns what attention takes as keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if len(key_states) != len(self.caches):
            raise ValueError(f"key_states has {len(key_states)} sequences; it must have the cache's, {len(self.caches)}")
        self._advance()
        try:
            for cache, k, v in zip(self.caches, key_states.detach(), value_states.detach()):
                cache.append(0, k.transpose(0, 1), v.transpose(0, 1))
        except Exception:
            for cache in self.caches:
                cache.truncate(len(cache))  # without what was appended before the failure
            raise
        self.n_pending = key_states.shape[2]
        return self, self

    def _advance(self) -> None:
        """Makes pending tokens part of the caches. It waits for the next update: attention of the same step comes before."""
        if self.n_pending:
            for cache in self.caches:
                cache.advance(self.n_pending)
            self.n_pending = 0

    def attention(self, n_query_heads: int, **rules: Any) -> kvlane.Attention:
        """The attention object of these score rules, made once."""
        key = (n_query_heads, *rules.values())
        if key not in self.attentions:
            self.attentions[key] = kvlane.Attention.for_cache(self.caches[0], n_query_heads=n_query_heads, **rules)
        return self.attentions[key]

    def __getattr__(self, name: str) -> Any:
        if name in ("shape", "dtype", "device", "transpose"):
            raise ValueError(
                f'a KvlaneCache is read by the attention implementation "{NAME}" alone: call '
                f'kvlane.transformers.register() and model.set_attn_implementation("{NAME}")'
            )
        raise AttributeError(f"{type(self).__name__} has no attribute {name}")

    def get_seq_length(self) -> int:
        return len(self.caches[0]) + self.n_pending if self.caches else 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        return cast(int, self.arguments["max_tokens"])

    def reset(self) -> None:
        self.caches = []
        self.n_pending = 0
        self.is_initialized = False

    def crop(self, tokens_to_remove: int) -> None:
        """Removes the last -tokens_to_remove tokens."""
        if tokens_to_remove > 0:
            raise ValueError(f"tokens_to_remove is {tokens_to_remove}; it must be 0, or minus the number of tokens to remove")
        if tokens_to_remove == 0 or not self.caches:
            return
        self._advance()
        for cache in self.caches:
            cache.truncate(max(0, len(cache) + tokens_to_remove))

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._select([i for i in range(len(self.caches)) for _ in range(repeats)])

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self._select(torch.arange(len(self.caches))[indices].tolist())

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        self._select(beam_idx.tolist())

    def _select(self, indices: list[int]) -> None:
        """Makes sequence i what sequence indices[i] is; copies caches that are needed more than once."""
        self._advance()
        taken: set[int] = set()
        selected = []
        for i in indices:
            selected.append(self.caches[i].copy() if i in taken else self.caches[i])
            taken.add(i)
        self.caches = selected


def _mask(*args: Any, q_length: int, kv_length: int, q_offset: int = 0, kv_offset: int = 0,
          attention_mask: torch.Tensor | None = None, local_size: int | None = None, allow_is_causal_skip: bool = True,
          **kwargs: Any) -> torch.Tensor | None:  # fmt: skip
    """Makes a boolean mask, or None where causal order is the whole rule and the queries are the newest tokens."""
    kv_end = kv_offset + kv_length
    may_skip = allow_is_causal_skip and bool(q_offset + q_length == kv_end)
    hides_none = attention_mask is None or (attention_mask.shape[-1] >= kv_end and bool(attention_mask[:, kv_offset:kv_end].all()))
    if may_skip and local_size is None and hides_none:
        return None
    mask = sdpa_mask(
        *args, q_length=q_length, kv_length=kv_length, q_offset=q_offset, kv_offset=kv_offset,
        attention_mask=attention_mask, local_size=local_size, allow_is_causal_skip=may_skip, **kwargs)  # fmt: skip
    return cast("torch.Tensor | None", mask)


def _attention(threads: kvlane.Threads, module: torch.nn.Module, query: torch.Tensor, key: Any, value: Any,
               attention_mask: torch.Tensor | None, scaling: float | None = None, softcap: float | None = None,
               s_aux: torch.Tensor | None = None, is_causal: bool | None = None, dropout: float = 0.0,
               position_bias: torch.Tensor | None = None, **kwargs: Any) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Attention of query [n_sequences, n_query_heads, n_queries, head_dim] -> [n_sequences, n_queries, n_query_heads, dim]."""
    if query.requires_grad and torch.is_grad_enabled():
        raise ValueError(f'the attention implementation "{NAME}" is for inference: call the model within torch.no_grad()')
    if dropout or position_bias is not None:
        raise ValueError(f'the attention implementation "{NAME}" has neither dropout nor position_bias')
    is_causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    is_causal = is_causal and attention_mask is None  # a mask says all that is visible, causal order and windows too
    rules = {
        "scale": scaling or 0.0,
        "softcap": softcap or 0.0,
        "sink_logits": () if s_aux is None else tuple(s_aux.float().tolist()),
    }
    if isinstance(key, _Layer):
        views = [cache.view(0) for cache in key.caches]
        attention = key.attention(query.shape[1], **rules)
        v_head_dim = key.caches[0].info(0).v_head_dim
    else:
        views = [kvlane.View(k.transpose(0, 1), v.transpose(0, 1)) for k, v in zip(key, value)]
        attention = _attention_of_tensors(query, key, value, rules)
        v_head_dim = value.shape[-1]

    n_sequences, n_query_heads, n_queries, _ = query.shape
    out = query.new_empty(n_sequences, n_queries, n_query_heads, v_head_dim)
    sequences = []
    for i, view in enumerate(views):
        arguments = {} if attention_mask is None else _mask_arguments(attention_mask[i if len(attention_mask) > 1 else 0])
        q = query[i].transpose(0, 1)
        sequences.append(kvlane.Sequence(view, q, out=out[i], causal=is_causal, **arguments))
    attention.attend_batch(sequences, threads=threads)
    return out, None


def _attention_of_tensors(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rules: dict[str, Any]) -> kvlane.Attention:
    return kvlane.Attention(n_query_heads=query.shape[1], n_kv_heads=key.shape[1], head_dim=key.shape[-1],
                            v_head_dim=value.shape[-1], k_format=_FORMATS[key.dtype], v_format=_FORMATS[value.dtype],
                            **rules)  # fmt: skip


def _mask_arguments(mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """A sequence's mask [1 or n_query_heads, n_queries, n_tokens], boolean or additive, as arguments of kvlane.Sequence."""
    return {"mask": mask} if mask.dtype == torch.bool else {"bias": mask.float()}
