// One call of attention: sequences with the arrays of their queries and outputs.
#ifndef KVLANE_PYTHON_CALL_HPP
#define KVLANE_PYTHON_CALL_HPP

#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "attention.hpp"
#include "cache.hpp"
#include "threads.hpp"

namespace kvlane::python {

/// One sequence of a call, as the caller gives it.
struct Sequence {
    std::shared_ptr<View> view;
    nb::object q;
    std::optional<nb::object> out;
    std::optional<nb::object> lse;
    std::optional<int64_t> len;  // none: that of the view
    bool causal = true;
    int64_t causal_offset = 0;
    std::optional<nb::object> mask;
    std::optional<nb::object> bias;
};

/// The range of a partial state: positions first to end - 1, in a view whose first token has position view_first.
struct PartialRange {
    int64_t view_first;
    int64_t first;
    int64_t end;
};

/// A call: add its sequences, then run it once. It keeps their arrays alive.
class Call {
public:
    explicit Call(const Attention &attention) : attention_(attention) {}

    /// Adds a sequence and returns its output, which is made if the caller gave none.
    nb::object add(const Sequence &sequence);

    /// Adds a sequence whose partial state over a range is to be computed, and returns that: arrays (m, l, o).
    nb::tuple add_partial(const Sequence &sequence, const PartialRange &range);

    /// Computes the outputs on the calling thread or, without the GIL, on threads. Caches are locked for reading.
    void run(Threads *threads);

private:
    // What a kvl_sequence points at.
    struct Item {
        std::shared_ptr<View> source;
        std::optional<int64_t> len;
        HeadRows q;
        HeadRows out;
        HeadRows lse;
        MaskRows mask_rows;
        MaskRows bias_rows;
        std::vector<uint64_t> bits;
        kvl_mask mask = kvl_mask_init();
        kvl_range range = kvl_range_init();
        kvl_span span = kvl_span_init();
        kvl_view view = kvl_view_init();
        kvl_sequence sequence = kvl_sequence_init();
    };

    Item &add_item(const Sequence &sequence);
    void add_masks(Item &item, const Sequence &sequence);
    static void resolve_view(Item &item);
    size_t workspace_bytes(uint32_t n_tasks) const;

    const Attention &attention_;
    std::deque<Item> items_;
};

}  // namespace kvlane::python

#endif
