// A weighting in C++ that learns: it divides the loss by what was seen at the same log-SNR of late, so that all levels pull
// alike. What it learned is a list of numbers, which sconce keeps in its checkpoints.
#include "sconce_plugin.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

namespace {

const SconceHost *program = nullptr;

// No exception may leave a function that sconce calls.
template <typename Body> SconceStatus guarded(const SconceError *error, Body body) noexcept {
    try {
        return body();
    } catch (const std::exception &e) {
        sconce_fail(error, e.what());
    } catch (...) {
        sconce_fail(error, "an exception that says nothing of why");
    }
    return SCONCE_PANICKED;
}

struct Params {
    double bins = 20, memory_images = 10000;
};

constexpr double FARTHEST = 10; // Log-SNRs beyond this fall into the last bins.

// For each bin of log-SNR, fading sums of losses and of pictures.
struct State {
    double keep_per_image;
    std::vector<double> losses, counts;

    explicit State(const Params &p)
        : keep_per_image(std::exp(-1.0 / p.memory_images)), losses(static_cast<std::size_t>(p.bins)),
          counts(static_cast<std::size_t>(p.bins)) {}

    std::size_t bin(double log_snr) const {
        const double share = (std::clamp(log_snr, -FARTHEST, FARTHEST) + FARTHEST) / (2 * FARTHEST);
        return std::min(static_cast<std::size_t>(share * static_cast<double>(losses.size())), losses.size() - 1);
    }

    // A bin that saw little stands near a loss of 1.
    double log_loss(double log_snr) const {
        const std::size_t i = bin(log_snr);
        return std::log((losses[i] + 1.0) / (counts[i] + 1.0));
    }
};

SconceStatus observe(void *handle, std::size_t n, const SconceObservation *seen, std::size_t item_size,
                     const SconceError *error) {
    return guarded(error, [&] {
        State &state = *static_cast<State *>(handle);
        const double keep = std::pow(state.keep_per_image, static_cast<double>(n));
        for (double &x : state.losses) x *= keep;
        for (double &x : state.counts) x *= keep;
        for (std::size_t i = 0; i < n; i++) {
            const void *item = reinterpret_cast<const char *>(seen) + i * item_size;
            const SconceObservation &o = *static_cast<const SconceObservation *>(item);
            const std::size_t b = state.bin(o.log_snr);
            state.losses[b] += o.importance * o.loss;
            state.counts[b] += o.importance;
        }
        return SCONCE_OK;
    });
}

SconceStatus save(void *handle, const SconceNumbers *numbers, const SconceError *error) {
    return guarded(error, [&] {
        const State &state = *static_cast<State *>(handle);
        numbers->put(numbers->context, state.losses.size(), state.losses.data());
        numbers->put(numbers->context, state.counts.size(), state.counts.data());
        return SCONCE_OK;
    });
}

SconceStatus restore(void *handle, std::size_t n, const double *numbers, const SconceError *error) {
    return guarded(error, [&] {
        State &state = *static_cast<State *>(handle);
        const std::size_t bins = state.losses.size();
        if (n != 2 * bins) {
            const std::string why = std::to_string(n) + " numbers for " + std::to_string(bins) + " bins";
            return sconce_fail(error, why.c_str());
        }
        std::copy(numbers, numbers + bins, state.losses.begin());
        std::copy(numbers + bins, numbers + n, state.counts.begin());
        return static_cast<SconceStatus>(SCONCE_OK);
    });
}

SconceStatus log_loss(void *handle, std::size_t n, const double *log_snr, double *out, const SconceError *error) {
    return guarded(error, [&] {
        const State &state = *static_cast<State *>(handle);
        for (std::size_t i = 0; i < n; i++) out[i] = state.log_loss(log_snr[i]);
        return SCONCE_OK;
    });
}

const SconceWeightingState state_functions = {
    sizeof(SconceWeightingState), [](void *handle) { delete static_cast<State *>(handle); },
    observe, save, restore, log_loss};

SconceStatus on_x0(void *, std::size_t n, const double *log_snr, double *out, const SconceError *) {
    // 1 on the error of epsilon, which is the SNR on that of the data. Where there is no noise nothing is learned of it.
    for (std::size_t i = 0; i < n; i++) out[i] = std::exp(std::min(log_snr[i], 30.0));
    return SCONCE_OK;
}

SconceStatus start(void *handle, SconceObject *out, const SconceError *error) {
    return guarded(error, [&] {
        *out = {&state_functions, new State(*static_cast<Params *>(handle))};
        return SCONCE_OK;
    });
}

SconceStatus build(const SconcePlugin *, SconceStr params, void **handle, const SconceText *resolved,
                   const SconceError *error) {
    return guarded(error, [&] {
        const SconceStr names[] = {sconce_str("bins"), sconce_str("memory_images")};
        Params p;
        SconceStatus status = program->only(params, 2, names, error);
        if (status == SCONCE_OK) status = program->number(params, names[0], &p.bins, error);
        if (status == SCONCE_OK) status = program->number(params, names[1], &p.memory_images, error);
        if (status != SCONCE_OK) return status;
        if (!(p.bins >= 1 && p.bins <= 10000 && p.bins == std::floor(p.bins))) {
            error->field(error->context, names[0]);
            return sconce_fail(error, "must be a whole number from 1 to 10000");
        }
        if (!(p.memory_images > 0)) {
            error->field(error->context, names[1]);
            return sconce_fail(error, "must be above 0");
        }
        char text[100];
        std::snprintf(text, sizeof text, "{\"bins\": %.0f, \"memory_images\": %.17g}", p.bins, p.memory_images);
        resolved->put(resolved->context, sconce_str(text));
        *handle = new Params(p);
        return static_cast<SconceStatus>(SCONCE_OK);
    });
}

const char SCHEMA[] = R"({
    "description": "Divides the loss by what was seen at the same log-SNR of late, so that all levels pull alike.",
    "type": "object",
    "properties": {
        "bins": {"description": "Bins of log-SNR from -10 to 10.", "type": "integer", "default": 20},
        "memory_images": {
            "description": "What was seen so many images ago counts 1/e of what was seen now.",
            "type": "number", "default": 10000.0
        }
    },
    "additionalProperties": false
})";

const SconceWeighting functions = {
    sizeof(SconceWeighting), [](void *handle) { delete static_cast<Params *>(handle); }, on_x0, nullptr, start};

const SconcePlugin plugin = {sizeof(SconcePlugin), {"weighting", 9}, {"running-mean", 12}, nullptr, 0,
                             {SCHEMA, sizeof(SCHEMA) - 1}, &functions, nullptr, build};

const SconcePlugin *const plugins[] = {&plugin};

const SconceLibrary library = {sizeof(SconceLibrary), SCONCE_ABI_MAJOR, SCONCE_ABI_MINOR, {"sconce_plugin.h 1.0", 19},
                               {"running-mean", 12}, {"0.1.0", 5}, plugins, 1};

} // namespace

extern "C" const SconceLibrary *sconce_plugin(const SconceHost *host, const SconceError *) {
    program = host;
    return &library;
}
