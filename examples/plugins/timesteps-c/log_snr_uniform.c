/* Timesteps in C: uniform in log-SNR between two bounds, whatever the schedule is. It asks the schedule that the caller
   has at hand, and reads its parameters with the program's help. */
#include "sconce_plugin.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const SconceHost *program;

typedef struct {
    double low, high;
} Bounds;

/* The log-SNRs at t = 1 and t = 0 may be infinite: only what is inside of the bounds is drawn. */
static SconceStatus log_snr(SconceObject schedule, double t, double *value, double *slope, const SconceError *error) {
    const SconceSchedule *functions = schedule.table;
    SconceNoise n;
    SconceStatus status = functions->at(schedule.handle, 1, &t, &n, error);
    if (status != SCONCE_OK) return status;
    *value = 2.0 * (log(n.alpha) - log(n.sigma));
    *slope = 2.0 * (n.d_alpha * n.sigma - n.d_sigma * n.alpha) / (n.alpha * n.sigma);
    return SCONCE_OK;
}

static SconceStatus quantile(void *handle, size_t n, const double *u, SconceObject schedule, double *out,
                             const SconceError *error) {
    const Bounds *b = handle;
    const SconceSchedule *functions = schedule.table;
    for (size_t i = 0; i < n; i++) out[i] = b->high - u[i] * (b->high - b->low);
    /* One call for all of them: a program's schedule always has t_of. */
    return functions->t_of(schedule.handle, n, out, out, error);
}

static SconceStatus cumulative(void *handle, size_t n, const double *t, SconceObject schedule, double *out,
                               const SconceError *error) {
    const Bounds *b = handle;
    for (size_t i = 0; i < n; i++) {
        double value, slope;
        SconceStatus status = log_snr(schedule, t[i], &value, &slope, error);
        if (status != SCONCE_OK) return status;
        out[i] = fmin(fmax((b->high - value) / (b->high - b->low), 0.0), 1.0);
    }
    return SCONCE_OK;
}

static SconceStatus density(void *handle, size_t n, const double *t, SconceObject schedule, double *out,
                            const SconceError *error) {
    const Bounds *b = handle;
    for (size_t i = 0; i < n; i++) {
        double value, slope;
        SconceStatus status = log_snr(schedule, t[i], &value, &slope, error);
        if (status != SCONCE_OK) return status;
        out[i] = value > b->low && value < b->high ? -slope / (b->high - b->low) : 0.0;
    }
    return SCONCE_OK;
}

static SconceStatus build(const SconcePlugin *plugin, SconceStr params, void **handle, const SconceText *resolved,
                          const SconceError *error) {
    (void)plugin;
    const SconceStr names[] = {sconce_str("low"), sconce_str("high")};
    Bounds b = {-8.0, 8.0};
    SconceStatus status = program->only(params, 2, names, error);
    if (status == SCONCE_OK) status = program->number(params, names[0], &b.low, error);
    if (status == SCONCE_OK) status = program->number(params, names[1], &b.high, error);
    if (status != SCONCE_OK) return status;
    if (!(b.low < b.high)) {
        error->field(error->context, names[1]);
        error->help(error->context, sconce_str("8 and -8 reach from hardly any noise to hardly any signal"));
        return sconce_fail(error, "must be above `low`");
    }
    Bounds *kept = malloc(sizeof *kept);
    if (!kept) return sconce_fail(error, "there is no memory");
    *kept = b;
    *handle = kept;
    char text[100];
    snprintf(text, sizeof text, "{\"low\": %.17g, \"high\": %.17g}", b.low, b.high);
    resolved->put(resolved->context, sconce_str(text));
    return SCONCE_OK;
}

#define SCHEMA                                                                                                     \
    "{\"description\": \"Uniform in log-SNR between two bounds, whatever the schedule is.\", \"type\": \"object\"," \
    " \"properties\": {\"low\": {\"description\": \"The log-SNR of the noisiest draw.\", \"type\": \"number\","    \
    " \"default\": -8.0}, \"high\": {\"description\": \"The log-SNR of the cleanest draw.\","                      \
    " \"type\": \"number\", \"default\": 8.0}}, \"additionalProperties\": false}"

static const SconceTimesteps functions = {
    .size = sizeof(SconceTimesteps), .drop = free, .quantile = quantile, .cumulative = cumulative, .density = density};

static const SconceStr aliases[] = {{"log_snr_uniform", 15}};

static const SconcePlugin plugin = {
    .size = sizeof(SconcePlugin),
    .kind = {"timesteps", 9},
    .name = {"log-snr-uniform", 15},
    .aliases = aliases,
    .n_aliases = 1,
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
    .name = {"log-snr-uniform", 15},
    .version = {"0.1.0", 5},
    .plugins = plugins,
    .n_plugins = 1,
};

const SconceLibrary *sconce_plugin(const SconceHost *host, const SconceError *error) {
    (void)error;
    program = host;
    return &library;
}
