// Nothing between the creation of a cache and its end allocates: every way to get memory is counted.

#include <string>

#include "support.hpp"

#if defined(__linux__) && defined(__GLIBC__) && !defined(KVLANE_TEST_ASAN) && !defined(KVLANE_TEST_TSAN)

#include <sys/syscall.h>
#include <unistd.h>
#include <cerrno>

namespace {

thread_local bool is_counting = false;
thread_local int n_allocations = 0;

void count() { n_allocations += is_counting; }

}  // namespace

// The executable's definitions go before those of the C library, for the shared kvlane too; operator new ends here.
extern "C" {
#define KVLANE_INTERPOSE __attribute__((visibility("default")))

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

KVLANE_INTERPOSE void *malloc(size_t bytes) noexcept {
    count();
    return __libc_malloc(bytes);
}

KVLANE_INTERPOSE void *calloc(size_t n, size_t bytes) noexcept {
    count();
    return __libc_calloc(n, bytes);
}

KVLANE_INTERPOSE void *realloc(void *p, size_t bytes) noexcept {
    count();
    return __libc_realloc(p, bytes);
}

KVLANE_INTERPOSE void *aligned_alloc(size_t alignment, size_t bytes) noexcept {
    count();
    return __libc_memalign(alignment, bytes);
}

KVLANE_INTERPOSE int posix_memalign(void **p, size_t alignment, size_t bytes) noexcept {
    count();
    *p = __libc_memalign(alignment, bytes);
    return *p ? 0 : ENOMEM;
}

KVLANE_INTERPOSE void *mmap(void *address, size_t bytes, int protection, int flags, int file, off_t offset) noexcept {
    count();
    return reinterpret_cast<void *>(syscall(SYS_mmap, address, bytes, protection, flags, file, offset));
}
}

namespace {

template <class Call>
int allocations_of(Call call) {
    n_allocations = 0;
    is_counting = true;
    const kvl_status status = call();
    is_counting = false;
    CHECK(status == KVL_OK);
    return n_allocations;
}

}  // namespace

TEST_CASE("allocations are counted") {
    const kvl_layer_desc layer = kvlane::Layer{.n_kv_heads = 2, .head_dim = 16}.desc();
    const kvl_cache_desc desc{sizeof desc, 0, 1, &layer, 1, 0, 0};
    kvl_cache *cache = nullptr;
    CHECK(allocations_of([&] { return kvl_cache_create(&desc, &cache); }) > 1);
    kvl_cache_destroy(cache);
}

TEST_CASE("append, advance, view, read and truncate do not allocate") {
    for (const kvlane::Format format : test::all_formats()) {
        const int64_t n_in_f16 = test::is_scaled(format) ? 100 : 0;
        kvlane::Cache cache(2,
                            {.n_kv_heads = 2,
                             .head_dim = 40,
                             .k_format = format,
                             .v_format = format,
                             .n_first_f16 = n_in_f16,
                             .n_recent_f16 = n_in_f16},
                            30000);
        const std::vector<float> values = test::random_values(3000 * 80, 1);
        std::vector<float> read(values.size());
        kvl_view view;
        kvl_layer_info info{};
        info.struct_size = sizeof info;
        for (int i = 0; i < 10; ++i) {
            for (uint32_t layer = 0; layer < 2; ++layer) {
                CHECK(allocations_of([&] {
                          return kvl_cache_append(cache.get(), layer, 3000, values.data(), values.size(), values.data(),
                                                  values.size());
                      }) == 0);
            }
            CHECK(allocations_of([&] { return kvl_cache_advance(cache.get(), 3000); }) == 0);
        }
        view.struct_size = sizeof view;
        CHECK(allocations_of([&] { return kvl_cache_view(cache.get(), 1, &view); }) == 0);
        CHECK(allocations_of([&] { return kvl_cache_layer_info(cache.get(), 1, &info); }) == 0);
        CHECK(allocations_of([&] { return kvl_cache_read_k(cache.get(), 0, 5, 3000, read.data(), read.size()); }) == 0);
        CHECK(allocations_of([&] { return kvl_cache_read_v(cache.get(), 0, 5, 3000, read.data(), read.size()); }) == 0);
        CHECK(allocations_of([&] { return kvl_cache_truncate(cache.get(), 17); }) == 0);
        CHECK(allocations_of([&] { return kvl_cache_clear(cache.get()); }) == 0);
    }
}

TEST_CASE("writes to tiles of the caller's do not allocate") {
    for (const kvlane::Format format : test::all_formats()) {
        const kvl_layer_desc layer = kvlane::Layer{2, 40, 40, format, format}.desc();
        const std::vector<float> values = test::random_values(100 * 80, 1);
        kvl_view view{};
        view.struct_size = sizeof view;
        CHECK(allocations_of([&] { return kvl_tile_layout(&layer, 128, &view); }) == 0);
        const kvlane::Workspace pool(static_cast<size_t>(view.k_block_stride_bytes));
        const kvl_span span{pool.data(), nullptr, 128};
        const int32_t block = 0;
        view.spans = &span;
        view.n_spans = view.n_blocks = 1;
        view.blocks = &block;
        view.len = 100;
        CHECK(allocations_of([&] {
                  return kvl_tiles_write(&view, 0, 100, values.data(), values.size(), values.data(), values.size());
              }) == 0);
    }
}

TEST_CASE("attention does not allocate, in either form") {
    for (const kvlane::Format format : test::all_formats()) {
        kvlane::Cache cache(1, {.n_kv_heads = 2, .head_dim = 40, .k_format = format, .v_format = format}, 1500);
        test::fill_random(cache, 1500, 1);
        const kvlane::Attention attention(
            {.n_query_heads = 66, .n_kv_heads = 2, .head_dim = 40, .k_format = format, .v_format = format});
        kvlane::Workspace workspace = attention.workspace(1, 1500, 1, 2);
        const std::vector<float> q = test::random_values(66 * 40, 2);
        std::vector<float> out(66 * 40), lse(66);
        const kvl_view view = cache.view(0);
        const kvl_sequence sequence =
            kvlane::Sequence{.view = &view, .len = view.len, .q = q.data(), .out = out.data(), .lse = lse.data()};
        kvlane::Partial partial(1, 66, 40);
        const kvl_range range = kvlane::Range{.first = 100, .end = 1500, .out = partial.get()};
        kvl_sequence part = sequence;
        part.range = &range;
        CHECK(allocations_of(
                  [&] { return kvl_attend(attention.get(), &part, 1, workspace.data(), workspace.size(), nullptr); }) == 0);
        CHECK(allocations_of([&] { return kvl_merge(attention.get(), &range.out, 1, 1, out.data(), lse.data()); }) == 0);
        CHECK(allocations_of([&] { return kvl_merge_partials(attention.get(), &range.out, 1, 66, range.out); }) == 0);
        CHECK(allocations_of([&] {
                  return kvl_attend(attention.get(), &sequence, 1, workspace.data(), workspace.size(), nullptr);
              }) == 0);

        uint32_t n_tasks = 0;
        CHECK(allocations_of([&] {
                  return kvl_attend_begin(attention.get(), &sequence, 1, workspace.data(), workspace.size(), 2, &n_tasks);
              }) == 0);
        for (uint32_t task = 0; task < n_tasks; ++task) {
            CHECK(allocations_of([&] { return kvl_attend_run_task(workspace.data(), task); }) == 0);
        }
        CHECK(allocations_of([&] { return kvl_attend_finish(workspace.data()); }) == 0);
        uint64_t bytes = 0;
        CHECK(allocations_of([&] { return kvl_attend_bytes(attention.get(), &sequence, 1, &bytes); }) == 0);
    }
}

#else

TEST_CASE("allocations are not counted here") {
    MESSAGE("skipped: a sanitizer owns the allocator, or the C library is not glibc");
}

#endif
