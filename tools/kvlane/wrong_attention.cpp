// Loaded before the library, it makes attention wrong in one way, which kvlane check must notice.

#include <dlfcn.h>

#include <cmath>
#include <cstdlib>
#include <string>

#include "kvlane/kvlane.h"

namespace {

bool is_wrong(const char *what) {
    const char *wrong = std::getenv("WRONG");
    return wrong && std::string(wrong) == what;
}

template <class Function>
Function *right(Function *, const char *name) {
    return reinterpret_cast<Function *>(dlsym(RTLD_NEXT, name));
}

}  // namespace

// The check of accuracy has 4096 tokens, that of storage 1024. Determinism is about the last bit.
extern "C" kvl_status kvl_attend(const kvl_attention *attention, const kvl_sequence *sequences, uint32_t n_sequences,
                                 void *workspace, size_t workspace_bytes, const kvl_executor *executor) {
    const kvl_status status =
        right(&kvl_attend, "kvl_attend")(attention, sequences, n_sequences, workspace, workspace_bytes, executor);
    const kvl_sequence &first = sequences[0];
    auto *out = static_cast<float *>(first.out);
    if (is_wrong("accuracy") && first.len == 4096) {
        out[0] += 1;
    }
    if ((is_wrong("threads") && executor) || (is_wrong("batch") && n_sequences > 1) ||
        (is_wrong("pieces") && first.n_queries > 1) || (is_wrong("blocks") && first.view->block_tokens > 0)) {
        out[0] = std::nextafter(out[0], HUGE_VALF);
    }
    return status;
}

extern "C" kvl_status kvl_cache_read_k(const kvl_cache *cache, uint32_t layer, int64_t first, int64_t n_tokens, float *out,
                                       size_t out_len) {
    const kvl_status status = right(&kvl_cache_read_k, "kvl_cache_read_k")(cache, layer, first, n_tokens, out, out_len);
    if (is_wrong("storage") && n_tokens == 1024) {
        out[0] += 1;
    }
    return status;
}
