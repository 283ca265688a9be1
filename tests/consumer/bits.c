/* Prints the bits of results in every format, to be compared with those of another build; the first are known exactly. */
#include <kvlane/kvlane.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { head_dim = 40, n_heads = 3, max_tokens = 700 };

static void check(kvl_status status) {
    if (status != KVL_OK) {
        fprintf(stderr, "%s: %s\n", kvl_status_name(status), kvl_last_error());
        exit(1);
    }
}

static void print_bits(const char *name, const float *values, int n) {
    printf("%s", name);
    for (int i = 0; i < n; ++i) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        printf(" %08x", bits);
    }
    printf("\n");
}

/* Attention of one query to n tokens of one KV head, out and lse. */
static void attend(kvl_format format, uint32_t dim, uint32_t group, int n, const float *q, const float *k, const float *v,
                   float *out, float *lse) {
    kvl_layer_desc layer = {
        .struct_size = sizeof layer, .n_kv_heads = 1, .head_dim = dim, .k_format = format, .v_format = format};
    kvl_cache_desc cache_desc = {
        .struct_size = sizeof cache_desc, .n_layers = 1, .layers = &layer, .n_layer_descs = 1, .max_tokens = max_tokens};
    kvl_attention_desc desc = {.struct_size = sizeof desc,
                               .n_query_heads = group,
                               .n_kv_heads = 1,
                               .head_dim = dim,
                               .k_format = format,
                               .v_format = format,
                               .scale = 1};
    kvl_cache *cache;
    kvl_attention *attention;
    check(kvl_cache_create(&cache_desc, &cache));
    check(kvl_cache_append(cache, 0, n, k, n * (size_t)dim, v, n * (size_t)dim));
    check(kvl_attention_create(&desc, &attention));
    kvl_view view = kvl_view_init();
    view.struct_size = sizeof view;
    check(kvl_cache_view(cache, 0, &view));
    static _Alignas(KVL_WORKSPACE_ALIGNMENT) char workspace[1 << 18];
    kvl_sequence sequence = {.struct_size = sizeof sequence, .view = &view, .len = n, .q = q, .out = out, .lse = lse};
    check(kvl_attend(attention, &sequence, 1, workspace, sizeof workspace, NULL));
    kvl_attention_destroy(attention);
    kvl_cache_destroy(cache);
}

/* With --subnormal: whether the library has left subnormal numbers what they are. */
int main(int argc, char **argv) {
    volatile float smallest_normal = 1.17549435e-38f;
    if (argc > 1 && strcmp(argv[1], "--subnormal") == 0 && smallest_normal / 2 == 0) {
        fprintf(stderr, "subnormal numbers are flushed to 0\n");
        return 1;
    }
    const char *isa;
    check(kvl_isa_in_force(&isa));
    printf("isa %s\n", isa);
    const float known_q = 1, known_k[] = {0, 0.3f}, known_v[] = {1, 2};
    float known;
    attend(KVL_F32, 1, 1, 2, &known_q, known_k, known_v, &known, NULL);
    if (fabs(known - 1.57444252) > 1e-6) {
        fprintf(stderr, "the weighted mean of 1 and 2 is %.8f, not 1.57444252\n", known);
        return 1;
    }
    static float q[n_heads * head_dim], k[max_tokens * head_dim], v[max_tokens * head_dim];
    uint32_t state = 1;
    float *const all[] = {q, k, v};
    const int sizes[] = {n_heads * head_dim, max_tokens * head_dim, max_tokens * head_dim};
    for (int a = 0; a < 3; ++a) {
        for (int i = 0; i < sizes[a]; ++i) {
            state = state * 1664525u + 1013904223u;
            all[a][i] = (float)(state >> 8) / (1 << 23) - 1;
        }
    }
    for (kvl_format format = 0; kvl_format_name(format); ++format) {
        for (int n = 1; n <= max_tokens; n = n * 5 + 7) {
            float out[n_heads * head_dim], lse[n_heads];
            attend(format, head_dim, n_heads, n, q, k, v, out, lse);
            print_bits(kvl_format_name(format), out, n_heads * head_dim);
            print_bits("lse", lse, n_heads);
        }
    }
    return 0;
}
