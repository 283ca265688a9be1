// Placement of KV heads on NUMA nodes: by policy, and by the thread that first writes to a page. On a machine of one node
// the policies are asserted; `./dev numa` runs these tests on one of two nodes.

#include <doctest/doctest.h>

#include <cerrno>
#include <functional>
#include <thread>

#include "answers.hpp"

#if defined(__linux__)
#include <linux/filter.h>
#include <linux/mempolicy.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fstream>

using kvlane::Cache;
using kvlane::Format;
using kvlane::Layer;

namespace {

constexpr uint32_t n_kv_heads = 3, head_dim = 24;
constexpr int64_t max_tokens = 4160;  // whose tiles do not fill whole pages

Layer layer(std::span<const int32_t> nodes, Format format = Format::f16, int64_t n_recent = 0) {
    return {.n_kv_heads = n_kv_heads,
            .head_dim = head_dim,
            .k_format = format,
            .v_format = format,
            .n_recent_f16 = n_recent,
            .numa_nodes = nodes};
}

struct Policy {
    int mode = -1;
    unsigned long nodes = 0;  // the first 64
    bool operator==(const Policy &) const = default;
};

Policy policy_at(const std::byte *address) {
    Policy policy;
    unsigned long mask[16] = {};
    if (syscall(SYS_get_mempolicy, &policy.mode, mask, 1024, address, MPOL_F_ADDR) != 0) {
        return {};
    }
    policy.nodes = mask[0];
    return policy;
}

// Prints why and returns true where the system has no policies, as under an emulator.
bool lacks_policies() {
    int mode;
    const bool lacks = syscall(SYS_get_mempolicy, &mode, nullptr, 0, nullptr, 0) != 0;
    if (lacks) {
        MESSAGE("skipped: this system has no memory policies: " << std::strerror(errno));
    }
    return lacks;
}

// The nodes that this process may use, in ascending order.
std::vector<int32_t> usable_nodes() {
    unsigned long mask[16] = {};
    REQUIRE(syscall(SYS_get_mempolicy, nullptr, mask, 1024, nullptr, MPOL_F_MEMS_ALLOWED) == 0);
    std::vector<int32_t> nodes;
    for (int32_t node = 0; node < 64; ++node) {
        if (mask[0] >> node & 1) {
            nodes.push_back(node);
        }
    }
    return nodes;
}

// The node that holds the page of an address, or -errno if none does: ENOENT or EFAULT, by the kernel.
int node_of(const std::byte *address) {
    const void *page = address;
    int node = -1;
    REQUIRE(syscall(SYS_move_pages, 0, 1, &page, nullptr, &node, 0) == 0);
    return node;
}

std::byte *tile_of(const kvl_view &view, uint32_t kv_head, int64_t token) {
    return const_cast<std::byte *>(static_cast<const std::byte *>(view.spans->k)) + kv_head * view.k_head_stride_bytes +
           token / KVL_TILE_TOKENS * view.k_token_stride_bytes;
}

// Pages of whole tiles of tokens [first, end) of a head: all, and those that the system has committed.
struct Pages {
    int64_t n = 0, n_committed = 0;

    Pages(const Cache &cache, uint32_t kv_head, int64_t first, int64_t end) {
        const kvl_view view = cache.view(0);
        for (std::byte *at = tile_of(view, kv_head, first); at < tile_of(view, kv_head, end); at += sysconf(_SC_PAGESIZE)) {
            ++n;
            n_committed += node_of(at) >= 0;
        }
    }
};

// A CPU of a node, or -1.
int cpu_of(int32_t node) {
    std::ifstream list("/sys/devices/system/node/node" + std::to_string(node) + "/cpulist");
    int cpu = -1;
    list >> cpu;
    return cpu;
}

// From now on, a system call of this thread fails with EPERM. -> whether the system can do so
bool refuse(long call) {
    sock_filter filter[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(call), 0, 1),
                            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
                            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    const sock_fprog program{static_cast<unsigned short>(std::size(filter)), filter};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

void run_on(int cpu, const std::function<void()> &body) {
    std::thread([&] {
        cpu_set_t cpus;
        CPU_ZERO(&cpus);
        CPU_SET(cpu, &cpus);
        REQUIRE(sched_setaffinity(0, sizeof cpus, &cpus) == 0);
        body();
    }).join();
}

}  // namespace

TEST_CASE("numa: the memory of each KV head prefers the head's node, and that of others keeps the process's policy") {
    if (lacks_policies()) {
        return;
    }
    const int32_t nodes[] = {usable_nodes().back(), -1, usable_nodes().front()};
    for (const int64_t n_recent : {0, 64}) {  // the latter: in two pools
        const Cache cache(2, layer(nodes, n_recent ? Format::q8 : Format::f16, n_recent), max_tokens);
        const Policy of_process = policy_at(reinterpret_cast<const std::byte *>(&cache));
        for (uint32_t i = 0; i < 2; ++i) {
            const kvl_view view = cache.view(i);
            for (uint32_t head = 0; head < n_kv_heads; ++head) {
                const Policy wanted = nodes[head] < 0 ? of_process : Policy{MPOL_PREFERRED, 1UL << nodes[head]};
                CHECK(policy_at(tile_of(view, head, 0)) == wanted);
                CHECK(policy_at(tile_of(view, head, max_tokens) - 1) == wanted);
            }
        }
    }
}

TEST_CASE("numa: the pages of tokens lie on the nodes of their KV heads, whichever thread appends") {
    if (lacks_policies()) {
        return;
    }
    const std::vector<int32_t> usable = usable_nodes();
    const int32_t nodes[] = {usable.back(), usable.front(), usable.back()};
    Cache cache(1, layer(nodes), max_tokens);
    test::fill_random(cache, 640, 1);
    const Cache copy = cache.copy();
    for (const Cache *const one : std::initializer_list<const Cache *>{&cache, &copy}) {
        const kvl_view view = one->view(0);
        for (uint32_t head = 0; head < n_kv_heads; ++head) {
            CHECK(node_of(tile_of(view, head, 0)) == nodes[head]);
            CHECK(node_of(tile_of(view, head, 640) - 1) == nodes[head]);
        }
    }
}

TEST_CASE("numa: a commit takes the pages of its KV heads from the node of its thread") {
    if (lacks_policies()) {
        return;
    }
    Cache cache(1, layer({}), max_tokens, KVL_CACHE_NO_HUGE_PAGES);
    uint32_t head = 0;
    for (const int32_t node : {usable_nodes().back(), usable_nodes().front()}) {
        const int cpu = cpu_of(node);
        if (cpu < 0) {
            MESSAGE("skipped: node " << node << " has no CPU");
            continue;
        }
        run_on(cpu, [&] { cache.commit(0, head, 1, 1024); });
        const kvl_view view = cache.view(0);
        CHECK(node_of(tile_of(view, head, 0)) == node);
        CHECK(node_of(tile_of(view, head, 1024) - 1) == node);
        ++head;
    }
}

TEST_CASE("numa: a commit commits the pages of its heads and tokens alone, and changes no token") {
    if (lacks_policies()) {
        return;
    }
    for (const Format format : test::all_formats()) {
        CAPTURE(test::name_of(format));
        Cache plain(1, layer({}, format), max_tokens, KVL_CACHE_NO_HUGE_PAGES);
        Cache cache(1, layer({}, format), max_tokens, KVL_CACHE_NO_HUGE_PAGES);
        test::fill_random(plain, 100, 1);
        test::fill_random(cache, 100, 1);
        CHECK(Pages(cache, 1, 128, 2048).n_committed <= 1);  // one that the token before is in
        cache.commit(0, 1, 1, 2048);
        CHECK(Pages(cache, 1, 128, 2048).n_committed == Pages(cache, 1, 128, 2048).n);
        CHECK(Pages(cache, 0, 128, 2048).n_committed <= 1);
        CHECK(Pages(cache, 1, 2048, max_tokens).n_committed <= 2);  // and one that the next head's first token is in
        cache.commit(0, 0, n_kv_heads, 64);                         // in use already
        test::fill_random(plain, 500, 7);
        test::fill_random(cache, 500, 7);
        CHECK(cache.read_k(0) == plain.read_k(0));
        CHECK(cache.read_v(0) == plain.read_v(0));
    }
}

TEST_CASE("numa: a commit also commits tiles whose tokens are still in the f16 window") {
    if (lacks_policies()) {
        return;
    }
    // Where tiles of q8 begin, from those of f16, as in a cache that has both.
    const Layer with_window = layer({}, Format::q8, 256);
    Cache both(1, with_window, max_tokens, KVL_CACHE_NO_HUGE_PAGES);
    test::fill_random(both, 704, 1);
    const kvl_view q8 = both.view(0), &f16 = *q8.next;
    const int64_t first_f16 = q8.len - f16.len;
    const std::byte *const f16_tiles =
        static_cast<const std::byte *>(f16.spans->k) - first_f16 / KVL_TILE_TOKENS * f16.k_token_stride_bytes;
    const int64_t distance = static_cast<const std::byte *>(q8.spans->k) - f16_tiles;

    Cache cache(1, with_window, max_tokens, KVL_CACHE_NO_HUGE_PAGES);
    test::fill_random(cache, 200, 1);
    const std::byte *const tiles = static_cast<const std::byte *>(cache.view(0).spans->k) + distance;
    const std::byte *const last = tiles + 200 / KVL_TILE_TOKENS * q8.k_token_stride_bytes;
    CHECK(node_of(tiles) < 0);
    cache.commit(0, 0, 1, 2048);
    CHECK(node_of(tiles) >= 0);
    CHECK(node_of(last) >= 0);
}

TEST_CASE("errors: a system that refuses its nodes, or to place memory on them") {
    if (lacks_policies()) {
        return;
    }
    const int32_t usable = usable_nodes().front();
    for (const auto &[call, text] : {std::pair{SYS_get_mempolicy, "layers[0]: numa_nodes is set; get_mempolicy"},
                                     {SYS_mbind, "layers[0]: numa_nodes[1] is "}}) {
        std::thread([&, call = call, text = text] {
            if (!refuse(call)) {
                MESSAGE("skipped: this system filters no system calls");
                return;
            }
            const int32_t nodes[] = {-1, usable, usable};
            const kvl_layer_desc desc = layer(nodes).desc();
            kvl_cache_desc cache_desc = kvl_cache_desc_init();
            cache_desc.n_layers = cache_desc.n_layer_descs = 1;
            cache_desc.layers = &desc;
            kvl_cache *cache = nullptr;
            CHECK(kvl_cache_create(&cache_desc, &cache) == KVL_ERROR_NUMA);
            CHECK(std::string(kvl_last_error()).starts_with(text));
            CHECK(std::string(kvl_last_error()).ends_with(std::strerror(EPERM)));
            CHECK(cache == nullptr);
        }).join();
    }
}

TEST_CASE("errors: nodes that this process may not use, and heads or tokens to commit that a layer lacks") {
    const auto text_of = [](const std::function<void()> &body) -> std::string {
        try {
            body();
        } catch (const kvlane::Error &error) {
            CHECK(error.status() == KVL_ERROR_RANGE);
            return error.what();
        }
        return "no error";
    };
    for (const int32_t wrong : {-2, 1000, 1 << 20}) {
        const int32_t nodes[] = {-1, wrong, -1};
        CHECK(text_of([&] { Cache(1, layer(nodes), max_tokens); })
                  .starts_with("layers[0]: numa_nodes[1] is " + std::to_string(wrong) +
                               "; it must be -1 or a node whose memory this process may use: "));
    }
    Cache cache(1, layer({}), max_tokens);
    CHECK(text_of([&] { cache.commit(0, 4, 0, 1); }) == "first_kv_head is 4; it must be from 0 to 3");
    CHECK(text_of([&] { cache.commit(0, 1, 3, 1); }) == "n_kv_heads is 3; it must be from 0 to 2");
    CHECK(text_of([&] { cache.commit(0, 0, 1, 4161); }) == "n_tokens is 4161; it must be from 0 to 4160");
}

#endif
