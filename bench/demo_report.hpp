#pragma once

// How the demo shows what it measured: a table of at most 80 columns, or JSON; and how far it is, on a terminal.

#include <string>
#include <vector>

#include "decode_case.hpp"

namespace bench {

struct DemoRow {
    Shape shape;
    DecodeFigures decode;
    int repetitions;
    double naive_seconds;  // of f16 where the row's format is an integer one
    double difference;
    double largest_difference;  // that is right
    double spread;              // of the calls' times: their interquartile range over the median

    bool is_right() const { return difference <= largest_difference; }  // not where it is NaN
    // Whether other programs kept the row from what the machine can do: see the legend.
    bool is_disturbed() const;
};

bool all_right(const std::vector<DemoRow> &rows);

void print_table_head(int threads);
std::string table_row(const DemoRow &row);
void print_table_legend(const std::vector<DemoRow> &rows);

void print_json(const std::vector<DemoRow> &rows, int threads);

// "3 of 45, about 20 s left", in place, on a terminal; nothing anywhere else.
class Progress {
public:
    explicit Progress(size_t n_rows);
    void start(size_t row);
    void erase() const;  // before a line is printed

private:
    size_t n_rows_;
    double started_;
    bool is_shown_;
};

}  // namespace bench
