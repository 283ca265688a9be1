#include "chain.hpp"

#include <algorithm>
#include <atomic>
#include <limits>

#include "shard.hpp"

namespace context_parallel {
namespace {

// What is merged does not depend on the head, so one attention object with one query head serves any number of rows.
kvlane::Geometry of_one_head(kvlane::Geometry geometry) {
    geometry = without_sink_logits(geometry);
    geometry.n_query_heads = geometry.n_kv_heads = 1;
    geometry.alibi_slopes = {};
    return geometry;
}

std::vector<float> sink_logits_of(const kvlane::Geometry &geometry) {
    std::vector<float> logits(geometry.n_query_heads, -std::numeric_limits<float>::infinity());
    std::copy(geometry.sink_logits.begin(), geometry.sink_logits.end(), logits.begin());
    return logits;
}

kvl_partial from_row(const kvl_partial &partial, size_t row, size_t v_head_dim) {
    return {partial.m + row, partial.l + row, partial.o + row * v_head_dim};
}

// Calls body(i) for i in [0, n) on the executor's threads.
template <class Body>
void parallel_for(const kvl_executor *executor, uint32_t n, Body body) {
    const auto task = [](void *context, uint32_t i) { (*static_cast<Body *>(context))(i); };
    if (executor && n > 1) {
        executor->parallel_for(executor->pool, n, task, &body);
    } else {
        for (uint32_t i = 0; i < n; ++i) {
            body(i);
        }
    }
}

}  // namespace

Chain::Chain(MPI_Comm comm, const kvlane::Geometry &geometry, uint32_t max_queries, uint32_t n_pieces,
             const kvl_executor *executor)
    : n_query_heads_(geometry.n_query_heads),
      v_head_dim_(geometry.v_head_dim),
      n_pieces_(n_pieces),
      executor_(executor),
      sink_logits_(sink_logits_of(geometry)),
      attention_(of_one_head(geometry)),
      state_(size_t{max_queries} * n_query_heads_ * (2 + v_head_dim_)) {
    MPI_Comm_dup(comm, &comm_);  // so that its messages meet no others
    MPI_Comm_rank(comm_, &rank_);
    MPI_Comm_size(comm_, &n_ranks_);
}

Chain::~Chain() { MPI_Comm_free(&comm_); }

void Chain::reduce(std::span<const kvl_partial> own, uint32_t n_queries, float *out) {
    const uint32_t n_rows = n_queries * n_query_heads_, n_pieces = std::min(n_pieces_, n_rows);
    const auto piece = [=](uint64_t i) {
        const auto first = static_cast<uint32_t>(n_rows * i / n_pieces);
        return Rows{first, static_cast<uint32_t>(n_rows * (i + 1) / n_pieces) - first};
    };
    requests_.clear();
    for (uint32_t i = 0; i < n_pieces; ++i) {
        receive_state(piece(i));
        merge(own, piece(i));
        if (is_last()) {
            send_outputs(piece(i), out);
        } else {
            send(state_of(piece(i)).m, size_t{piece(i).n} * (2 + v_head_dim_), rank_ + 1);
        }
    }
    for (uint32_t i = 0; i < n_pieces && !is_last(); ++i) {
        MPI_Recv(out + size_t{piece(i).first} * v_head_dim_, static_cast<int>(piece(i).n * v_head_dim_), MPI_FLOAT,
                 n_ranks_ - 1, 0, comm_, MPI_STATUS_IGNORE);
    }
    MPI_Waitall(static_cast<int>(requests_.size()), requests_.data(), MPI_STATUSES_IGNORE);
}

// A piece's state is contiguous, one message.
kvl_partial Chain::state_of(Rows rows) {
    float *const first = &state_[size_t{rows.first} * (2 + v_head_dim_)];
    return {first, first + rows.n, first + 2 * size_t{rows.n}};
}

// The first rank's is that of the sink logits.
void Chain::receive_state(Rows rows) {
    const kvl_partial state = state_of(rows);
    if (rank_ > 0) {
        MPI_Recv(state.m, static_cast<int>(rows.n * (2 + v_head_dim_)), MPI_FLOAT, rank_ - 1, 0, comm_, MPI_STATUS_IGNORE);
        return;
    }
    for (uint32_t r = 0; r < rows.n; ++r) {
        state.m[r] = sink_logits_[(rows.first + r) % n_query_heads_];
        state.l[r] = state.m[r] == -std::numeric_limits<float>::infinity() ? 0.0f : 1.0f;
    }
    std::fill_n(state.o, size_t{rows.n} * v_head_dim_, 0.0f);
}

// Merges own states onto the piece's, each task some of its rows.
void Chain::merge(std::span<const kvl_partial> own, Rows rows) {
    const double start = MPI_Wtime();
    const kvl_partial state = state_of(rows);
    const uint32_t n_tasks = std::min(kvlane::max_tasks(executor_), rows.n);
    std::atomic<kvl_status> status = KVL_OK;
    parallel_for(executor_, n_tasks, [&](uint64_t task) {
        const auto first = static_cast<uint32_t>(rows.n * task / n_tasks);
        const auto end = static_cast<uint32_t>(rows.n * (task + 1) / n_tasks);
        std::vector<kvl_partial> partials{from_row(state, first, v_head_dim_)};
        for (const kvl_partial &chunk : own) {
            partials.push_back(from_row(chunk, rows.first + first, v_head_dim_));
        }
        const kvl_status merged = kvl_merge_partials(attention_.get(), partials.data(),
                                                     static_cast<uint32_t>(partials.size()), end - first, partials[0]);
        if (merged != KVL_OK) {
            status = merged;
        }
    });
    if (status != KVL_OK) {
        throw kvlane::Error(status, "partial states could not be merged");
    }
    merge_seconds_ += MPI_Wtime() - start;
}

void Chain::send_outputs(Rows rows, float *out) {
    const kvl_partial state = state_of(rows);
    float *const first = out + size_t{rows.first} * v_head_dim_;
    attention_.merge(std::span(&state, 1), rows.n, first);
    for (int to = 0; to + 1 < n_ranks_; ++to) {
        send(first, size_t{rows.n} * v_head_dim_, to);
    }
}

void Chain::send(const float *first, size_t n, int to) {
    MPI_Isend(first, static_cast<int>(n), MPI_FLOAT, to, 0, comm_, &requests_.emplace_back());
    bytes_sent_ += n * sizeof(float);
}

}  // namespace context_parallel
