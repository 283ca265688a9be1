// Conversion of masks and biases from what callers have.

#include <algorithm>

#include "../mask.hpp"
#include "../registry.hpp"
#include "validate.hpp"

using namespace kvlane;

namespace {

kvl_status check_rows(int64_t n_rows, int64_t n, int64_t row_bytes, int64_t stride_bytes, const char *n_name) {
    KVLANE_TRY(check_range(n_rows, 0, INT64_MAX, "n_rows"));
    KVLANE_TRY(check_range(n, 0, KVL_MAX_TOKENS, n_name));
    const int64_t most = n_rows > 1 ? KVL_MAX_EXTENT_BYTES / (n_rows - 1) : 0;
    return n_rows <= 1 || (stride_bytes >= row_bytes && stride_bytes <= most)
               ? KVL_OK
               : fail(KVL_ERROR_STRIDE,
                      "stride_bytes is %" PRId64 "; it must be from a row's %" PRId64 " bytes to %" PRId64
                      ", KVL_MAX_EXTENT_BYTES / %" PRId64,
                      stride_bytes, row_bytes, most, n_rows - 1);
}

}  // namespace

kvl_status kvl_mask_bits_from_bytes(const uint8_t *bytes, int64_t n_rows, int64_t n_tokens, int64_t stride_bytes,
                                    uint64_t *bits) {
    KVLANE_TRY(check_rows(n_rows, n_tokens, n_tokens, stride_bytes, "n_tokens"));
    if (n_rows == 0 || n_tokens == 0) {
        return KVL_OK;
    }
    KVLANE_TRY(check_not_null(bytes, "bytes"));
    KVLANE_TRY(check_not_null(bits, "bits"));
    for (int64_t row = 0; row < n_rows; ++row) {
        const uint8_t *const from = bytes + row * stride_bytes;
        for (int64_t first = 0; first < n_tokens; first += word_tokens) {
            uint64_t word = 0;
            for (int64_t t = first; t < std::min(n_tokens, first + word_tokens); ++t) {
                word |= uint64_t{from[t] != 0} << (t - first);
            }
            *bits++ = word;
        }
    }
    return KVL_OK;
}

kvl_status kvl_rows_to_f32(kvl_format format, const void *rows, int64_t n_rows, int64_t n, int64_t stride_bytes,
                           float *out) {
    KVLANE_TRY(check_row_format(format, "format"));
    const int64_t element_bytes = format::bits_of[format] / 8;
    KVLANE_TRY(check_rows(n_rows, n, n * element_bytes, stride_bytes, "n"));
    if (n_rows == 0 || n == 0) {
        return KVL_OK;
    }
    KVLANE_TRY(check_not_null(rows, "rows"));
    KVLANE_TRY(check_not_null(out, "out"));
    const KernelTable *kernels;
    KVLANE_TRY(kernels_in_force(kernels));
    constexpr int64_t at_once = 1024;
    float converted[at_once + panel::columns];
    for (int64_t row = 0; row < n_rows; ++row) {
        const auto *const from = static_cast<const std::byte *>(rows) + row * stride_bytes;
        for (int64_t i = 0; i < n; i += at_once) {
            const int64_t n_elements = std::min(at_once, n - i);
            kernels->load_row(format, from + i * element_bytes, static_cast<int>(n_elements), converted);
            out = std::copy_n(converted, n_elements, out);
        }
    }
    return KVL_OK;
}
