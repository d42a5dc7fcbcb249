/* The C ABI of sconce's plugins. Generated from sconce-sdk: do not edit.

   A plugin is a shared library with one function, sconce_plugin, that returns a SconceLibrary. Build it with this header
   alone: `cc -shared -fPIC -o libmine.so mine.c`. Then `sconce --plugin ./libmine.so ...` uses it.

   - Every table begins with its size, sizeof as the writer's header has it. Read no field beyond the size that a table
     of the program's says, and leave null what you do not have: each function says what null means.
   - A function returns SCONCE_OK, or after it told `error` why another status. No C++ exception may leave a function.
   - Text and arrays that are arguments are valid until the call returns. What goes into a sink (SconceText,
     SconceNumbers, SconceError) is copied. Tables, and the text in them, live for ever: a library is never unloaded.
   - Functions of a plugin may be called from several threads at once; those of a state or a tape by one thread
     at a time, not always the same.
   - Answer in numbers: NaN for numbers that have an answer is an error that names the plugin.

   t = 0 is data and t = 1 is noise. log-SNR is ln(alpha^2 / sigma^2). */
#ifndef SCONCE_PLUGIN_H
#define SCONCE_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SCONCE_ABI_MAJOR 1
#define SCONCE_ABI_MINOR 1

/* 0 where a call did what it should. */
typedef int32_t SconceStatus;
#define SCONCE_OK 0
#define SCONCE_FAILED 1
/* The same, where what it was called on may be broken: an exception, a panic. */
#define SCONCE_PANICKED 2

/* Types of numbers, and kinds of memory, in a SconceTensor. */
#define SCONCE_F32 0
#define SCONCE_MEMORY_HOST 0
#define SCONCE_MEMORY_CUDA 1

typedef struct SconceStr SconceStr;
typedef struct SconceText SconceText;
typedef struct SconceNumbers SconceNumbers;
typedef struct SconceError SconceError;
typedef struct SconceObject SconceObject;
typedef struct SconceTensor SconceTensor;
typedef struct SconceTensors SconceTensors;
typedef struct SconceNoise SconceNoise;
typedef struct SconceLevel SconceLevel;
typedef struct SconceObservation SconceObservation;
typedef struct SconceSchedule SconceSchedule;
typedef struct SconceObjective SconceObjective;
typedef struct SconceWeighting SconceWeighting;
typedef struct SconceTimesteps SconceTimesteps;
typedef struct SconceDistance SconceDistance;
typedef struct SconceEma SconceEma;
typedef struct SconceLr SconceLr;
typedef struct SconceSpacing SconceSpacing;
typedef struct SconceSamplerState SconceSamplerState;
typedef struct SconceWeightingState SconceWeightingState;
typedef struct SconceBackbone SconceBackbone;
typedef struct SconceCuda SconceCuda;
typedef struct SconceCudaBackbone SconceCudaBackbone;
typedef struct SconceHost SconceHost;
typedef struct SconcePlugin SconcePlugin;
typedef struct SconceLibrary SconceLibrary;

/* UTF-8 text that somebody else has: valid until the call that it is passed to returns, or, in a table, for ever. */
struct SconceStr {
    /* The bytes, with no 0 at the end. Null is an empty text. */
    const char *bytes;
    /* The number of bytes. */
    size_t length;
};

/* Takes text in one piece or in several. */
struct SconceText {
    /* sizeof(SconceText), as the caller knows it. */
    size_t size;
    /* What `put` takes first. */
    void *context;
    /* Copies a piece to the end of the text. */
    void (*put)(void *context, SconceStr piece);
};

/* Takes numbers in one piece or in several. */
struct SconceNumbers {
    /* sizeof(SconceNumbers), as the caller knows it. */
    size_t size;
    /* What `put` takes first. */
    void *context;
    /* Copies `n` numbers to the end of the list. */
    void (*put)(void *context, size_t n, const double *numbers);
};

/* Takes the reason of a failure. Say what is wrong, where, and what to do; nobody calls this where all is well. */
struct SconceError {
    /* sizeof(SconceError), as the caller knows it. */
    size_t size;
    /* What the functions take first. */
    void *context;
    /* What is wrong. A second call replaces it. */
    void (*message)(void *context, SconceStr text);
    /* The parameter at fault, for errors of `build`: once for each table on the way, from the outermost in. */
    void (*field)(void *context, SconceStr name);
    /* What to do about it, such as the accepted values. */
    void (*help)(void *context, SconceStr text);
};

/* A thing with functions: a plugin, or what one learned. Who is given one to keep frees it by the table's `drop`; one
   that is an argument is the caller's, and is not to be kept beyond the call. */
struct SconceObject {
    /* The functions, of the kind that is told where the object is given. They live for ever. Null: there is none. */
    const void *table;
    /* What the functions take first. */
    void *handle;
};

/* A tensor in memory of the caller's: row-major, without gaps. It is the caller's, for the length of the call. */
struct SconceTensor {
    /* sizeof(SconceTensor), as its writer knows it. */
    size_t size;
    /* What it is: "x", "time", the name of a condition or of a parameter. */
    SconceStr name;
    /* The type of its numbers: SCONCE_F32. Later versions may have others: fail for what you do not know. */
    uint32_t dtype;
    /* Where `data` is: SCONCE_MEMORY_HOST, or for a SconceCudaBackbone SCONCE_MEMORY_CUDA. Later versions may have
       others: fail for what you do not know. */
    uint32_t memory;
    /* The number of its sides. */
    size_t rank;
    /* Its sides, the batch first. */
    const size_t *shape;
    /* Its numbers. An argument's are read only, but where the function is to write them. */
    void *data;
};

/* Takes descriptions of tensors, one by one. */
struct SconceTensors {
    /* sizeof(SconceTensors), as the caller knows it. */
    size_t size;
    /* What `put` takes first. */
    void *context;
    /* Copies the name and the shape of a tensor to the end of the list; `data` is not looked at. */
    void (*put)(void *context, const SconceTensor *tensor);
};

/* Signal and noise at one time: x_t = alpha x0 + sigma eps. */
struct SconceNoise {
    /* Factor on the data, 0 or above. */
    double alpha;
    /* Factor on the unit-variance noise, 0 or above. */
    double sigma;
    /* d alpha / dt. */
    double d_alpha;
    /* d sigma / dt. */
    double d_sigma;
};

/* One noise level on a sampler's way. */
struct SconceLevel {
    /* The time in [0, 1] that the network is asked at. */
    double t;
    /* Signal and noise there. */
    SconceNoise noise;
};

/* One picture of an update, as its forward pass left it. Later versions may have more fields: an array of these comes
   with the size of one item in bytes, and the next item is that far on. */
struct SconceObservation {
    /* The quantile of the sampler's own distribution at which it was trained. */
    double quantile;
    /* The log-SNR there; infinite without signal or noise. */
    double log_snr;
    /* The weighting's factor there, without what was learned. */
    double weight;
    /* The mean squared error of the output. */
    double error;
    /* The weighted loss. */
    double loss;
    /* The logarithm of the loss that a learned weighting expected there: 0 where there is none. */
    double log_loss;
    /* How often pictures like it are drawn by the plugin's own distribution, against how often they are by what was
       learned: 1 where nothing was. */
    double importance;
};

/* How much signal and noise there is at each time: t = 0 is data, t = 1 is noise.

   Laws: alpha >= 0 and sigma >= 0; the log-SNR ln(alpha^2 / sigma^2) falls strictly in t; `t_of` inverts it; the
   derivatives are right; all of it at every size. */
struct SconceSchedule {
    /* sizeof(SconceSchedule), as its writer knows it. */
    size_t size;
    /* Frees a handle. Null: there is nothing to free. */
    void (*drop)(void *handle);
    /* Signal and noise at n times in [0, 1]. Must be there. */
    SconceStatus (*at)(void *handle, size_t n, const double *t, SconceNoise *out, const SconceError *error);
    /* The times of n log-SNRs, which may be infinite. Null: found from `at` by bisection. */
    SconceStatus (*t_of)(void *handle, size_t n, const double *log_snr, double *out, const SconceError *error);
    /* The number of points of a discrete table: point i of n is at t = (i + 1)/n and exact there, and training draws
       these times alone. 0: there is none. Null: 0. */
    SconceStatus (*grid)(void *handle, uint64_t *points, const SconceError *error);
    /* The schedule for latents of this many rows and columns, as an object with a SconceSchedule that its drop frees.
       Leave `out` as it is where the size does not matter. Null: it does not. */
    SconceStatus (*at_size)(void *handle, uint64_t height, uint64_t width, SconceObject *out,
        const SconceError *error);
};

/* What the network learns: y = a x0 + b eps.

   Laws: x0 and eps come back from (x_t, y) wherever the determinant alpha b - sigma a is not 0. */
struct SconceObjective {
    /* sizeof(SconceObjective), as its writer knows it. */
    size_t size;
    /* Frees a handle. Null: there is nothing to free. */
    void (*drop)(void *handle);
    /* The pairs a, b at n noise levels: `out` takes 2 n numbers. Must be there. */
    SconceStatus (*target)(void *handle, size_t n, const SconceNoise *noise, double *out,
        const SconceError *error);
    /* The factors on x_t before it enters the network, at n noise levels. Null: 1. */
    SconceStatus (*input_scale)(void *handle, size_t n, const SconceNoise *noise, double *out,
        const SconceError *error);
};

/* How much the error counts at each noise level.

   Laws: finite and not negative on every level that is drawn; the weight on the x0 error does not depend on the
   objective. */
struct SconceWeighting {
    /* sizeof(SconceWeighting), as its writer knows it. */
    size_t size;
    /* Frees a handle. Null: there is nothing to free. */
    void (*drop)(void *handle);
    /* The factors on |x0 - x0'|^2 at n log-SNRs ln(alpha^2 / sigma^2), which may be infinite. Must be there. */
    SconceStatus (*on_x0)(void *handle, size_t n, const double *log_snr, double *out, const SconceError *error);
    /* The factors on the output error |y - y'|^2 at n noise levels for n pairs a, b of the objective's: `target` has
       2 n numbers. Null: on_x0 (sigma / D)^2 with D = alpha b - sigma a, which is right for nearly all. */
    SconceStatus (*on_output)(void *handle, size_t n, const SconceNoise *noise, const double *target,
        double *out, const SconceError *error);
    /* What it learns as the run goes, at its start, as an object with a SconceWeightingState that its drop frees.
       Leave `out` as it is where it learns nothing. Null: it does not. */
    SconceStatus (*start)(void *handle, SconceObject *out, const SconceError *error);
};

/* Which times are trained on, as an inverse cumulative distribution.

   Laws: `quantile` rises in u and stays in [0, 1]; the density is that of the quantiles, and integrates to 1.

   `schedule` is an object with a SconceSchedule, for distributions over noise levels; it is the caller's, for the
   length of the call. */
struct SconceTimesteps {
    /* sizeof(SconceTimesteps), as its writer knows it. */
    size_t size;
    /* Frees a handle. Null: there is nothing to free. */
    void (*drop)(void *handle);
    /* The times of n quantiles u in [0, 1). Must be there. */
    SconceStatus (*quantile)(void *handle, size_t n, const double *u, SconceObject schedule, double *out,
        const SconceError *error);
    /* The shares of the draws at n times or before them. Null: found from `quantile` by bisection. */
    SconceStatus (*cumulative)(void *handle, size_t n, const double *t, SconceObject schedule, double *out,
        const SconceError *error);
    /* The draws per unit of t at n times. Null: a difference of `cumulative`. */
    SconceStatus (*density)(void *handle, size_t n, const double *t, SconceObject schedule, double *out,
        const SconceError *error);
    /* What it learns as the run goes, at its start, as an object with a SconceSamplerState that its drop frees. Leave
       `out` as it is where it learns nothing. Null: it does not. */
    SconceStatus (*start)(void *handle, SconceObject *out, const SconceError *error);
};

/* How far an output is from its target, element by element: rho_c(d) of the difference d and of a width c.

   Laws: rho is 0 at 0, even, and grows with |d|; the slope is its derivative; the width is finite and above 0. */
struct SconceDistance {
    /* sizeof(SconceDistance), as its writer knows it. */
    size_t size;
    /* Frees a handle. Null: there is nothing to free. */
    void (*drop)(void *handle);
    /* rho_c(d) and its derivative by d at n differences, for one width: `out` takes 2 n numbers, value and slope in
       turn. n is that of the elements of a picture's latents. Must be there. */
    SconceStatus (*at)(void *handle, size_t n, const double *difference, double width, double *out,
        const SconceError *error);
    /* The widths at n times, with the noise level of each. Null: 1. */
    SconceStatus (*width)(void *handle, size_t n, const double *t, const SconceNoise *noise, double *out,
        const SconceError *error);
};

/* How averages of the weights follow them: average <- decay average + (1 - decay) weights after every step.

   Laws: every decay is in [0, 1]; that of a track with a profile is the profile's; snapshots come at distances above
   0, and only of tracks among which there is a profile. */
struct SconceEma {
    /* sizeof(SconceEma), as its writer knows it. */
    size_t size;
    /* Frees a handle. Null: there is nothing to free. */
    void (*drop)(void *handle);
    /* Puts one number for each average that is kept, the same over the whole run: the gamma of its power-function
       profile (Karras et al. 2024), from which averages of other profiles can be rebuilt, or NaN where it has none.
       The first average is what is validated, drawn and written at the end. Must be there. */
    SconceStatus (*tracks)(void *handle, const SconceNumbers *gammas, const SconceError *error);
    /* The decays of average `track` after n steps: one of `batch[i]` images that ends at `images_seen[i]`. Must be there. */
    SconceStatus (*decay)(void *handle, uint64_t track, size_t n, const uint64_t *images_seen,
        const uint64_t *batch, double *out, const SconceError *error);
    /* Whether, in a run of `images_total`, all averages are written down as it goes: `every_images` becomes the
       distance, `stored` the type of the values, 0 for 32 bits, 1 for IEEE half, 2 for bfloat16. Leave both as they
       are where not. Null: not. */
    SconceStatus (*snapshots)(void *handle, uint64_t images_total, uint64_t *every_images, uint32_t *stored,
        const SconceError *error);
};

/* The factor on every learning rate over the run.

   Laws: finite and not negative. */
struct SconceLr {
    /* sizeof(SconceLr), as its writer knows it. */
    size_t size;
    /* Frees a handle. Null: there is nothing to free. */
    void (*drop)(void *handle);
    /* The factors for n steps: one that begins at `images_seen[i]` of `images_total[i]`. Must be there. */
    SconceStatus (*factor)(void *handle, size_t n, const uint64_t *images_seen, const uint64_t *images_total,
        double *out, const SconceError *error);
};

/* Where a sampler of n steps puts its noise levels.

   Laws: steps + 1 levels, of which the last is where the picture is taken; sigma/alpha falls strictly.

   `schedule` is an object with a SconceSchedule; it is the caller's, for the length of the call. */
struct SconceSpacing {
    /* sizeof(SconceSpacing), as its writer knows it. */
    size_t size;
    /* Frees a handle. Null: there is nothing to free. */
    void (*drop)(void *handle);
    /* The levels of a run: `out` has room for steps + 1, all of which are to be written. Must be there. */
    SconceStatus (*levels)(void *handle, SconceObject schedule, size_t steps, SconceLevel *out,
        const SconceError *error);
    /* The same for a solver that counts the last level among those to be placed. Null: as `levels`. */
    SconceStatus (*levels_counting_last)(void *handle, SconceObject schedule, size_t steps, SconceLevel *out,
        const SconceError *error);
};

/* What a timestep sampler learned: a map of [0, 1) onto itself before its own quantiles. It rises from 0 to 1, and the
   weight is its derivative, so that the loss stays unbiased.

   A state is a pure function of what it was told. One thread at a time uses it. A handle is a state. */
struct SconceSamplerState {
    /* The size of this struct, as its writer knows it. */
    size_t size;
    /* Frees a handle. Null: there is nothing to free. */
    void (*drop)(void *handle);
    /* Takes in the n pictures of one update; an item is `item_size` bytes, which may be more than
       sizeof(SconceObservation). Must be there. */
    SconceStatus (*observe)(void *handle, size_t n, const SconceObservation *seen, size_t item_size,
        const SconceError *error);
    /* Puts everything needed to go on exactly. Must be there. */
    SconceStatus (*save)(void *handle, const SconceNumbers *state, const SconceError *error);
    /* Takes it back, in a state that was just started; fails where it does not fit. Must be there. */
    SconceStatus (*restore)(void *handle, size_t n, const double *state, const SconceError *error);
    /* The quantiles v to train at in place of n numbers u, and their weights dv/du: `out` takes 2 n numbers, v and weight
       in turn. Must be there. */
    SconceStatus (*map)(void *handle, size_t n, const double *u, double *out, const SconceError *error);
};

/* What a weighting learned: the logarithm u(lambda) of the loss that it expects, by which a loss L becomes L/e^u + u.
   Finite, at infinite log-SNRs too.

   A state is a pure function of what it was told. One thread at a time uses it. A handle is a state. */
struct SconceWeightingState {
    /* The size of this struct, as its writer knows it. */
    size_t size;
    /* Frees a handle. Null: there is nothing to free. */
    void (*drop)(void *handle);
    /* Takes in the n pictures of one update; an item is `item_size` bytes, which may be more than
       sizeof(SconceObservation). Must be there. */
    SconceStatus (*observe)(void *handle, size_t n, const SconceObservation *seen, size_t item_size,
        const SconceError *error);
    /* Puts everything needed to go on exactly. Must be there. */
    SconceStatus (*save)(void *handle, const SconceNumbers *state, const SconceError *error);
    /* Takes it back, in a state that was just started; fails where it does not fit. Must be there. */
    SconceStatus (*restore)(void *handle, size_t n, const double *state, const SconceError *error);
    /* u at n log-SNRs. Must be there. */
    SconceStatus (*log_loss)(void *handle, size_t n, const double *log_snr, double *out,
        const SconceError *error);
};

/* A denoiser with an engine of its own. Its parameters are the program's to train: it reads them once, and writes them
   before a pass whenever they changed.

   Laws: asked the same, it answers the same, to the bit; what is written is read; the products are those of the
   derivatives. Several threads may ask at once; nothing is written while one does.

   `inputs` are "x" (B C H W), "time" (B), and the conditions that `about` names, in that order. A list of tensors is one
   of pointers, so that SconceTensor can grow. */
struct SconceBackbone {
    /* sizeof(SconceBackbone), as its writer knows it. */
    size_t size;
    /* Frees a handle. Null: there is nothing to free. */
    void (*drop)(void *handle);
    /* Puts a JSON object: "channels" of the latents; "side_multiple", which latents' sides must be multiples of (1
       where it is not there); "conditions", a list of {"name": "context", "shape": [77, 768]} with the sides behind the
       batch's, 0 for any; "native", tables of a recipe that say what it was trained as. Must be there. */
    SconceStatus (*about)(void *handle, const SconceText *json, const SconceError *error);
    /* Puts name and shape of each parameter, always the same in the same order. Must be there. */
    SconceStatus (*parameters)(void *handle, const SconceTensors *list, const SconceError *error);
    /* Copies the values of a parameter, counted as in `parameters`, to `out`: n is the number of its elements. Must be
       there. */
    SconceStatus (*read)(void *handle, size_t parameter, size_t n, float *out, const SconceError *error);
    /* Sets the values of a parameter. Must be there. */
    SconceStatus (*write)(void *handle, size_t parameter, size_t n, const float *values,
        const SconceError *error);
    /* The output for the inputs, into `out`, which has the shape of "x". Where `tape` is not null, something is going to
       be trained: it becomes what `backward` needs of this pass, and `forget` frees it. Must be there. */
    SconceStatus (*forward)(void *handle, size_t n_inputs, const SconceTensor *const *inputs,
        const SconceTensor *out, void **tape, const SconceError *error);
    /* The vector-Jacobian product: from the gradient of the output to those of the inputs and of the parameters. A null
       pointer in a list is one that is not wanted; the others are to be overwritten. The parameters are still those of
       the pass. It may be called more than once for a tape. Must be there. */
    SconceStatus (*backward)(void *handle, void *tape, const SconceTensor *d_out, size_t n_inputs,
        const SconceTensor *const *d_inputs, size_t n_parameters, const SconceTensor *const *d_parameters,
        const SconceError *error);
    /* Frees a tape; every tape is freed, before its handle is. Must be there. */
    void (*forget)(void *handle, void *tape);
    /* The network's own times for n t in [0, 1], with the noise level of each: what the input "time" holds. Null: t. */
    SconceStatus (*time)(void *handle, size_t n, const double *t, const SconceNoise *noise, double *out,
        const SconceError *error);
    /* From 1.1 on. Makes the network in the memory of a GPU, for a program that trains there: an object with a
       SconceCudaBackbone, which is freed before this handle is. One whose table stays null, or a null function: the
       network works in the machine's memory, and its tensors are copied there and back. A failure ends the run. */
    SconceStatus (*on_cuda)(void *handle, const SconceCuda *at, SconceObject *object, const SconceError *error);
};

/* Where a program computes: a GPU, as CUDA's driver knows it. From 1.1 on. */
struct SconceCuda {
    /* sizeof(SconceCuda), as the caller knows it. */
    size_t size;
    /* The GPU's number among those that the process sees. */
    uint32_t device;
    /* 0. */
    uint32_t reserved;
    /* Its CUcontext, which is current in the thread of every call. The program's is the GPU's primary one, which CUDA's
       runtime uses too. */
    void *context;
    /* The CUstream that the program's work is queued on; null is the context's default one. */
    void *stream;
};

/* A network on one GPU: its tensors are in SCONCE_MEMORY_CUDA, and its parameters are written there. From 1.1 on.

   Work is queued on the stream that the object was made for, in whose order the program writes tensors, reads the answers
   and frees both; or it is done when the function returns. */
struct SconceCudaBackbone {
    /* sizeof(SconceCudaBackbone), as its writer knows it. */
    size_t size;
    /* Frees a handle. Null: there is nothing to free. */
    void (*drop)(void *handle);
    /* Sets the values of a parameter, before the first pass and whenever they changed. Must be there. */
    SconceStatus (*write)(void *handle, size_t parameter, const SconceTensor *values, const SconceError *error);
    /* As of SconceBackbone. Must be there. */
    SconceStatus (*forward)(void *handle, size_t n_inputs, const SconceTensor *const *inputs,
        const SconceTensor *out, void **tape, const SconceError *error);
    /* As of SconceBackbone. Must be there. */
    SconceStatus (*backward)(void *handle, void *tape, const SconceTensor *d_out, size_t n_inputs,
        const SconceTensor *const *d_inputs, size_t n_parameters, const SconceTensor *const *d_parameters,
        const SconceError *error);
    /* Frees a tape; every tape is freed, before its handle is. Must be there. */
    void (*forget)(void *handle, void *tape);
};

/* What the program offers to a library: the argument of `sconce_plugin`. It lives for ever. */
struct SconceHost {
    /* sizeof(SconceHost), as the program knows it. */
    size_t size;
    /* The program's ABI. A library of another major version may read no field beyond the versions. */
    uint32_t abi_major;
    /* Counts what was added at the ends of tables. */
    uint32_t abi_minor;
    /* The version of sconce-sdk that the program is built with. */
    SconceStr version;
    /* Makes a plugin of any crate or library, for a plugin that wraps another one. `kind` is such as "schedule",
       `table` is JSON as a recipe has it, {"type": "cosine", ...} or "cosine". `object` becomes the plugin, whose
       table is that of its kind; its drop frees it. `resolved`, which may be null, takes {"type": name, ...} with
       every default filled in. Call it while building, or later, from any thread. */
    SconceStatus (*make)(SconceStr kind, SconceStr table, SconceObject *object, const SconceText *resolved,
        const SconceError *error);
    /* For a library without a JSON parser: the number at `field` of the JSON object `params`. Leaves `out` as it is where
       there is no such field; fails where it is no number. */
    SconceStatus (*number)(SconceStr params, SconceStr field, double *out, const SconceError *error);
    /* The same for a string, which is put into `out`. */
    SconceStatus (*text)(SconceStr params, SconceStr field, const SconceText *out, const SconceError *error);
    /* Fails if the JSON object `params` has a field that is none of `names`. */
    SconceStatus (*only)(SconceStr params, size_t n, const SconceStr *names, const SconceError *error);
};

/* A plugin of a library. */
struct SconcePlugin {
    /* sizeof(SconcePlugin), as the library knows it. */
    size_t size;
    /* What it decides: "schedule", "objective", "weighting", "timesteps", "distance", "ema", "lr", "spacing" or
       "backbone". A program skips kinds that it does not know. */
    SconceStr kind;
    /* Its name in recipes: small letters, digits and hyphens. */
    SconceStr name;
    /* Other names that it answers to. */
    const SconceStr *aliases;
    /* Their number. */
    size_t n_aliases;
    /* The JSON Schema of its parameters, an object: "description" says what the plugin does, "properties" has a
       "description" for each parameter, "examples" has tables to try it with where there are no defaults for all. */
    SconceStr schema;
    /* The functions of its kind: a SconceSchedule, SconceObjective, SconceWeighting, SconceTimesteps, SconceDistance,
       SconceEma, SconceLr, SconceSpacing or SconceBackbone. It lives for ever. */
    const void *table;
    /* The library's own, for `build`; may be null. */
    const void *data;
    /* Makes the plugin from `params`, a JSON object without "type": unknown fields are to be errors. `handle` becomes
       what the table's functions take. `resolved` takes `params` with every default filled in, as a JSON object; where
       nothing is put, the parameters are taken as they are. After a failure the handle is not used. */
    SconceStatus (*build)(const SconcePlugin *plugin, SconceStr params, void **handle,
        const SconceText *resolved, const SconceError *error);
};

/* What a library is: what `sconce_plugin` returns. It lives for ever. */
struct SconceLibrary {
    /* sizeof(SconceLibrary), as the library knows it. */
    size_t size;
    /* SCONCE_ABI_MAJOR. A program of another major version reads no field beyond `version`. */
    uint32_t abi_major;
    /* SCONCE_ABI_MINOR. */
    uint32_t abi_minor;
    /* What it was built with, for messages: "sconce-sdk 0.1.0", "sconce_plugin.h 1.0, gcc 13". */
    SconceStr sdk;
    /* The crate's or library's name. */
    SconceStr name;
    /* Its version. */
    SconceStr version;
    /* Its plugins, each a pointer of its own, so that a SconcePlugin can grow. */
    const SconcePlugin *const *plugins;
    /* Their number. */
    size_t n_plugins;
};

/* A text from a C string. */
static inline SconceStr sconce_str(const char *text) {
    SconceStr view = {text, 0};
    while (text && text[view.length]) view.length++;
    return view;
}

/* Tells `error` why, and gives the status to return: `return sconce_fail(error, "alpha is negative");` */
static inline SconceStatus sconce_fail(const SconceError *error, const char *why) {
    if (error && error->message) error->message(error->context, sconce_str(why));
    return SCONCE_FAILED;
}

#if defined(_WIN32)
#define SCONCE_EXPORT __declspec(dllexport)
#else
#define SCONCE_EXPORT __attribute__((visibility("default")))
#endif

/* What the library is; null after a failure, with its reason in `error`. It may be called more than once. */
SCONCE_EXPORT const SconceLibrary *sconce_plugin(const SconceHost *host, const SconceError *error);

#ifdef __cplusplus
}
#endif

#endif
