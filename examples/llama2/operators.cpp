#include "operators.hpp"

#include <algorithm>
#include <cmath>

namespace llama2 {
namespace {

// In lanes, because a compiler may not reorder one running sum and so cannot use vectors for it.
float dot(std::span<const float> a, std::span<const float> b) {
    constexpr size_t n_lanes = 16;
    float lanes[n_lanes] = {};
    size_t i = 0;
    for (; i + n_lanes <= a.size(); i += n_lanes) {
        for (size_t lane = 0; lane < n_lanes; ++lane) {
            lanes[lane] += a[i + lane] * b[i + lane];
        }
    }
    float sum = 0;
    for (; i < a.size(); ++i) {
        sum += a[i] * b[i];
    }
    for (const float lane : lanes) {
        sum += lane;
    }
    return sum;
}

// Some rows of a product, the unit of work. A row is summed by one thread, whoever that is.
struct Product {
    std::span<float> out;
    std::span<const float> matrix;
    std::span<const float> x;
    size_t n_vectors;
    size_t rows_per_task;

    size_t n_rows() const { return out.size() / n_vectors; }
    size_t n_columns() const { return x.size() / n_vectors; }
    uint32_t n_tasks() const { return static_cast<uint32_t>((n_rows() + rows_per_task - 1) / rows_per_task); }

    void run(uint32_t task) const {
        const size_t begin = task * rows_per_task;
        const size_t end = std::min(begin + rows_per_task, n_rows());
        for (size_t row = begin; row < end; ++row) {
            for (size_t i = 0; i < n_vectors; ++i) {
                out[i * n_rows() + row] =
                    dot(matrix.subspan(row * n_columns(), n_columns()), x.subspan(i * n_columns(), n_columns()));
            }
        }
    }
};

}  // namespace

void add(std::span<float> x, std::span<const float> y) {
    for (size_t i = 0; i < x.size(); ++i) {
        x[i] += y[i];
    }
}

void multiply(std::span<float> out, std::span<const float> matrix, std::span<const float> x, size_t n_vectors,
              const kvl_executor *executor) {
    constexpr size_t task_size = 16384;  // enough multiplications to be worth handing to a thread
    const Product product{out, matrix, x, n_vectors, std::max<size_t>(1, task_size / x.size())};
    const auto run = [](void *context, uint32_t task) { static_cast<const Product *>(context)->run(task); };
    if (executor && product.n_tasks() > 1) {
        executor->parallel_for(executor->pool, product.n_tasks(), run, const_cast<Product *>(&product));
        return;
    }
    for (uint32_t task = 0; task < product.n_tasks(); ++task) {
        product.run(task);
    }
}

void rms_norm(std::span<float> out, std::span<const float> x, std::span<const float> weight, float epsilon) {
    const size_t dim = weight.size();
    for (size_t first = 0; first < x.size(); first += dim) {
        const auto vector = x.subspan(first, dim);
        const float scale = 1 / std::sqrt(dot(vector, vector) / static_cast<float>(dim) + epsilon);
        for (size_t i = 0; i < dim; ++i) {
            out[first + i] = weight[i] * (scale * vector[i]);
        }
    }
}

void set_turns(std::span<std::complex<float>> turns, int64_t pos, float theta) {
    for (size_t i = 0; i < turns.size(); ++i) {
        const float exponent = static_cast<float>(i) / static_cast<float>(turns.size());
        turns[i] = std::polar(1.0f, static_cast<float>(pos) * std::pow(theta, -exponent));
    }
}

void rotate(std::span<float> heads, std::span<const std::complex<float>> turns, size_t n_tokens) {
    const size_t of_token = heads.size() / n_tokens, n_turns = turns.size() / n_tokens;
    for (size_t i = 0; i < heads.size(); i += 2) {
        const size_t turn = i / of_token * n_turns + i % of_token / 2 % n_turns;
        const std::complex<float> turned = std::complex(heads[i], heads[i + 1]) * turns[turn];
        heads[i] = turned.real();
        heads[i + 1] = turned.imag();
    }
}

void swiglu(std::span<float> gate, std::span<const float> up) {
    for (size_t i = 0; i < gate.size(); ++i) {
        gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
    }
}

}  // namespace llama2
