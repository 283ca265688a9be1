// How KVLANE_ISA is honoured, in a process of its own: the isa is chosen once. Returns the number of failed checks. Where an
// argument names the widest isa of the CPU that this runs on, it is checked to be found so.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "kvlane/kvlane.hpp"

namespace {

int n_failed = 0;

void check(bool condition, const std::string &what) {
    if (!condition) {
        std::printf("failed: %s; the last error is \"%s\"\n", what.c_str(), kvl_last_error());
        ++n_failed;
    }
}

bool last_error_names(const std::string &word) {
    return (std::string(kvl_last_error()) + " ").find(" " + word + " ") != std::string::npos;
}

kvl_status create_cache(kvl_cache **cache) {
    kvl_layer_desc layer = kvl_layer_desc_init();
    layer.n_kv_heads = 1;
    layer.head_dim = 8;
    kvl_cache_desc desc = kvl_cache_desc_init();
    desc.n_layers = desc.n_layer_descs = 1;
    desc.layers = &layer;
    desc.max_tokens = 8;
    return kvl_cache_create(&desc, cache);
}

kvl_status create_attention(kvl_attention **attention) {
    const kvl_attention_desc desc{sizeof desc,       0, 1, 1,       8,       0, KVL_F32, KVL_F32, 0, KVL_ROTATION_NONE,
                                  KVL_ROTATION_NONE, 0, 0, nullptr, nullptr, 0, 0};
    return kvl_attention_create(&desc, attention);
}

// putenv keeps the text itself.
void force(const std::string &isa) {
    static std::string assignment;
    assignment = "KVLANE_ISA=" + isa;
    putenv(assignment.data());
}

void check_refused(const std::string &isa) {
    force(isa);
    const char *name = nullptr;
    kvl_cache *cache = nullptr;
    kvl_attention *attention = nullptr;
    check(create_cache(&cache) == KVL_ERROR_ISA && !cache, isa + ": a cache is refused");
    check(create_attention(&attention) == KVL_ERROR_ISA && !attention, isa + ": an attention object is refused");
    check(kvl_isa_in_force(&name) == KVL_ERROR_ISA && !name, isa + ": no isa is in force");
    check(std::strstr(kvl_last_error(), ("\"" + isa + "\"").c_str()), isa + ": the text names what was asked for");
    for (uint32_t i = 0; i < kvl_n_isas(); ++i) {
        check(last_error_names(kvl_isa_name(i)) == (kvl_isa_supported(i) == 1),
              isa + ": the text lists what there is, " + kvl_isa_name(i));
    }
}

void check_chosen_once() {
    const char *name = nullptr;
    force("scalar");
    check(kvl_isa_in_force(&name) == KVL_OK && std::strcmp(name, "scalar") == 0, "scalar can be forced");
    force("made_up");
    check(kvl_isa_in_force(&name) == KVL_OK && std::strcmp(name, "scalar") == 0, "the choice stands");
}

void check_widest(const std::string &isa) {
    for (uint32_t i = kvl_n_isas(); i-- > 0;) {
        if (kvl_isa_supported(i)) {
            check(isa == kvl_isa_name(i), isa + " is the widest, not " + kvl_isa_name(i));
            return;
        }
    }
}

}  // namespace

int main(int argc, char **argv) {
    if (argc > 1) {
        check_widest(argv[1]);
    }
    check_refused("made_up");
    check_refused("avx");  // the beginning of a real one
    for (uint32_t i = 0; i < kvl_n_isas(); ++i) {
        if (!kvl_isa_supported(i)) {
            check_refused(kvl_isa_name(i));
        }
    }
    check_chosen_once();
    return n_failed;
}
