#include <kvlane/kvlane.hpp>

#if defined(CONSUMER_OPENMP)
#include <kvlane/openmp.hpp>
#endif
#if defined(CONSUMER_TBB)
#include <kvlane/tbb.hpp>
#endif

#include <cstdio>
#include <vector>

namespace {

bool attends(const kvl_executor *executor) {
    kvlane::Cache cache(1, {.n_kv_heads = 2, .head_dim = 4}, 1000);
    const std::vector<float> ones(1000 * 2 * 4, 1.0f);
    cache.append(0, ones, ones);
    cache.advance(1000);
    const kvlane::Attention attention({.n_query_heads = 4, .n_kv_heads = 2, .head_dim = 4});
    kvlane::Workspace workspace = attention.workspace(1, cache.len(), 1, kvlane::max_tasks(executor));
    std::vector<float> out(4 * 4);
    attention.attend(cache.view(0), ones.data(), out.data(), workspace, executor);
    return out == std::vector<float>(4 * 4, 1.0f);
}

}  // namespace

int main() {
    bool ok = attends(nullptr);
#if defined(CONSUMER_OPENMP)
    kvlane::OpenMpPool openmp(2);
    const kvl_executor on_openmp = openmp.executor();
    ok = ok && attends(&on_openmp);
#endif
#if defined(CONSUMER_TBB)
    kvlane::TbbPool tbb(2);
    const kvl_executor on_tbb = tbb.executor();
    ok = ok && attends(&on_tbb);
#endif
    std::printf(ok ? "kvlane attends\n" : "failed: the mean of ones is not one\n");
    return ok ? 0 : 1;
}
