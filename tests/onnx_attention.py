"""The cases of ONNX's operator Attention, each as one call of kvl_attend on the tensors as they are: any layout, f16 and
bf16, with and without causal order, masks and biases by head.

    onnx_attention.py LIBRARY

Needs the Python package onnx. Exits with 77 if it is missing.
"""
import ctypes as c
import sys

try:
    import numpy as np
    import onnx
    from onnx.backend.test.case.node import collect_testcases
except ImportError as error:
    print(f"skipped: {error.name} is not installed")
    sys.exit(77)


def struct(name, fields):
    return type(name, (c.Structure,), {"_fields_": [(f, t) for t, names in fields for f in names.split()]})


Span = struct("Span", [(c.c_void_p, "k v"), (c.c_int64, "n_tokens")])
View = struct("View", [(c.c_size_t, "struct_size"), (c.c_uint32, "flags n_kv_heads head_dim v_head_dim k_format v_format"),
                       (c.c_int64, "k_token_stride k_head_stride v_token_stride v_head_stride len"), (c.c_void_p, "spans"),
                       (c.c_uint32, "n_spans reserved k_rotation v_rotation"), (c.c_void_p, "next blocks"),
                       (c.c_uint32, "n_blocks block_tokens"),
                       (c.c_int64, "k_block_stride v_block_stride n_overlap n_recent"), (c.c_void_p, "k_offset")])
Attention = struct("Attention", [(c.c_size_t, "struct_size"),
                                 (c.c_uint32, "flags n_query_heads n_kv_heads head_dim v_head_dim k_format v_format"),
                                 (c.c_float, "scale"), (c.c_uint32, "k_rotation v_rotation"),
                                 (c.c_int64, "window n_sink_tokens"), (c.c_void_p, "alibi_slopes sink_logits"),
                                 (c.c_float, "softcap"), (c.c_uint32, "precision")])
Mask = struct("Mask", [(c.c_size_t, "struct_size"), (c.c_uint32, "flags reserved"), (c.c_void_p, "bits biases"),
                       (c.c_int64, "n_tokens bits_stride biases_stride bits_head_stride biases_head_stride")])
Sequence = struct("Sequence", [(c.c_size_t, "struct_size"), (c.c_uint32, "flags n_queries"), (c.c_void_p, "view"),
                               (c.c_int64, "len"), (c.c_void_p, "q out lse range mask"), (c.c_uint32, "q_format out_format"),
                               (c.c_int64, "q_token_stride q_head_stride out_token_stride out_head_stride lse_token_stride "
                                           "lse_head_stride causal_offset")])
Workspace = struct("Workspace", [(c.c_size_t, "struct_size"), (c.c_uint32, "flags n_sequences"), (c.c_int64, "max_len"),
                                 (c.c_uint32, "max_queries max_tasks out_format reserved")])

FORMATS = {"float32": 0, "float16": 1, "bfloat16": 2}
NO_ROTATION, NON_CAUSAL, ALIGNMENT = 1, 1, 64


def sized(struct_type, **fields):
    return struct_type(struct_size=c.sizeof(struct_type), **fields)


class Library:
    def __init__(self, path):
        self.library = c.CDLL(path)
        self.library.kvl_last_error.restype = c.c_char_p

    def __call__(self, name, *arguments):
        if getattr(self.library, name)(*arguments) != 0:
            raise RuntimeError(self.library.kvl_last_error().decode())


def address(array):
    return array.ctypes.data


class Heads:
    """A tensor as [batch][token][head][dim], whatever its layout: [batch][head][token][dim] or [batch][token][head * dim]."""

    def __init__(self, tensor, n_heads=None):
        self.tensor = np.ascontiguousarray(tensor)
        shape, size = self.tensor.shape, self.tensor.itemsize
        if n_heads is None:
            self.batch, self.heads, self.tokens, self.dim = shape
            self.token_stride, self.head_stride = self.dim * size, self.tokens * self.dim * size
        else:
            self.batch, self.tokens, self.heads, self.dim = *shape[:2], n_heads, shape[2] // n_heads
            self.token_stride, self.head_stride = shape[2] * size, self.dim * size
        self.format = FORMATS[str(self.tensor.dtype)]

    def at(self, i):
        return address(self.tensor) + i * self.tensor.nbytes // self.batch


def joined(past, new):
    """New tokens behind those of a cache, [batch][head][token][dim]."""
    if past is None:
        return new
    heads = past.shape[1]
    if new.ndim == 3:
        new = new.reshape(*new.shape[:2], heads, -1).transpose(0, 2, 1, 3)
    return np.concatenate([past, new], axis=2)


class Masks:
    """A mask of any rank up to [batch][head][query][token], of booleans or of biases, for each sequence."""

    def __init__(self, call, mask, n_tokens):
        mask = np.ascontiguousarray(mask).reshape((1,) * (4 - mask.ndim) + mask.shape)
        self.shape, rows = mask.shape, int(np.prod(mask.shape[:3]))
        self.is_bool, self.n_tokens = mask.dtype == bool, self.shape[3]
        if self.is_bool:
            self.rows = np.zeros(self.shape[:3] + ((self.n_tokens + 63) // 64,), np.uint64)
            call("kvl_mask_bits_from_bytes", c.c_void_p(address(mask)), c.c_int64(rows), c.c_int64(self.n_tokens),
                 c.c_int64(self.n_tokens), c.c_void_p(address(self.rows)))
        else:
            self.rows = np.zeros(self.shape, np.float32)
            call("kvl_rows_to_f32", c.c_uint32(FORMATS[str(mask.dtype)]), c.c_void_p(address(mask)), c.c_int64(rows),
                 c.c_int64(self.n_tokens), c.c_int64(self.n_tokens * mask.itemsize), c.c_void_p(address(self.rows)))

    def of(self, i):
        strides = [0 if n == 1 else s for n, s in zip(self.shape, self.rows.strides)]
        first, (head, query) = address(self.rows) + i * strides[0], strides[1:3]
        if self.is_bool:
            return sized(Mask, bits=first, n_tokens=self.n_tokens, bits_stride=query, bits_head_stride=head)
        return sized(Mask, biases=first, n_tokens=self.n_tokens, biases_stride=query, biases_head_stride=head)


def attend(call, inputs, attributes):
    """Y of one case, by one call."""
    past_k, past_v = inputs.get("past_key"), inputs.get("past_value")
    n_past = 0 if past_k is None else past_k.shape[2]
    q = Heads(inputs["Q"], attributes.get("q_num_heads"))
    kv_heads = None if n_past else attributes.get("kv_num_heads")
    k, v = Heads(joined(past_k, inputs["K"]), kv_heads), Heads(joined(past_v, inputs["V"]), kv_heads)
    lens = inputs.get("nonpad_kv_seqlen", [k.tokens] * q.batch)
    shape = list(inputs["Q"].shape)
    shape[-1] = v.dim if len(shape) == 4 else q.heads * v.dim
    y = Heads(np.full(shape, 7, inputs["Q"].dtype), attributes.get("q_num_heads"))
    is_causal = attributes.get("is_causal", 0)
    left, right = attributes.get("left_window_size", -1), attributes.get("right_window_size", -1)
    assert is_causal or left == right or "attn_mask" not in inputs
    if not is_causal and left != right:  # a window that is not the same on both sides: bits
        distance = np.arange(k.tokens) - np.arange(q.tokens)[:, None]
        inputs = {**inputs, "attn_mask": (distance >= -left) & (distance <= right)}
        left = -1
    desc = sized(Attention, n_query_heads=q.heads, n_kv_heads=k.heads, head_dim=k.dim, v_head_dim=v.dim, k_format=k.format,
                 v_format=v.format, scale=attributes.get("scale", 0), softcap=attributes.get("softcap", 0),
                 window=left + 1, k_rotation=NO_ROTATION, v_rotation=NO_ROTATION)
    attention = c.c_void_p()
    call("kvl_attention_create", c.byref(desc), c.byref(attention))
    masks = Masks(call, inputs["attn_mask"], k.tokens) if "attn_mask" in inputs else None
    sequences, kept = (Sequence * q.batch)(), []
    for i in range(q.batch):
        span = Span(k=k.at(i), v=v.at(i), n_tokens=k.tokens)
        view = sized(View, n_kv_heads=k.heads, head_dim=k.dim, v_head_dim=v.dim, k_format=k.format, v_format=v.format,
                     k_token_stride=k.token_stride, k_head_stride=k.head_stride, v_token_stride=v.token_stride,
                     v_head_stride=v.head_stride, len=int(lens[i]), spans=c.addressof(span), n_spans=1,
                     k_rotation=NO_ROTATION, v_rotation=NO_ROTATION)
        mask = masks.of(i) if masks else None
        kept += [span, view, mask]
        # Query i is at position i behind the past, or, with lengths given, the last query belongs to the last token.
        offset = 0 if "nonpad_kv_seqlen" in inputs else n_past + q.tokens - int(lens[i])
        sequences[i] = sized(Sequence, flags=0 if is_causal else NON_CAUSAL, n_queries=q.tokens, view=c.addressof(view),
                             len=int(lens[i]), q=q.at(i), out=y.at(i), mask=c.addressof(mask) if mask else None,
                             q_format=q.format, out_format=y.format, q_token_stride=q.token_stride,
                             q_head_stride=q.head_stride, out_token_stride=y.token_stride, out_head_stride=y.head_stride,
                             causal_offset=offset)
    workspace = sized(Workspace, n_sequences=q.batch, max_len=k.tokens, max_queries=q.tokens, max_tasks=1,
                      out_format=y.format)
    n_bytes = c.c_size_t()
    call("kvl_attention_workspace_size_for", attention, c.byref(workspace), c.byref(n_bytes))
    memory = c.create_string_buffer(n_bytes.value + ALIGNMENT)
    aligned = (c.addressof(memory) + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    call("kvl_attend", attention, sequences, c.c_uint32(q.batch), c.c_void_p(aligned), n_bytes, None)
    call.library.kvl_attention_destroy(attention)
    return y.tensor


def main():
    call = Library(sys.argv[1])
    n_cases, n_wrong = 0, 0
    for case in collect_testcases("Attention"):
        if "expanded" in case.name:
            continue
        node = case.model.graph.node[0]
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        arrays, outputs = case.data_sets[0]
        inputs = dict(zip([name for name in node.input if name], arrays))
        got, want = (np.asarray(x).astype(np.float64) for x in (attend(call, inputs, attributes), outputs[0]))
        tolerance = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}[str(outputs[0].dtype)]
        error = np.abs(got - want).max()
        n_cases += 1
        if not error <= tolerance:
            n_wrong += 1
            print(f"{case.name}: error {error}")
    print(f"{n_cases} cases, {n_wrong} wrong")
    return 1 if n_wrong or n_cases == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
