// kvlane-context-parallel: decode attention over the ranks of MPI, each of which holds a range of a sequence's tokens.

#include <kvlane/kvlane.hpp>
#include <kvlane/tbb.hpp>

#include <mpi.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "chain.hpp"
#include "options.hpp"
#include "shard.hpp"

namespace {

using namespace context_parallel;
using Floats = std::vector<float>;

constexpr int first_rank = 0;

struct World {
    int rank, size;

    World() {
        MPI_Comm_rank(MPI_COMM_WORLD, &rank);
        MPI_Comm_size(MPI_COMM_WORLD, &size);
    }
};

double median(std::vector<double> values) {
    const auto middle = values.begin() + std::ssize(values) / 2;
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

enum class RowKind { queries, keys, values };

// Random rows of n_tokens tokens, the same on every rank, in place of a model's projections.
Floats random_rows(RowKind kind, uint32_t layer, int64_t first, int64_t n_tokens, size_t entry) {
    Floats rows;
    rows.reserve(static_cast<size_t>(n_tokens) * entry);
    for (int64_t token = first; token < first + n_tokens; ++token) {
        std::seed_seq seed{static_cast<uint32_t>(kind), layer, static_cast<uint32_t>(token)};
        std::minstd_rand generator(seed);
        std::uniform_real_distribution<float> uniform(-1.7f, 1.7f);
        std::generate_n(std::back_inserter(rows), entry, [&] { return uniform(generator); });
    }
    return rows;
}

// The geometry, and the sink logits that it refers to.
struct Shape {
    Floats sink_logits;
    kvlane::Geometry geometry;

    explicit Shape(const Options &options)
        : geometry{.n_query_heads = options.n_query_heads,
                   .n_kv_heads = options.n_kv_heads,
                   .head_dim = options.head_dim,
                   .v_head_dim = options.v_head_dim ? options.v_head_dim : options.head_dim,
                   .k_format = kvlane::format_from_name(options.format),
                   .v_format = kvlane::format_from_name(options.format),
                   .window = options.window,
                   .n_sink_tokens = options.n_sink_tokens,
                   .softcap = options.softcap} {
        for (uint32_t head = 0; options.has_sink_logits && head < options.n_query_heads; ++head) {
            sink_logits.push_back(1 - 0.25f * static_cast<float>(head));
        }
        geometry.sink_logits = sink_logits;
    }
    Shape(const Shape &) = delete;
    Shape &operator=(const Shape &) = delete;

    size_t q_entry() const { return size_t{geometry.n_query_heads} * geometry.head_dim; }
    size_t out_entry() const { return size_t{geometry.n_query_heads} * geometry.v_head_dim; }
};

// All tokens in one cache, with which the outputs of all ranks are compared.
class Reference {
public:
    Reference(const kvlane::Geometry &geometry, uint32_t n_layers, int64_t max_tokens, uint32_t max_queries)
        : cache_(n_layers, layer_of(geometry), max_tokens),
          attention_(geometry),
          workspace_(attention_.workspace(1, max_tokens, max_queries)) {}

    void append(uint32_t layer, int64_t, const Floats &k, const Floats &v) { cache_.append(layer, k, v); }
    void advance() { cache_.advance(cache_.info(0).len - cache_.len()); }

    void attend(uint32_t layer, uint32_t n_queries, const Floats &q, Floats &out) {
        const kvl_view view = cache_.view(layer);
        attention_.attend({.view = &view, .len = view.len, .n_queries = n_queries, .q = q.data(), .out = out.data()},
                          workspace_);
    }

private:
    kvlane::Cache cache_;
    kvlane::Attention attention_;
    kvlane::Workspace workspace_;
};

// What a rank measures of each layer of each step, in microseconds; then, on the first rank, the largest of all ranks.
struct Times {
    std::vector<double> attention, merges, layer;
};

// One rank of a run.
class Run {
public:
    Run(const Options &options, const Shape &shape, const kvl_executor *executor)
        : options_(options),
          shape_(shape),
          max_tokens_(options.ctx + options.n_steps * options.n_queries),
          share_(divide(max_tokens_, options.n_chunks.empty() ? even_chunks(max_tokens_, world_.size)
                                                              : options.n_chunks)[static_cast<size_t>(world_.rank)]),
          shard_(shape.geometry, options.n_layers, share_, options.n_queries, executor),
          chain_(MPI_COMM_WORLD, shape.geometry, options.n_queries, options.n_pieces, executor) {
        if (options.checks && world_.rank == first_rank) {
            reference_.emplace(shape.geometry, options.n_layers, max_tokens_, options.n_queries);
        }
    }

    void run() {
        fill();
        const double latency = measure_latency();
        for (int64_t step = 0; step < options_.n_steps; ++step) {
            decode(options_.ctx + step * options_.n_queries);
        }
        report(latency);
    }

private:
    // Appends the tokens of every layer to a shard or the reference.
    template <class To>
    void append(To &to, int64_t first, int64_t n_tokens) {
        for (uint32_t layer = 0; layer < options_.n_layers; ++layer) {
            append(to, layer, first, n_tokens);
        }
        to.advance();
    }

    template <class To>
    void append(To &to, uint32_t layer, int64_t first, int64_t n_tokens) {
        const kvlane::Geometry &g = shape_.geometry;
        to.append(layer, first, random_rows(RowKind::keys, layer, first, n_tokens, size_t{g.n_kv_heads} * g.head_dim),
                  random_rows(RowKind::values, layer, first, n_tokens, size_t{g.n_kv_heads} * g.v_head_dim));
    }

    // Appends the tokens before the first step.
    void fill() {
        constexpr int64_t n_at_once = KVL_CHUNK_TOKENS;
        for (int64_t first = 0; first < options_.ctx; first += n_at_once) {
            const int64_t n_tokens = std::min(n_at_once, options_.ctx - first);
            if (first < share_.end && first + n_tokens > share_.first) {
                append(shard_, first, n_tokens);
            }
            if (reference_) {
                append(*reference_, first, n_tokens);
            }
        }
    }

    // One step: n_queries new tokens from position `first` on pass through all layers.
    void decode(int64_t first) {
        const int64_t n_new = options_.n_queries;
        Floats out(static_cast<size_t>(n_new) * shape_.out_entry());
        for (uint32_t layer = 0; layer < options_.n_layers; ++layer) {
            append(shard_, layer, first, n_new);
            const Floats q = random_rows(RowKind::queries, layer, first, n_new, shape_.q_entry());
            attend(layer, first + n_new, q, out);
            if (options_.checks) {
                check(layer, first, q, out);
            }
        }
        shard_.advance();
        if (reference_) {
            reference_->advance();
        }
    }

    // Attention is measured alone first. A layer begins on all ranks together, as in a model whose other operators all of
    // them run.
    void attend(uint32_t layer, int64_t len, const Floats &q, Floats &out) {
        const double merged_before = chain_.merge_seconds();
        MPI_Barrier(MPI_COMM_WORLD);
        const double start = MPI_Wtime();
        shard_.attend(layer, len, options_.n_queries, q.data());
        MPI_Barrier(MPI_COMM_WORLD);
        const double attended = MPI_Wtime();
        chain_.reduce(shard_.attend(layer, len, options_.n_queries, q.data()), options_.n_queries, out.data());
        times_.layer.push_back((MPI_Wtime() - attended) * 1e6);
        times_.attention.push_back((attended - start) * 1e6);
        times_.merges.push_back((chain_.merge_seconds() - merged_before) * 1e6);
    }

    void check(uint32_t layer, int64_t first, const Floats &q, const Floats &out) {
        Floats expected(out.size());
        if (reference_) {
            append(*reference_, layer, first, options_.n_queries);
            reference_->attend(layer, options_.n_queries, q, expected);
        }
        MPI_Bcast(expected.data(), static_cast<int>(expected.size()), MPI_FLOAT, first_rank, MPI_COMM_WORLD);
        if (std::memcmp(expected.data(), out.data(), out.size() * sizeof(float)) != 0) {
            throw std::runtime_error("rank " + std::to_string(world_.rank) + ", layer " + std::to_string(layer) +
                                     ", position " + std::to_string(first) +
                                     ": the output differs from that of one kvl_attend");
        }
        ++n_checked_;
    }

    // Returns the latency of a message of one float between the first two ranks in microseconds: half a round trip.
    double measure_latency() const {
        constexpr int n_trips = 51;
        std::vector<double> trips;
        while (world_.size > 1 && world_.rank < 2 && trips.size() < n_trips) {
            const int other = 1 - world_.rank;
            float ball = 0;
            MPI_Request sent;
            const double start = MPI_Wtime();
            if (world_.rank == 1) {
                MPI_Recv(&ball, 1, MPI_FLOAT, other, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
            }
            MPI_Isend(&ball, 1, MPI_FLOAT, other, 0, MPI_COMM_WORLD, &sent);
            if (world_.rank == 0) {
                MPI_Recv(&ball, 1, MPI_FLOAT, other, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
            }
            MPI_Waitall(1, &sent, MPI_STATUSES_IGNORE);
            trips.push_back((MPI_Wtime() - start) * 1e6);
        }
        return trips.empty() ? 0 : median(trips) / 2;
    }

    // The first rank prints a line for each result: its name, and one number or several.
    void report(double latency) {
        for (std::vector<double> *times : {&times_.attention, &times_.merges, &times_.layer}) {
            std::vector<double> largest(times->size());
            MPI_Reduce(times->data(), largest.data(), static_cast<int>(largest.size()), MPI_DOUBLE, MPI_MAX, first_rank,
                       MPI_COMM_WORLD);
            *times = largest;
        }
        const uint64_t bytes = chain_.bytes_sent();
        std::vector<uint64_t> bytes_of_ranks(static_cast<size_t>(world_.size));
        MPI_Gather(&bytes, 1, MPI_UINT64_T, bytes_of_ranks.data(), 1, MPI_UINT64_T, first_rank, MPI_COMM_WORLD);
        if (world_.rank != first_rank) {
            return;
        }
        std::printf("ranks %d\nlatency_us %.1f\nattention_us %.1f\nmerges_us %.1f\nlayer_us %.1f\n", world_.size, latency,
                    median(times_.attention), median(times_.merges), median(times_.layer));
        std::printf("bytes_sent");
        for (const uint64_t of_rank : bytes_of_ranks) {
            std::printf(" %" PRIu64, of_rank);
        }
        std::printf("\n");
        if (options_.checks) {
            std::printf("identical_outputs %" PRId64 "\n", n_checked_);
        }
    }

    const Options &options_;
    const Shape &shape_;
    World world_;
    int64_t max_tokens_;
    Positions share_;
    Shard shard_;
    Chain chain_;
    std::optional<Reference> reference_;
    Times times_;
    int64_t n_checked_ = 0;
};

}  // namespace

int main(int argc, char **argv) {
    int threads_provided = 0;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &threads_provided);  // the pool's threads do not call MPI
    const World world;
    Options options;
    CLI::App app(
        "Decodes random tokens, whose keys and values are divided among the ranks of MPI; reports times and bytes sent",
        "kvlane-context-parallel");
    declare(app, options, world.size);
    int status = 0;
    try {
        app.parse(argc, argv);
        if (options.n_threads > 1 && threads_provided < MPI_THREAD_FUNNELED) {
            throw std::runtime_error("--threads is " + std::to_string(options.n_threads) +
                                     "; it must be 1, because this MPI allows no threads");
        }
        const Shape shape(options);
        kvlane::TbbPool pool(options.n_threads);
        const kvl_executor executor = pool.executor();
        Run(options, shape, options.n_threads > 1 ? &executor : nullptr).run();
    } catch (const CLI::ParseError &error) {  // on all ranks alike
        status = world.rank == first_rank ? app.exit(error) : error.get_exit_code();
    } catch (const std::exception &error) {
        std::fprintf(stderr, "kvlane-context-parallel: %s\n", error.what());
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
    MPI_Finalize();
    return status;
}
