/* A weighting of 1/(1 + snr), and everything that can be wrong with a library: the tests define what differs. */
#include "sconce_plugin.h"

#include <math.h>
#include <string.h>

#ifndef KIND
#define KIND "weighting"
#endif
#ifndef NAME
#define NAME "c-variant"
#endif
#ifndef SCHEMA
#define SCHEMA "{\"description\": \"1/(1 + snr).\", \"type\": \"object\", \"properties\": {}}"
#endif
#ifndef MAJOR
#define MAJOR SCONCE_ABI_MAJOR
#endif
#ifndef MINOR
#define MINOR SCONCE_ABI_MINOR
#endif
#ifndef LIBRARY_SIZE
#define LIBRARY_SIZE sizeof(SconceLibrary)
#endif
#ifndef PLUGIN_SIZE
#define PLUGIN_SIZE sizeof(SconcePlugin)
#endif
#ifndef TABLE_SIZE
#define TABLE_SIZE sizeof(SconceWeighting)
#endif
#ifndef TABLE
#define TABLE &table
#endif
#ifndef ON_X0
#define ON_X0 on_x0
#endif
#ifndef ON_OUTPUT
#define ON_OUTPUT NULL
#endif
#ifndef BUILD
#define BUILD build
#endif
#ifndef PLUGIN
#define PLUGIN &plugin
#endif
#ifndef PLUGINS
#define PLUGINS plugins
#endif
#ifndef N_PLUGINS
#define N_PLUGINS 1
#endif
#ifndef N_ALIASES
#define N_ALIASES 0
#endif
#ifndef LIBRARY_NAME
#define LIBRARY_NAME "variant"
#endif
#ifndef RESOLVED
#define RESOLVED ""
#endif
#ifndef RETURNED
#define RETURNED &library
#endif
#ifndef REFUSAL
#define REFUSAL NULL
#endif

#define TEXT(literal) {literal, sizeof(literal) - 1}

#ifdef UNDEFINED
double nowhere(double x);
#endif

static SconceStatus on_x0(void *handle, size_t n, const double *log_snr, double *out, const SconceError *error) {
    (void)handle, (void)error, (void)log_snr, (void)out;
    for (size_t i = 0; i < n; i++) {
#if defined(UNDEFINED)
        out[i] = nowhere(log_snr[i]);
#elif defined(NAN_ABOVE)
        out[i] = log_snr[i] > NAN_ABOVE ? NAN : 1.0;
#elif defined(LAWLESS)
        out[i] = -1.0;
#elif defined(STATUS)
        out[i] = 1.0;
        return STATUS;
#elif defined(WHY)
        return sconce_fail(error, WHY);
#else
        out[i] = 1.0 / (1.0 + exp(log_snr[i]));
#endif
    }
    return SCONCE_OK;
}

/* For fields that a header of 1.0 does not have. */
struct Newer {
    SconceWeighting known;
    SconceStatus (*unknown)(void *handle, double from_the_future);
};

static SconceStatus unknown(void *handle, double from_the_future) {
    (void)handle, (void)from_the_future;
    return SCONCE_FAILED;
}

/* What may stand in memory after a table that is shorter than today's. */
static SconceStatus garbage(void *handle, SconceObject *out, const SconceError *error) {
    (void)handle, (void)out;
    return sconce_fail(error, "was called beyond the end of its table");
}

static const struct Newer table = {
    {TABLE_SIZE, NULL, ON_X0, ON_OUTPUT,
#ifdef SHORT
     garbage
#else
     NULL
#endif
    },
    unknown};

static SconceStatus build(const SconcePlugin *self, SconceStr params, void **handle, const SconceText *resolved,
                          const SconceError *error) {
    (void)self, (void)handle, (void)error, (void)garbage, (void)unknown;
#ifdef BUILD_STATUS
    return BUILD_STATUS;
#endif
    if (params.length != 2) {
        error->field(error->context, sconce_str("gamma"));
        error->help(error->context, sconce_str("leave it out"));
        return sconce_fail(error, "there are no parameters");
    }
    resolved->put(resolved->context, sconce_str(RESOLVED));
    return SCONCE_OK;
}

static const SconcePlugin plugin = {PLUGIN_SIZE, TEXT(KIND), TEXT(NAME), NULL,  N_ALIASES,
                                    TEXT(SCHEMA), TABLE,     NULL,       BUILD};
#ifdef SECOND
/* Of a kind that comes later. */
static const SconcePlugin second = {PLUGIN_SIZE, TEXT("teleporter"), TEXT("c-beam"), NULL,  0,
                                    TEXT("?"),   &table,             NULL,           BUILD};
static const SconcePlugin *const plugins[] = {PLUGIN, &second};
#else
static const SconcePlugin *const plugins[] = {PLUGIN};
#endif
static const SconceLibrary library = {LIBRARY_SIZE, MAJOR,   MINOR,    TEXT("a test"), TEXT(LIBRARY_NAME),
                                      TEXT("0.3"),  PLUGINS, N_PLUGINS};

#ifndef NO_ENTRY
const SconceLibrary *sconce_plugin(const SconceHost *host, const SconceError *error) {
    (void)host, (void)library, (void)table, (void)plugin, (void)plugins, (void)build, (void)on_x0;
    const char *refusal = REFUSAL;
    if (refusal) sconce_fail(error, refusal);
    return RETURNED;
}
#endif
