// The attention object, and what it is made from.
#ifndef KVLANE_PYTHON_ATTENTION_HPP
#define KVLANE_PYTHON_ATTENTION_HPP

#include <kvlane/kvlane.hpp>

#include "arrays.hpp"

namespace kvlane::python {

/// An attention object and the shapes of its queries and outputs.
struct Attention {
    explicit Attention(const Geometry &geometry)
        : attention(geometry),
          n_query_heads(geometry.n_query_heads),
          head_dim(geometry.head_dim),
          v_head_dim(geometry.v_head_dim ? geometry.v_head_dim : geometry.head_dim) {}

    kvlane::Attention attention;
    int64_t n_query_heads;
    int64_t head_dim;
    int64_t v_head_dim;
};

/// Adds Attention, Sequence and Threads to the module.
void bind_attention(nb::module_ &module);

}  // namespace kvlane::python

#endif
