#pragma once

#include <mpi.h>
#include <kvlane/kvlane.hpp>

#include <cstdint>
#include <span>
#include <vector>

namespace context_parallel {

/// Merges the partial states of the chunks of all ranks, in rank order, and gives every rank the outputs.
///
/// The ranks form a chain: a rank receives a state from the previous one, merges the states of its own chunks onto it, one
/// after another, and sends the result to the next rank. The last rank computes the outputs and sends them to all ranks. The
/// rows (query, query head) are divided into pieces that follow each other, so that all ranks merge at the same time. The
/// outputs are bitwise identical to those of a single kvl_attend over all tokens. With R ranks and n rows, a rank sends
///         4 n (2 + v_head_dim) bytes, the last rank 4 n v_head_dim (R - 1) bytes.
class Chain {
public:
    /// geometry: v_head_dim is set; its sink logits, if any, are merged first. n_pieces: at least 1. executor: the threads
    /// that merge, may be null; outlives the chain. All ranks of comm construct a chain together.
    Chain(MPI_Comm comm, const kvlane::Geometry &geometry, uint32_t max_queries, uint32_t n_pieces,
          const kvl_executor *executor);
    ~Chain();
    Chain(const Chain &) = delete;
    Chain &operator=(const Chain &) = delete;

    /// Merges the states of n_queries queries, at most max_queries. All ranks call it with the same n_queries, and their own
    /// chunks' states.
    /// Shape:  out [n_queries, n_query_heads, v_head_dim]
    /// Pre:    the messages, a piece's state and outputs, have at most INT_MAX floats
    void reduce(std::span<const kvl_partial> own, uint32_t n_queries, float *out);

    /// Returns the bytes of all messages that this rank has sent.
    uint64_t bytes_sent() const { return bytes_sent_; }

    /// Returns the time that this rank has spent merging, in seconds.
    double merge_seconds() const { return merge_seconds_; }

private:
    struct Rows {
        uint32_t first, n;
    };

    bool is_last() const { return rank_ + 1 == n_ranks_; }
    kvl_partial state_of(Rows rows);
    void receive_state(Rows rows);
    void merge(std::span<const kvl_partial> own, Rows rows);
    void send_outputs(Rows rows, float *out);
    void send(const float *first, size_t n, int to);

    MPI_Comm comm_ = MPI_COMM_NULL;
    int rank_ = 0;
    int n_ranks_ = 0;
    uint32_t n_query_heads_;
    uint32_t v_head_dim_;
    uint32_t n_pieces_;
    const kvl_executor *executor_;
    std::vector<float> sink_logits_;  // [n_query_heads]
    kvlane::Attention attention_;     // of one query head: merges of any rows
    std::vector<float> state_;        // of all rows, piece by piece: m, l and o of its rows
    std::vector<MPI_Request> requests_;
    uint64_t bytes_sent_ = 0;
    double merge_seconds_ = 0;
};

}  // namespace context_parallel
