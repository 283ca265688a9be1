#include "plot.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <sstream>
#include <stdexcept>

#include "child.hpp"

#ifdef __APPLE__
extern char **environ;  // Linux's unistd.h declares it
#endif

namespace tool {
namespace {

std::string terminal_for(const std::string &path) {
    if (path.ends_with(".svg")) {
        return "svg";
    }
    if (path.ends_with(".png")) {
        return "pngcairo";
    }
    throw std::runtime_error("--plot is \"" + path + "\"; it must end in .svg or .png");
}

std::string cause(int error) { return std::strerror(error); }

// Runs gnuplot with the text on its standard input and `output` as its standard output; no shell reads any of it.
void run_gnuplot(const std::string &text, int output) {
    const std::unique_ptr<std::FILE, int (*)(std::FILE *)> input(std::tmpfile(), std::fclose);
    if (!input || std::fputs(text.c_str(), input.get()) < 0 || std::fflush(input.get()) != 0 ||
        lseek(fileno(input.get()), 0, SEEK_SET) != 0) {
        throw std::runtime_error("the input of gnuplot cannot be written to a temporary file: " + cause(errno));
    }
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, fileno(input.get()), STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&files, output, STDOUT_FILENO);
    std::string name = "gnuplot";
    char *arguments[] = {name.data(), nullptr};
    pid_t child;
    const int error = posix_spawnp(&child, name.c_str(), &files, nullptr, arguments, environ);
    posix_spawn_file_actions_destroy(&files);
    if (error != 0) {
        throw std::runtime_error("--plot needs the program gnuplot, which cannot be run: " + cause(error));
    }
    if (wait_for(child) != 0) {
        throw std::runtime_error("gnuplot failed: its message is above");
    }
}

// The values of one column of the table, in its order and each once.
template <class Column>
auto distinct(const std::vector<bench::DemoRow> &rows, Column column) {
    std::vector<decltype(column(rows.front()))> values;
    for (const bench::DemoRow &row : rows) {
        if (std::ranges::find(values, column(row)) == values.end()) {
            values.push_back(column(row));
        }
    }
    return values;
}

std::string model_of(const bench::DemoRow &row) { return row.shape.model.name; }
std::string format_of(const bench::DemoRow &row) { return row.shape.format_name(); }
int64_t ctx_of(const bench::DemoRow &row) { return row.shape.ctx; }

// The data of a model and format as gnuplot's block of that name: context, GB/s, GB/s of the limit.
void write_data(const std::vector<bench::DemoRow> &rows, const std::string &model, const std::string &format,
                const std::string &name, std::ostream &script) {
    script << name << " << END\n";
    for (const bench::DemoRow &row : rows) {
        if (model_of(row) == model && format_of(row) == format) {
            const double speed = row.decode.kv_bytes_per_second / 1e9;
            script << ctx_of(row) << ' ' << speed << ' ' << speed / row.decode.limit_fraction << '\n';
        }
    }
    script << "END\n";
}

// One model's panel: a line for each format, and a dotted one for its limit.
void write_panel(const std::vector<bench::DemoRow> &rows, const std::string &model, std::ostream &script) {
    const auto formats = distinct(rows, format_of);
    std::ostringstream lines;
    for (size_t i = 0; i < formats.size(); ++i) {
        const std::string data = "$f" + std::to_string(i);
        write_data(rows, model, formats[i], data, script);
        lines << (i == 0 ? "plot " : ", ") << data << " using 1:2 with linespoints pt 7 ps 0.5 lc " << i + 1 << " title '"
              << formats[i] << "', " << data << " using 1:3 with lines dt 3 lc " << i + 1 << " notitle";
    }
    script << "set title '" << model << "'\n" << lines.str() << '\n';
}

// The contexts as the ticks of a logarithmic axis, with room at both ends.
void write_axes(const std::vector<bench::DemoRow> &rows, std::ostream &script) {
    const auto contexts = distinct(rows, ctx_of);
    const auto [first, last] = std::ranges::minmax(contexts);
    script << "set logscale x 2\nset xrange [" << 0.7 * static_cast<double>(first) << ':' << 1.4 * static_cast<double>(last)
           << "]\nset xtics (";
    for (size_t i = 0; i < contexts.size(); ++i) {
        script << (i == 0 ? "" : ", ") << contexts[i];
    }
    script << ")\nset yrange [0:*]\nset grid\nset key outside bottom center horizontal\n"
              "set xlabel 'context, tokens (dotted: limit)'\nset ylabel 'GB/s of keys and values'\n";
}

// Makes gnuplot write the picture to its standard output.
std::string plot_script(const std::vector<bench::DemoRow> &rows, const std::string &terminal) {
    const auto models = distinct(rows, model_of);
    const size_t n_columns = std::min<size_t>(3, models.size()), n_rows = (models.size() + n_columns - 1) / n_columns;
    std::ostringstream script;
    script << "set terminal " << terminal << " noenhanced background 'white' size " << 380 * n_columns << ',' << 320 * n_rows
           << '\n'
           << "set multiplot layout " << n_rows << ',' << n_columns << '\n';
    write_axes(rows, script);
    for (const std::string &model : models) {
        write_panel(rows, model, script);
    }
    script << "unset multiplot\n";
    return script.str();
}

}  // namespace

Plot::Plot(const std::string &path) : path_(path), terminal_(terminal_for(path)) {
    run_gnuplot("", STDERR_FILENO);
    file_ = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (file_ < 0) {
        throw std::runtime_error("--plot is \"" + path + "\"; the file cannot be written: " + cause(errno));
    }
}

Plot::~Plot() { close(file_); }

void Plot::draw(const std::vector<bench::DemoRow> &rows) const {
    if (ftruncate(file_, 0) != 0) {
        throw std::runtime_error("--plot is \"" + path_ + "\"; the file cannot be written: " + cause(errno));
    }
    run_gnuplot(plot_script(rows, terminal_), file_);
}

}  // namespace tool
