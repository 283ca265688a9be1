#include "generate.hpp"

#include <algorithm>
#include <utility>

#include "tokenizer.hpp"

namespace llama2 {
namespace {

std::span<const float> row_of(const Model &model, std::span<const float> logits, size_t token) {
    const size_t vocab_size = model.config().vocab_size;
    return logits.subspan(token * vocab_size, vocab_size);
}

// What the sampler chooses behind the newest known token and behind every guess, up to the first choice that was not
// guessed.
std::vector<uint32_t> choose(const Model &model, Sampler &sampler, std::span<const float> logits,
                             std::span<const uint32_t> guess) {
    std::vector<uint32_t> chosen;
    do {
        chosen.push_back(sampler.choose(row_of(model, logits, chosen.size())));
    } while (chosen.size() <= guess.size() && chosen.back() == guess[chosen.size() - 1]);
    return chosen;
}

// Tokens that all begin with, one less than the shortest has at most: every text has one to be run. A multiple of 64, as
// tiles are: texts are to the last bit then what each would be alone.
size_t n_shared_by(const std::vector<std::vector<uint32_t>> &prompts) {
    size_t n = prompts[0].size() - 1;
    for (const std::vector<uint32_t> &prompt : prompts) {
        n = std::min(n, prompt.size() - 1);
        const auto differs =
            std::mismatch(prompt.begin(), prompt.begin() + static_cast<std::ptrdiff_t>(n), prompts[0].begin());
        n = static_cast<size_t>(differs.first - prompt.begin());
    }
    return n / 64 * 64;
}

struct Text {
    Sequence sequence;
    std::vector<uint32_t> tokens;
    bool is_over = false;

    // What the model has not run yet: the rest of the prompt, or the newest token.
    std::span<const uint32_t> to_run() const { return std::span(tokens).subspan(static_cast<size_t>(sequence.len())); }
};

// One pass over the weights: every text that is not over gets its next token. False where all are over.
bool go_on(Model &model, std::vector<Text> &texts, uint32_t steps) {
    std::vector<Feed> feeds;
    for (Text &text : texts) {
        if (!text.is_over) {
            feeds.push_back({&text.sequence, text.to_run()});
        }
    }
    if (feeds.empty()) {
        return false;
    }
    const std::span<const float> logits = model.forward(feeds);
    Sampler greedy(0, 0);
    size_t n_rows = 0, n_fed = 0;
    for (Text &text : texts) {
        if (!text.is_over) {
            n_rows += feeds[n_fed++].tokens.size();
            const uint32_t next = greedy.choose(row_of(model, logits, n_rows - 1));
            text.is_over = Tokenizer::ends_text(next) || text.tokens.size() == steps;
            if (!Tokenizer::ends_text(next)) {
                text.tokens.push_back(next);
            }
        }
    }
    return true;
}

}  // namespace

std::vector<uint32_t> draft(std::span<const uint32_t> text, size_t most) {
    for (size_t n = std::min<size_t>(3, text.size()); n > 0; --n) {
        const auto newest = text.last(n);
        for (size_t end = text.size() - 1; end >= n; --end) {
            if (std::ranges::equal(newest, text.subspan(end - n, n))) {
                const auto guess = text.subspan(end, std::min(most, text.size() - end));
                return {guess.begin(), guess.end()};
            }
        }
    }
    return {};
}

Effort generate(Model &model, Sequence &sequence, Sampler &sampler, std::span<const uint32_t> prompt, uint32_t steps,
                uint32_t most_drafted, const Print &print) {
    Effort effort;
    std::vector<uint32_t> text;
    const auto write = [&](uint32_t token) {
        if (!text.empty()) {
            print(text.back(), token);
        }
        text.push_back(token);
    };
    std::ranges::for_each(prompt, write);
    for (bool is_over = false; !is_over && text.size() <= steps;) {
        const std::vector<uint32_t> guess = draft(text, std::min<size_t>(most_drafted, steps - text.size()));
        std::vector<uint32_t> fed(text.begin() + sequence.len(), text.end());  // the prompt, or the newest token
        const size_t n_known = fed.size();
        fed.insert(fed.end(), guess.begin(), guess.end());
        const std::span<const float> logits =
            model.forward(sequence, fed).subspan((n_known - 1) * model.config().vocab_size);
        const std::vector<uint32_t> chosen = choose(model, sampler, logits, guess);
        const size_t n_right = chosen.size() - 1;
        std::for_each_n(chosen.begin(), n_right, write);
        is_over = Tokenizer::ends_text(chosen.back());
        if (!is_over) {
            write(chosen.back());
        }
        sequence.truncate(sequence.len() - static_cast<int64_t>(guess.size() - n_right));
        ++effort.n_steps;
        effort.n_drafted += static_cast<uint32_t>(guess.size());
        effort.n_accepted += static_cast<uint32_t>(n_right);
    }
    effort.n_tokens = static_cast<uint32_t>(sequence.len());
    return effort;
}

Batch generate_batch(Model &model, const std::vector<std::vector<uint32_t>> &prompts, uint32_t steps) {
    Batch batch;
    batch.n_shared = n_shared_by(prompts);
    Sequence prefix = model.sequence();
    if (batch.n_shared > 0) {
        model.forward(prefix, std::span(prompts[0]).first(batch.n_shared));
        ++batch.effort.n_steps;
    }
    std::vector<Text> texts;
    texts.reserve(prompts.size());
    for (const std::vector<uint32_t> &prompt : prompts) {
        texts.push_back({model.sequence(batch.n_shared > 0 ? &prefix : nullptr), prompt, false});
    }
    while (go_on(model, texts, steps)) {
        ++batch.effort.n_steps;
    }
    batch.cache_bytes = prefix.cache().bytes();
    batch.bytes_saved = batch.cache_bytes * (texts.size() - 1);
    batch.effort.n_tokens = static_cast<uint32_t>(prefix.len());
    for (Text &text : texts) {
        batch.cache_bytes += text.sequence.cache().bytes();
        batch.effort.n_tokens += static_cast<uint32_t>(text.sequence.cache().len());
        batch.texts.push_back(std::move(text.tokens));
    }
    return batch;
}

}  // namespace llama2
