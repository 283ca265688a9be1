// The cache, its layers' geometry, and views of keys and values.
#ifndef KVLANE_PYTHON_CACHE_HPP
#define KVLANE_PYTHON_CACHE_HPP

#include <kvlane/kvlane.hpp>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <vector>

#include "arrays.hpp"

namespace kvlane::python {

/// Geometry of a layer, with its own copy of the key offset.
struct Layer {
    kvlane::Layer geometry;
    std::vector<float> k_offset;

    kvlane::Layer with_offset() const {
        kvlane::Layer layer = geometry;
        layer.k_offset = k_offset.empty() ? nullptr : k_offset.data();
        return layer;
    }
};

/// A cache and its lock: exclusive for a call that changes the cache, shared for one that reads it.
struct Cache {
    explicit Cache(kvlane::Cache &&owned) : cache(std::move(owned)) {}

    /// Calls change(cache) without the GIL while no other call uses the cache.
    template <class Change>
    void exclusively(Change change) {
        const nb::gil_scoped_release no_gil;
        const std::unique_lock lock(mutex);
        change(cache);
    }

    /// Returns read(cache), computed without the GIL while no other call changes the cache.
    template <class Read>
    auto shared(Read read) const {
        const nb::gil_scoped_release no_gil;
        const std::shared_lock lock(mutex);
        return read(cache);
    }

    kvlane::Cache cache;
    mutable std::shared_mutex mutex;
};

/// Keys and values that attention reads: a layer of a cache, as it is at the time of each call, or rows in arrays.
struct View {
    std::shared_ptr<Cache> cache;  // null: rows
    uint32_t layer = 0;
    HeadRows k;
    HeadRows v;
    int64_t head_dim = 0;
    int64_t v_head_dim = 0;
    int64_t n_kv_heads = 0;

    /// Describes the keys and values; span is filled in for rows.
    /// Pre:    the cache's lock is held
    kvl_view describe(kvl_span &span) const;
};

/// The formats of keys and values.
struct Formats {
    Format k;
    Format v;
};

/// The formats by their names: each one's own, or else that of both.
Formats formats_named(const std::string &both, const std::optional<std::string> &k, const std::optional<std::string> &v);

/// A rotation, by its name; without one, that of the format.
Rotation rotation_named(const std::optional<std::string> &name, const char *argument);

/// The name of a rotation in force.
std::string rotation_name(kvl_rotation rotation);

/// Adds Layer, LayerInfo, Cache and View to the module.
void bind_cache(nb::module_ &module);

}  // namespace kvlane::python

#endif
