#include "call.hpp"

#include <algorithm>
#include <mutex>
#include <set>
#include <shared_mutex>

namespace kvlane::python {

namespace {

// Returns this thread's workspace. It grows as calls need, and is freed when the thread ends.
Workspace &workspace_of_thread(size_t bytes) {
    thread_local std::unique_ptr<Workspace> workspace;
    if (!workspace || workspace->size() < bytes) {
        workspace.reset();  // the old one's memory first
        workspace = std::make_unique<Workspace>(bytes);
    }
    return *workspace;
}

// Sets the bits of a boolean mask, row by row.
std::vector<uint64_t> mask_bits(const MaskRows &rows) {
    const nb::gil_scoped_release no_gil;
    const int64_t words = (rows.n_tokens + 63) / 64;
    std::vector<uint64_t> bits(static_cast<size_t>(rows.n_heads * rows.n_queries * words));
    for (int64_t head = 0; head < rows.n_heads; ++head) {
        const auto *bytes = static_cast<const uint8_t *>(rows.array.data()) + head * rows.head_stride_bytes;
        check(kvl_mask_bits_from_bytes(bytes, rows.n_queries, rows.n_tokens, rows.query_stride_bytes,
                                       bits.data() + head * rows.n_queries * words));
    }
    return bits;
}

// Throws unless an output has a row for each query.
void check_n_queries(const HeadRows &rows, const char *name, int64_t n_queries) {
    if (rows.n != n_queries) {
        throw Error(KVL_ERROR_LENGTH, std::string(name) + " has " + std::to_string(rows.n) +
                                          " queries; it must have as many as q, " + std::to_string(n_queries));
    }
}

std::vector<int64_t> shape_of_rows(const HeadRows &q, std::initializer_list<int64_t> own) {
    std::vector<int64_t> shape;
    if (q.has_token_axis) {
        shape.push_back(q.n);
    }
    shape.insert(shape.end(), own);
    return shape;
}

}  // namespace

Call::Item &Call::add_item(const Sequence &sequence) {
    Item &item = items_.emplace_back();
    item.source = sequence.view;
    item.len = sequence.len;
    item.q = head_rows(sequence.q, {"q", "n_queries", attention_.n_query_heads, attention_.head_dim});
    item.sequence = kvlane::Sequence{.n_queries = to_uint32(item.q.n, "the number of queries"),
                                     .q = item.q.data(),
                                     .is_causal = sequence.causal,
                                     .causal_offset = sequence.causal_offset,
                                     .q_format = item.q.format,
                                     .q_token_stride_bytes = item.q.token_stride_bytes,
                                     .q_head_stride_bytes = item.q.head_stride_bytes};
    add_masks(item, sequence);
    return item;
}

void Call::add_masks(Item &item, const Sequence &sequence) {
    const int64_t n_heads = attention_.n_query_heads;
    const int64_t n_queries = item.q.n;
    if (sequence.mask) {
        item.mask_rows = mask_rows(*sequence.mask, "mask", nb::dtype<bool>(), n_heads, n_queries);
        item.bits = mask_bits(item.mask_rows);
        const int64_t row_bytes = (item.mask_rows.n_tokens + 63) / 64 * 8;
        item.mask.bits = item.bits.data();
        item.mask.n_tokens = item.mask_rows.n_tokens;
        item.mask.bits_stride_bytes = item.mask_rows.n_queries > 1 ? row_bytes : 0;
        item.mask.bits_head_stride_bytes = item.mask_rows.n_heads > 1 ? item.mask_rows.n_queries * row_bytes : 0;
    }
    if (sequence.bias) {
        item.bias_rows = mask_rows(*sequence.bias, "bias", nb::dtype<float>(), n_heads, n_queries);
        if (sequence.mask && item.bias_rows.n_tokens != item.mask.n_tokens) {
            throw Error(KVL_ERROR_LENGTH, "bias has " + std::to_string(item.bias_rows.n_tokens) +
                                              " tokens; it must have as many as mask, " +
                                              std::to_string(item.mask.n_tokens));
        }
        item.mask.biases = static_cast<const float *>(item.bias_rows.array.data());
        item.mask.n_tokens = item.bias_rows.n_tokens;
        item.mask.biases_stride_bytes = item.bias_rows.query_stride_bytes;
        item.mask.biases_head_stride_bytes = item.bias_rows.head_stride_bytes;
    }
    if (sequence.mask || sequence.bias) {
        item.sequence.mask = &item.mask;
    }
}

nb::object Call::add(const Sequence &sequence) {
    Item &item = add_item(sequence);
    const int64_t n_heads = attention_.n_query_heads;
    const nb::object out =
        sequence.out ? *sequence.out : empty(sequence.q, shape_of_rows(item.q, {n_heads, attention_.v_head_dim}));
    item.out = head_rows(out, {"out", "n_queries", n_heads, attention_.v_head_dim, Access::write});
    check_n_queries(item.out, "out", item.q.n);
    item.sequence.out = item.out.data();
    item.sequence.out_format = static_cast<kvl_format>(item.out.format);
    item.sequence.out_token_stride_bytes = item.out.token_stride_bytes;
    item.sequence.out_head_stride_bytes = item.out.head_stride_bytes;
    if (sequence.lse) {
        item.lse = head_rows(*sequence.lse, {"lse", "n_queries", n_heads, 0, Access::write});
        check_n_queries(item.lse, "lse", item.q.n);
        if (item.lse.format != Format::f32) {
            throw Error(KVL_ERROR_FORMAT, "lse has elements of 16 bits; they must be float32");
        }
        item.sequence.lse = static_cast<float *>(item.lse.data());
        item.sequence.lse_token_stride_bytes = item.lse.token_stride_bytes;
        item.sequence.lse_head_stride_bytes = item.lse.head_stride_bytes;
    }
    return out;
}

nb::tuple Call::add_partial(const Sequence &sequence, const PartialRange &range) {
    Item &item = add_item(sequence);
    const int64_t n_heads = attention_.n_query_heads;
    const nb::object m = numpy_f32({item.q.n, n_heads});
    const nb::object l = numpy_f32({item.q.n, n_heads});
    const nb::object o = numpy_f32({item.q.n, n_heads, attention_.v_head_dim});
    const auto data = [](nb::handle array) { return nb::cast<nb::ndarray<float, nb::c_contig>>(array).data(); };
    item.range.view_first = range.view_first;
    item.range.first = range.first;
    item.range.end = range.end;
    item.range.out = {data(m), data(l), data(o)};
    item.sequence.range = &item.range;
    return nb::make_tuple(m, l, o);
}

// Makes the view of the item's keys and values, as they are now.
void Call::resolve_view(Item &item) {
    item.view = item.source->describe(item.span);
    item.sequence.view = &item.view;
    item.sequence.len = item.len.value_or(item.range.view_first + item.view.len);
}

size_t Call::workspace_bytes(uint32_t n_tasks) const {
    kvl_workspace_desc desc = kvl_workspace_desc_init();
    desc.n_sequences = static_cast<uint32_t>(items_.size());
    desc.max_tasks = n_tasks;
    desc.max_queries = 1;
    for (const Item &item : items_) {
        desc.max_len = std::max(desc.max_len, item.sequence.len);
        desc.max_queries = std::max(desc.max_queries, item.sequence.n_queries);
        desc.out_format = item.sequence.out_format == KVL_F32 ? desc.out_format : item.sequence.out_format;
    }
    size_t bytes;
    check(kvl_attention_workspace_size_for(attention_.attention.get(), &desc, &bytes));
    return bytes;
}

void Call::run(Threads *threads) {
    const nb::gil_scoped_release no_gil;
    std::set<Cache *> caches;  // each once: a thread must not lock a mutex twice
    for (const Item &item : items_) {
        caches.insert(item.source->cache.get());
    }
    caches.erase(nullptr);
    std::vector<std::shared_lock<std::shared_mutex>> locks;
    for (Cache *cache : caches) {
        locks.emplace_back(cache->mutex);
    }

    std::vector<kvl_sequence> sequences;
    for (Item &item : items_) {
        resolve_view(item);
        sequences.push_back(item.sequence);
    }
    const kvl_executor executor = threads ? threads->executor() : kvl_executor_init();
    Workspace &workspace = workspace_of_thread(workspace_bytes(threads ? executor.n_threads : 1));
    attention_.attention.attend(sequences, workspace, threads ? &executor : nullptr);
}

}  // namespace kvlane::python
