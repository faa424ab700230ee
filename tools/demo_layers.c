/* demo_layers.c: the attention layers of `dlattn demo`, in the shapes of the published models. */
#include "demo.h"

/* Lengths of one packed batch of sentences. */
static const int64_t bert_lengths[] = {512, 37, 128, 301, 64,  19, 512, 233, 90,  410, 5,   176, 350, 77, 128, 260,
                                       41,  95, 480, 12,  333, 58, 204, 150, 512, 29,  118, 391, 66,  88, 275, 140};

const demo_layer demo_layers[] = {
    {.model = "Llama 3 8B",
     .what = "causal",
     .B = 1,
     .H = 32,
     .G = 8,
     .M = 4096,
     .N = 4096,
     .D = 128,
     .dtype = BF16,
     .flags = DLATTN_CAUSAL},
    {.model = "Llama 3.1 8B, decode",
     .what = "1 token, 2 caches",
     .B = 2,
     .H = 32,
     .G = 8,
     .M = 1,
     .N = 32768,
     .D = 128,
     .dtype = BF16,
     .flags = DLATTN_CAUSAL,
     .forward_only = 1},
    {.model = "Mistral 7B",
     .what = "window 4096",
     .B = 1,
     .H = 32,
     .G = 8,
     .M = 6144,
     .N = 6144,
     .D = 128,
     .dtype = BF16,
     .flags = DLATTN_CAUSAL | DLATTN_WINDOW,
     .window_left = 4095},
    {.model = "Gemma 2 9B, global",
     .what = "causal, softcap 50",
     .B = 1,
     .H = 16,
     .G = 8,
     .M = 4096,
     .N = 4096,
     .D = 256,
     .dtype = BF16,
     .flags = DLATTN_CAUSAL,
     .softcap = 50},
    {.model = "Gemma 2 9B, local",
     .what = "window 4096, softcap 50",
     .B = 1,
     .H = 16,
     .G = 8,
     .M = 6144,
     .N = 6144,
     .D = 256,
     .dtype = BF16,
     .flags = DLATTN_CAUSAL | DLATTN_WINDOW,
     .window_left = 4095,
     .softcap = 50},
    {.model = "gpt-oss, local",
     .what = "window 128, sinks",
     .B = 1,
     .H = 64,
     .G = 8,
     .M = 8192,
     .N = 8192,
     .D = 64,
     .dtype = BF16,
     .flags = DLATTN_CAUSAL | DLATTN_WINDOW,
     .window_left = 127,
     .sinks = 1},
    {.model = "gpt-oss, global",
     .what = "causal, sinks",
     .B = 1,
     .H = 64,
     .G = 8,
     .M = 4096,
     .N = 4096,
     .D = 64,
     .dtype = BF16,
     .flags = DLATTN_CAUSAL,
     .sinks = 1},
    {.model = "MPT 7B",
     .what = "causal, ALiBi",
     .B = 1,
     .H = 32,
     .G = 32,
     .M = 2048,
     .N = 2048,
     .D = 128,
     .dtype = F16,
     .flags = DLATTN_CAUSAL,
     .alibi = 1},
    {.model = "Whisper large, encoder",
     .what = "full",
     .B = 4,
     .H = 20,
     .G = 20,
     .M = 1500,
     .N = 1500,
     .D = 64,
     .dtype = F16},
    {.model = "AlphaFold 2, MSA rows",
     .what = "pair bias, dbias",
     .B = 128,
     .H = 8,
     .G = 8,
     .M = 256,
     .N = 256,
     .D = 32,
     .dtype = F32,
     .bias = 1},
    {.model = "AlphaFold 2, triangle",
     .what = "pair bias, dbias",
     .B = 256,
     .H = 4,
     .G = 4,
     .M = 256,
     .N = 256,
     .D = 32,
     .dtype = BF16,
     .bias = 1},
    {.model = "Wan 2.1 1.3B, causal",
     .what = "3 frames of 1560 tokens",
     .B = 1,
     .H = 12,
     .G = 12,
     .M = 7800,
     .N = 7800,
     .D = 128,
     .dtype = BF16,
     .flags = DLATTN_BLOCK_WINDOW,
     .block_size = 1560,
     .block_count = 3},
    {.model = "BERT base, packed",
     .what = "32 sentences, 5 to 512",
     .B = 32,
     .H = 12,
     .G = 12,
     .D = 64,
     .dtype = F32,
     .lengths = bert_lengths},
};

const int64_t demo_layer_count = sizeof demo_layers / sizeof *demo_layers;

demo_sequence demo_sequence_of(const demo_layer *layer, int64_t b) {
    demo_sequence s = {layer->M, layer->N, 0};
    if (!layer->lengths) return s;
    for (int64_t n = 0; n < b; n++) s.start += layer->lengths[n];
    s.M = s.N = layer->lengths[b];
    return s;
}

void demo_span(const demo_layer *layer, demo_sequence s, int64_t i, int64_t *first, int64_t *end) {
    int64_t position = i + s.N - s.M, block = layer->block_size ? position / layer->block_size : 0;
    *first = 0;
    *end = s.N;
    if (layer->flags & DLATTN_CAUSAL && position + 1 < *end) *end = position + 1;
    if (layer->flags & DLATTN_WINDOW && position - layer->window_left > *first) *first = position - layer->window_left;
    if (layer->flags & DLATTN_BLOCK_WINDOW) {
        int64_t low = (block - layer->block_count + 1) * layer->block_size, high = (block + 1) * layer->block_size;
        if (low > *first) *first = low;
        if (high < *end) *end = high;
    }
}

double demo_pairs(const demo_layer *layer) {
    double pairs = 0;
    for (int64_t b = 0; b < layer->B; b++) {
        demo_sequence s = demo_sequence_of(layer, b);
        for (int64_t i = 0, first, end; i < s.M; i++) {
            demo_span(layer, s, i, &first, &end);
            pairs += (double)(end - first);
        }
    }
    return pairs * (double)layer->H;
}

double demo_all_pairs(const demo_layer *layer) {
    double pairs = 0;
    for (int64_t b = 0; b < layer->B; b++) {
        demo_sequence s = demo_sequence_of(layer, b);
        pairs += (double)s.M * (double)s.N;
    }
    return pairs * (double)layer->H;
}
