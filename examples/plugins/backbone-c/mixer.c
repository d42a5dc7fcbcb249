/* A backbone in C: a small network with an engine of its own, trained by sconce through its vector-Jacobian product.

   At each place of the latents, with m the mean of the context's words:
       h = tanh(b1 + w1 x + wt time + wc m),  y = b2 + w2 h                                                             */
#include "sconce_plugin.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const SconceHost *program;

enum { W1, B1, WT, WC, W2, B2, N_PARAMETERS };

typedef struct {
    const char *name;
    size_t rank, shape[2], n;
    float *values;
} Parameter;

typedef struct {
    size_t channels, width, words; /* C, H, and the numbers of a word */
    Parameter p[N_PARAMETERS];
} Network;

/* What a pass leaves for its products. The arrays are of x, of h, of the times, and of the contexts' means. */
typedef struct {
    size_t batch, area, length;
    float *x, *h, *time, *mean;
} Tape;

static void forget(void *handle, void *kept) {
    Tape *tape = kept;
    (void)handle;
    if (!tape) return;
    free(tape->x), free(tape->h), free(tape->time), free(tape->mean), free(tape);
}

static void drop(void *handle) {
    Network *net = handle;
    for (int i = 0; i < N_PARAMETERS; i++) free(net->p[i].values);
    free(net);
}

static SconceStatus about(void *handle, const SconceText *json, const SconceError *error) {
    const Network *net = handle;
    char text[200];
    (void)error;
    snprintf(text, sizeof text, "{\"channels\": %zu, \"conditions\": [{\"name\": \"context\", \"shape\": [0, %zu]}]}",
             net->channels, net->words);
    json->put(json->context, sconce_str(text));
    return SCONCE_OK;
}

static SconceStatus parameters(void *handle, const SconceTensors *list, const SconceError *error) {
    const Network *net = handle;
    (void)error;
    for (int i = 0; i < N_PARAMETERS; i++) {
        const Parameter *p = &net->p[i];
        SconceTensor tensor = {.size = sizeof tensor, .name = sconce_str(p->name), .rank = p->rank, .shape = p->shape};
        list->put(list->context, &tensor);
    }
    return SCONCE_OK;
}

static SconceStatus read_values(void *handle, size_t i, size_t n, float *out, const SconceError *error) {
    const Network *net = handle;
    if (i >= N_PARAMETERS || n != net->p[i].n) return sconce_fail(error, "there is no such parameter");
    memcpy(out, net->p[i].values, n * sizeof *out);
    return SCONCE_OK;
}

static SconceStatus write_values(void *handle, size_t i, size_t n, const float *values, const SconceError *error) {
    Network *net = handle;
    if (i >= N_PARAMETERS || n != net->p[i].n) return sconce_fail(error, "there is no such parameter");
    memcpy(net->p[i].values, values, n * sizeof *values);
    return SCONCE_OK;
}

/* 1000 t, as the network of a discrete schedule has it; scaled down again inside. */
static SconceStatus time_of(void *handle, size_t n, const double *t, const SconceNoise *noise, double *out,
                            const SconceError *error) {
    (void)handle, (void)noise, (void)error;
    for (size_t i = 0; i < n; i++) out[i] = 1000.0 * t[i];
    return SCONCE_OK;
}

static int plain(const SconceTensor *tensor, size_t rank) {
    return tensor->dtype == SCONCE_F32 && tensor->memory == SCONCE_MEMORY_HOST && tensor->rank == rank;
}

static SconceStatus forward(void *handle, size_t n_inputs, const SconceTensor *const *inputs, const SconceTensor *out,
                            void **kept, const SconceError *error) {
    const Network *net = handle;
    const size_t C = net->channels, H = net->width, D = net->words;
    if (n_inputs != 3 || !plain(inputs[0], 4) || !plain(inputs[1], 1) || !plain(inputs[2], 3) ||
        inputs[0]->shape[1] != C || inputs[2]->shape[2] != D || inputs[2]->shape[0] != inputs[0]->shape[0])
        return sconce_fail(error, "takes x, time and context, of the sides that it told");
    const float *x = inputs[0]->data, *time = inputs[1]->data, *context = inputs[2]->data;
    const size_t B = inputs[0]->shape[0], A = inputs[0]->shape[2] * inputs[0]->shape[3], L = inputs[2]->shape[1];
    float *y = out->data;

    Tape *tape = calloc(1, sizeof *tape);
    if (tape) {
        *tape = (Tape){.batch = B, .area = A, .length = L, .x = malloc(B * C * A * sizeof(float)),
                       .h = malloc(B * H * A * sizeof(float)), .time = malloc(B * sizeof(float)),
                       .mean = calloc(B * D, sizeof(float))};
    }
    if (!tape || !tape->x || !tape->h || !tape->time || !tape->mean) {
        forget(handle, tape);
        return sconce_fail(error, "there is no memory");
    }
    memcpy(tape->x, x, B * C * A * sizeof(float));
    for (size_t b = 0; b < B; b++) {
        tape->time[b] = time[b] / 1000.0f;
        for (size_t i = 0; i < L * D; i++) tape->mean[b * D + i % D] += context[b * L * D + i] / (float)L;
        for (size_t k = 0; k < H; k++) {
            double start = net->p[B1].values[k] + net->p[WT].values[k] * tape->time[b];
            for (size_t d = 0; d < D; d++) start += net->p[WC].values[k * D + d] * tape->mean[b * D + d];
            for (size_t a = 0; a < A; a++) {
                double sum = start;
                for (size_t c = 0; c < C; c++) sum += net->p[W1].values[k * C + c] * x[(b * C + c) * A + a];
                tape->h[(b * H + k) * A + a] = (float)tanh(sum);
            }
        }
        for (size_t c = 0; c < C; c++)
            for (size_t a = 0; a < A; a++) {
                double sum = net->p[B2].values[c];
                for (size_t k = 0; k < H; k++) sum += net->p[W2].values[c * H + k] * tape->h[(b * H + k) * A + a];
                y[(b * C + c) * A + a] = (float)sum;
            }
    }
    if (kept)
        *kept = tape;
    else
        forget(handle, tape);
    return SCONCE_OK;
}

/* Sums are in double and become floats at the end: `add` gathers, `put` writes what is wanted. */
static void put(const SconceTensor *wanted, const double *sums, size_t n) {
    if (!wanted) return;
    float *out = wanted->data;
    for (size_t i = 0; i < n; i++) out[i] = (float)sums[i];
}

static SconceStatus backward(void *handle, void *kept, const SconceTensor *d_out, size_t n_inputs,
                             const SconceTensor *const *d_inputs, size_t n_parameters,
                             const SconceTensor *const *d_parameters, const SconceError *error) {
    const Network *net = handle;
    const Tape *tape = kept;
    const size_t C = net->channels, H = net->width, D = net->words;
    const size_t B = tape->batch, A = tape->area, L = tape->length;
    if (n_inputs != 3 || n_parameters != N_PARAMETERS) return sconce_fail(error, "was asked for other gradients");
    const float *dy = d_out->data;

    size_t total = B * C * A + B + B * L * D;
    for (int i = 0; i < N_PARAMETERS; i++) total += net->p[i].n;
    double *all = calloc(total, sizeof *all), *dx = all, *dt = dx + B * C * A, *dc = dt + B, *next = dc + B * L * D;
    double *d[N_PARAMETERS];
    if (!all) return sconce_fail(error, "there is no memory");
    for (int i = 0; i < N_PARAMETERS; i++) d[i] = next, next += net->p[i].n;

    for (size_t b = 0; b < B; b++)
        for (size_t a = 0; a < A; a++) {
            for (size_t c = 0; c < C; c++) {
                double g = dy[(b * C + c) * A + a];
                d[B2][c] += g;
                for (size_t k = 0; k < H; k++) d[W2][c * H + k] += g * tape->h[(b * H + k) * A + a];
            }
            for (size_t k = 0; k < H; k++) {
                double h = tape->h[(b * H + k) * A + a], g = 0;
                for (size_t c = 0; c < C; c++) g += net->p[W2].values[c * H + k] * dy[(b * C + c) * A + a];
                g *= 1 - h * h;
                d[B1][k] += g;
                d[WT][k] += g * tape->time[b];
                dt[b] += g * net->p[WT].values[k] / 1000;
                for (size_t c = 0; c < C; c++) {
                    d[W1][k * C + c] += g * tape->x[(b * C + c) * A + a];
                    dx[(b * C + c) * A + a] += g * net->p[W1].values[k * C + c];
                }
                for (size_t i = 0; i < D; i++) {
                    d[WC][k * D + i] += g * tape->mean[b * D + i];
                    for (size_t l = 0; l < L; l++) dc[(b * L + l) * D + i] += g * net->p[WC].values[k * D + i] / (double)L;
                }
            }
        }
    put(d_inputs[0], dx, B * C * A);
    put(d_inputs[1], dt, B);
    put(d_inputs[2], dc, B * L * D);
    for (int i = 0; i < N_PARAMETERS; i++) put(d_parameters[i], d[i], net->p[i].n);
    free(all);
    return SCONCE_OK;
}

static SconceStatus build(const SconcePlugin *plugin, SconceStr params, void **handle, const SconceText *resolved,
                          const SconceError *error) {
    (void)plugin;
    static const char *const fields[] = {"channels", "width", "words", "seed"};
    double values[] = {4, 8, 16, 0};
    SconceStr names[4];
    for (int i = 0; i < 4; i++) names[i] = sconce_str(fields[i]);
    SconceStatus status = program->only(params, 4, names, error);
    for (int i = 0; i < 4 && status == SCONCE_OK; i++) {
        status = program->number(params, names[i], &values[i], error);
        if (status == SCONCE_OK && !(values[i] >= (i < 3) && values[i] <= 65536 && values[i] == floor(values[i]))) {
            error->field(error->context, names[i]);
            return sconce_fail(error, "must be a whole number, of 65536 at most");
        }
    }
    if (status != SCONCE_OK) return status;

    Network *net = calloc(1, sizeof *net);
    if (!net) return sconce_fail(error, "there is no memory");
    const size_t C = net->channels = (size_t)values[0], H = net->width = (size_t)values[1];
    const size_t D = net->words = (size_t)values[2];
    const Parameter shapes[N_PARAMETERS] = {
        [W1] = {"w1", 2, {H, C}, H * C, NULL}, [B1] = {"b1", 1, {H, 0}, H, NULL},     [WT] = {"wt", 1, {H, 0}, H, NULL},
        [WC] = {"wc", 2, {H, D}, H * D, NULL}, [W2] = {"w2", 2, {C, H}, C * H, NULL}, [B2] = {"b2", 1, {C, 0}, C, NULL}};
    uint64_t random = (uint64_t)values[3] * 2 + 1;
    for (int i = 0; i < N_PARAMETERS; i++) {
        Parameter *p = &net->p[i];
        *p = shapes[i];
        p->values = malloc(p->n * sizeof(float));
        if (!p->values) {
            drop(net);
            return sconce_fail(error, "there is no memory");
        }
        const double scale = 1 / sqrt(p->rank == 2 ? (double)p->shape[1] : (double)H);
        for (size_t j = 0; j < p->n; j++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            p->values[j] = (float)(scale * ((double)(random >> 33) / (double)(1u << 30) - 1));
        }
    }
    char text[200];
    snprintf(text, sizeof text, "{\"channels\": %.0f, \"width\": %.0f, \"words\": %.0f, \"seed\": %.0f}", values[0],
             values[1], values[2], values[3]);
    resolved->put(resolved->context, sconce_str(text));
    *handle = net;
    return SCONCE_OK;
}

#define FIELD(name, about, value) \
    "\"" name "\": {\"description\": \"" about "\", \"type\": \"integer\", \"default\": " value "}"
#define SCHEMA                                                                                                  \
    "{\"description\": \"One hidden layer at each place, for tests and as an example.\", \"type\": \"object\"," \
    " \"properties\": {" FIELD("channels", "Channels of the latents.", "4") ", "                                \
    FIELD("width", "Hidden units.", "8") ", " FIELD("words", "Numbers of a word of the context.", "16") ", "    \
    FIELD("seed", "Of the first values.", "0") "}, \"additionalProperties\": false}"

static const SconceBackbone functions = {
    .size = sizeof(SconceBackbone), .drop = drop, .about = about, .parameters = parameters, .read = read_values,
    .write = write_values, .forward = forward, .backward = backward, .forget = forget, .time = time_of};

static const SconcePlugin plugin = {
    .size = sizeof(SconcePlugin),
    .kind = {"backbone", 8},
    .name = {"mixer", 5},
    .schema = {SCHEMA, sizeof(SCHEMA) - 1},
    .table = &functions,
    .build = build,
};

static const SconcePlugin *const plugins[] = {&plugin};

static const SconceLibrary library = {
    .size = sizeof(SconceLibrary),
    .abi_major = SCONCE_ABI_MAJOR,
    .abi_minor = SCONCE_ABI_MINOR,
    .sdk = {"sconce_plugin.h 1.0", 19},
    .name = {"mixer", 5},
    .version = {"0.1.0", 5},
    .plugins = plugins,
    .n_plugins = 1,
};

const SconceLibrary *sconce_plugin(const SconceHost *host, const SconceError *error) {
    (void)error;
    program = host;
    return &library;
}
