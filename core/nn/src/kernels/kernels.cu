// The kernels of the GPU, compiled when a program first uses one. Numbers are read and written in the type of the model and
// computed in f32. One block takes one row, slab or tile, so that every sum has one order, whatever the card. No header is
// included: none is needed at run time.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
struct bf16 { u16 bits; };
struct f16 { u16 bits; };

__device__ __forceinline__ float up(float x) { return x; }
__device__ __forceinline__ float up(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
__device__ __forceinline__ float up(f16 x) { float y; asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits)); return y; }
template <class T> __device__ __forceinline__ T down(float x);
template <> __device__ __forceinline__ float down<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 down<bf16>(float x) {
  u32 u = __float_as_uint(x);
  bf16 y;
  y.bits = (u & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : (u + 0x7fff + ((u >> 16) & 1)) >> 16;
  return y;
}
template <> __device__ __forceinline__ f16 down<f16>(float x) { f16 y; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); return y; }

// Sums over the threads of a block, the same in all of them.
__device__ float2 block_sum(float2 v) {
  __shared__ float2 parts[32];
  for (int i = 16; i; i >>= 1) { v.x += __shfl_xor_sync(~0u, v.x, i); v.y += __shfl_xor_sync(~0u, v.y, i); }
  __syncthreads();
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
  __syncthreads();
  float2 sum = make_float2(0.f, 0.f);
  for (int i = 0; i < blockDim.x / 32; i++) { sum.x += parts[i].x; sum.y += parts[i].y; }
  return sum;
}
__device__ float block_max(float v) {
  __shared__ float parts[32];
  for (int i = 16; i; i >>= 1) v = fmaxf(v, __shfl_xor_sync(~0u, v, i));
  __syncthreads();
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
  __syncthreads();
  float most = parts[0];
  for (int i = 1; i < blockDim.x / 32; i++) most = fmaxf(most, parts[i]);
  return most;
}

#define EACH(i, n) for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (u64)gridDim.x * blockDim.x)

// ---- pointwise: f and f' of silu, gelu, gelu by tanh, quick gelu ----
__device__ __forceinline__ float sigmoid(float x) { return 1.f / (1.f + expf(-x)); }
__device__ float2 act(int kind, float x) {
  if (kind == 1) {
    float below = 0.5f * erfcf(-x * 0.70710678f);
    return make_float2(x * below, below + x * 0.39894228f * expf(-0.5f * x * x));
  }
  float z = x, slope = 1.f;
  if (kind == 2) { z = x * (1.5957691f + 0.071354816f * x * x); slope = 1.5957691f + 3.f * 0.071354816f * x * x; }
  if (kind == 3) { z = 1.702f * x; slope = 1.702f; }
  float s = sigmoid(z);
  return make_float2(x * s, s + x * s * (1.f - s) * slope);
}
template <class T> __device__ void act_forward(T* y, const T* x, int kind, u64 n) { EACH(i, n) y[i] = down<T>(act(kind, up(x[i])).x); }
template <class T> __device__ void act_backward(T* dx, const T* x, const T* dy, int kind, u64 n) {
  EACH(i, n) dx[i] = down<T>(up(dy[i]) * act(kind, up(x[i])).y);
}
// Rows of [value, gate], `width` each, to value gelu(gate).
template <class T> __device__ void geglu_forward(T* y, const T* x, u32 width, u64 n) {
  EACH(i, n) { u64 at = i / width * 2 * width + i % width; y[i] = down<T>(up(x[at]) * act(1, up(x[at + width])).x); }
}
template <class T> __device__ void geglu_backward(T* dx, const T* x, const T* dy, u32 width, u64 n) {
  EACH(i, n) {
    u64 at = i / width * 2 * width + i % width;
    float2 gate = act(1, up(x[at + width]));
    float d = up(dy[i]), value = up(x[at]);
    dx[at] = down<T>(d * gate.x);
    dx[at + width] = down<T>(d * value * gate.y);
  }
}

// ---- softmax of rows of `width`; in causal ones, row r of `rows` sees keys up to first + r ----
template <class T> __device__ void softmax_forward(T* y, const T* x, u32 width, int causal, u32 rows, u32 first) {
  const T* row = x + (u64)blockIdx.x * width;
  T* out = y + (u64)blockIdx.x * width;
  u32 seen = causal ? min(width, first + blockIdx.x % rows + 1) : width;
  float most = __int_as_float(0xff800000);
  for (u32 i = threadIdx.x; i < seen; i += blockDim.x) most = fmaxf(most, up(row[i]));
  most = block_max(most);
  float2 sum = make_float2(0.f, 0.f);
  for (u32 i = threadIdx.x; i < seen; i += blockDim.x) sum.x += expf(up(row[i]) - most);
  float over = 1.f / block_sum(sum).x;
  for (u32 i = threadIdx.x; i < width; i += blockDim.x) out[i] = down<T>(i < seen ? expf(up(row[i]) - most) * over : 0.f);
}
// scale p (dp - sum p dp)
template <class T> __device__ void softmax_backward(T* dx, const T* p, const T* dp, u32 width, float scale) {
  u64 at = (u64)blockIdx.x * width;
  float2 along = make_float2(0.f, 0.f);
  for (u32 i = threadIdx.x; i < width; i += blockDim.x) along.x += up(p[at + i]) * up(dp[at + i]);
  along = block_sum(along);
  for (u32 i = threadIdx.x; i < width; i += blockDim.x) dx[at + i] = down<T>(scale * up(p[at + i]) * (up(dp[at + i]) - along.x));
}

// The same where a thread can hold its eight numbers of the row: each is read once. Rows are whole packs.
template <class T> struct __align__(16) pack { T at[8]; };
template <class T> __device__ __forceinline__ void load(float* v, const T* x) {
  pack<T> p = *(const pack<T>*)x;
  for (int i = 0; i < 8; i++) v[i] = up(p.at[i]);
}
template <class T> __device__ __forceinline__ void store(T* y, const float* v) {
  pack<T> p;
  for (int i = 0; i < 8; i++) p.at[i] = down<T>(v[i]);
  *(pack<T>*)y = p;
}
template <class T> __device__ void softmax_forward_held(T* y, const T* x, u32 width) {
  u64 at = (u64)blockIdx.x * width + 8 * threadIdx.x;
  bool mine = 8 * threadIdx.x < width;
  float v[8], most = __int_as_float(0xff800000);
  if (mine) { load(v, x + at); for (int i = 0; i < 8; i++) most = fmaxf(most, v[i]); }
  most = block_max(most);
  float2 sum = make_float2(0.f, 0.f);
  if (mine) for (int i = 0; i < 8; i++) { v[i] = expf(v[i] - most); sum.x += v[i]; }
  float over = 1.f / block_sum(sum).x;
  if (mine) { for (int i = 0; i < 8; i++) v[i] *= over; store(y + at, v); }
}
template <class T> __device__ void softmax_backward_held(T* dx, const T* p, const T* dp, u32 width, float scale) {
  u64 at = (u64)blockIdx.x * width + 8 * threadIdx.x;
  bool mine = 8 * threadIdx.x < width;
  float v[8], d[8];
  float2 along = make_float2(0.f, 0.f);
  if (mine) { load(v, p + at); load(d, dp + at); for (int i = 0; i < 8; i++) along.x += v[i] * d[i]; }
  along = block_sum(along);
  if (mine) { for (int i = 0; i < 8; i++) v[i] = scale * v[i] * (d[i] - along.x); store(dx + at, v); }
}

// ---- y += x, eight numbers a thread ----
template <class T> __device__ void add_onto(T* y, const T* x, u64 packs) {
  EACH(i, packs) {
    float a[8], b[8];
    load(a, y + 8 * i); load(b, x + 8 * i);
    for (int j = 0; j < 8; j++) a[j] += b[j];
    store(y + 8 * i, a);
  }
}
// ---- B A C D to B C A D, in units of 16 bytes, `width` of them in D ----
struct __align__(16) unit { u32 bits[4]; };
extern "C" __global__ void swapped(unit* y, const unit* x, u32 a, u32 c, u32 width, u64 n) {
  EACH(i, n) {
    u64 row = i / width;
    u64 ia = row % a, ic = row / a % c, ib = row / a / c;
    y[i] = x[((ib * a + ia) * c + ic) * width + i % width];
  }
}
// ---- sums of squares: one number a block, then the sum of those ----
template <class T> __device__ void squares(float* out, const T* x, u64 n) {
  float2 sum = make_float2(0.f, 0.f);
  EACH(i, n) { float v = up(x[i]); sum.x += v * v; }
  sum = block_sum(sum);
  if (threadIdx.x == 0) out[blockIdx.x] = sum.x;
}
extern "C" __global__ void total(float* out, const float* x, u32 n) {
  float2 sum = make_float2(0.f, 0.f);
  for (u32 i = threadIdx.x; i < n; i += blockDim.x) sum.x += x[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) out[0] = sum.x;
}

// ---- norms. A slab is a row of D numbers, or a group's channels of one sample; stats: mean and reciprocal deviation ----
__device__ float affine(float n, const float* w, const float* b, u32 channel) { return (w ? n * w[channel] : n) + (b ? b[channel] : 0.f); }
template <class T> __device__ float2 statistics(const T* x, u32 size, float eps, int centred) {
  float mean = 0.f;
  if (centred) {
    float2 sum = make_float2(0.f, 0.f);
    for (u32 i = threadIdx.x; i < size; i += blockDim.x) sum.x += up(x[i]);
    mean = block_sum(sum).x / size;
  }
  float2 square = make_float2(0.f, 0.f);
  for (u32 i = threadIdx.x; i < size; i += blockDim.x) { float d = up(x[i]) - mean; square.x += d * d; }
  return make_float2(mean, rsqrtf(block_sum(square).x / size + eps));
}
// Row norms have one channel a number (spatial 1, channels D); group norms one for `spatial` of them.
template <class T> __device__ void norm_forward(T* y, float2* stats, const T* x, const float* w, const float* b, u32 size, u32 spatial, u32 slabs, float eps, int centred, int silu) {
  u64 at = (u64)blockIdx.x * size;
  u32 first = blockIdx.x % slabs * (size / spatial);
  float2 s = statistics(x + at, size, eps, centred);
  for (u32 i = threadIdx.x; i < size; i += blockDim.x) {
    float z = affine((up(x[at + i]) - s.x) * s.y, w, b, first + i / spatial);
    y[at + i] = down<T>(silu ? z * sigmoid(z) : z);
  }
  if (threadIdx.x == 0) stats[blockIdx.x] = s;
}
// The gradient of the affine map's input, g, and the normalised number.
template <class T> __device__ float2 inner(const T* x, const T* dy, u64 i, float2 s, const float* w, const float* b, u32 channel, int silu) {
  float n = (up(x[i]) - s.x) * s.y, d = up(dy[i]);
  if (silu) { float z = affine(n, w, b, channel), t = sigmoid(z); d *= t + z * t * (1.f - t); }
  return make_float2(d, n);
}
template <class T> __device__ void norm_backward(T* dx, const T* x, const T* dy, const float2* stats, const float* w, const float* b, u32 size, u32 spatial, u32 slabs, int centred, int silu) {
  u64 at = (u64)blockIdx.x * size;
  u32 first = blockIdx.x % slabs * (size / spatial);
  float2 s = stats[blockIdx.x], sum = make_float2(0.f, 0.f);
  for (u32 i = threadIdx.x; i < size; i += blockDim.x) {
    u32 channel = first + i / spatial;
    float2 d = inner(x, dy, at + i, s, w, b, channel, silu);
    float g = w ? d.x * w[channel] : d.x;
    sum.x += g; sum.y += g * d.y;
  }
  sum = block_sum(sum);
  float mean = centred ? sum.x / size : 0.f, along = sum.y / size;
  for (u32 i = threadIdx.x; i < size; i += blockDim.x) {
    u32 channel = first + i / spatial;
    float2 d = inner(x, dy, at + i, s, w, b, channel, silu);
    dx[at + i] = down<T>(s.y * ((w ? d.x * w[channel] : d.x) - mean - d.y * along));
  }
}
// Sums over rows of dy n and dy: 32 columns a block.
template <class T> __device__ void row_norm_params(float* dw, float* db, const T* x, const T* dy, const float2* stats, u32 rows, u32 width) {
  __shared__ float2 parts[8][33];
  u32 column = blockIdx.x * 32 + threadIdx.x;
  float2 sum = make_float2(0.f, 0.f);
  if (column < width) for (u32 r = threadIdx.y; r < rows; r += 8) {
    u64 i = (u64)r * width + column;
    float d = up(dy[i]);
    sum.x += d * (up(x[i]) - stats[r].x) * stats[r].y; sum.y += d;
  }
  parts[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y == 0 && column < width) {
    for (int i = 1; i < 8; i++) { sum.x += parts[i][threadIdx.x].x; sum.y += parts[i][threadIdx.x].y; }
    dw[column] = sum.x; db[column] = sum.y;
  }
}
// The same for a group norm: one block a channel.
template <class T> __device__ void group_norm_params(float* dw, float* db, const T* x, const T* dy, const float2* stats, const float* w, const float* b, u32 batch, u32 channels, u32 groups, u32 spatial, int silu) {
  u32 channel = blockIdx.x;
  float2 sum = make_float2(0.f, 0.f);
  for (u32 sample = 0; sample < batch; sample++) {
    float2 s = stats[sample * groups + channel / (channels / groups)];
    u64 at = ((u64)sample * channels + channel) * spatial;
    for (u32 i = threadIdx.x; i < spatial; i += blockDim.x) {
      float2 d = inner(x, dy, at + i, s, w, b, channel, silu);
      sum.x += d.x * d.y; sum.y += d.x;
    }
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) { dw[channel] = sum.x; db[channel] = sum.y; }
}

// ---- x (offset + factor) + add: factor B D; add is nothing (0), B D (1) or B L D (2) ----
template <class T> __device__ void scaled(T* y, const T* x, const T* factor, const T* add, float offset, int kind, u32 length, u32 width, u64 n) {
  EACH(i, n) {
    u64 vector = i / ((u64)length * width) * width + i % width;
    float more = kind == 0 ? 0.f : kind == 1 ? up(add[vector]) : up(add[i]);
    y[i] = down<T>(up(x[i]) * (offset + up(factor[vector])) + more);
  }
}
// The sum over L of a b, or of a alone: B D. 32 columns of a sample a block.
template <class T> __device__ void summed(T* out, const T* a, const T* b, u32 length, u32 width) {
  __shared__ float parts[8][33];
  u32 column = blockIdx.x * 32 + threadIdx.x;
  u64 at = (u64)blockIdx.y * length * width + column;
  float sum = 0.f;
  if (column < width) for (u32 l = threadIdx.y; l < length; l += 8) { u64 i = at + (u64)l * width; sum += b ? up(a[i]) * up(b[i]) : up(a[i]); }
  parts[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y == 0 && column < width) {
    for (int i = 1; i < 8; i++) sum += parts[i][threadIdx.x];
    out[(u64)blockIdx.y * width + column] = down<T>(sum);
  }
}
// y += bias, by the last dimension, or by channel of B C S
template <class T> __device__ void add_bias(T* y, const T* bias, u32 channels, u32 spatial, u64 n) { EACH(i, n) y[i] = down<T>(up(y[i]) + up(bias[i / spatial % channels])); }
// Neighbouring pairs of every head turned by the angle of their place.
template <class T> __device__ void rotary(T* y, const T* x, const float* cos, const float* sin, float turn, u32 length, u32 row, u32 half, u64 n) {
  EACH(i, n) { // a pair
    u64 at = 2 * i, place = at / row % length * half + i % (row / 2) % half;
    float c = cos[place], s = turn * sin[place], a = up(x[at]), b = up(x[at + 1]);
    y[at] = down<T>(a * c - b * s);
    y[at + 1] = down<T>(a * s + b * c);
  }
}
// Codes to numbers: one or two codes a byte, a scale for 64.
template <class T> __device__ void unpack(T* y, const u8* codes, const f16* scales, const float* table, float largest, u32 in_a_byte, u64 n) {
  EACH(i, n) { u32 byte = codes[i / in_a_byte]; y[i] = down<T>(table[byte * in_a_byte + i % in_a_byte] * (up(scales[i / 64]) * largest)); }
}

#define FOR(T, S)                                                                                                      \
  extern "C" __global__ void act_forward_##S(T* y, const T* x, int kind, u64 n) { act_forward<T>(y, x, kind, n); }     \
  extern "C" __global__ void act_backward_##S(T* dx, const T* x, const T* dy, int kind, u64 n) { act_backward<T>(dx, x, dy, kind, n); } \
  extern "C" __global__ void geglu_forward_##S(T* y, const T* x, u32 width, u64 n) { geglu_forward<T>(y, x, width, n); } \
  extern "C" __global__ void geglu_backward_##S(T* dx, const T* x, const T* dy, u32 width, u64 n) { geglu_backward<T>(dx, x, dy, width, n); } \
  extern "C" __global__ void softmax_forward_##S(T* y, const T* x, u32 width, int causal, u32 rows, u32 first) { softmax_forward<T>(y, x, width, causal, rows, first); } \
  extern "C" __global__ void softmax_backward_##S(T* dx, const T* p, const T* dp, u32 width, float scale) { softmax_backward<T>(dx, p, dp, width, scale); } \
  extern "C" __global__ void softmax_forward_held_##S(T* y, const T* x, u32 width) { softmax_forward_held<T>(y, x, width); } \
  extern "C" __global__ void softmax_backward_held_##S(T* dx, const T* p, const T* dp, u32 width, float scale) { softmax_backward_held<T>(dx, p, dp, width, scale); } \
  extern "C" __global__ void add_onto_##S(T* y, const T* x, u64 packs) { add_onto<T>(y, x, packs); } \
  extern "C" __global__ void squares_##S(float* out, const T* x, u64 n) { squares<T>(out, x, n); } \
  extern "C" __global__ void norm_forward_##S(T* y, float2* stats, const T* x, const float* w, const float* b, u32 size, u32 spatial, u32 slabs, float eps, int centred, int silu) { norm_forward<T>(y, stats, x, w, b, size, spatial, slabs, eps, centred, silu); } \
  extern "C" __global__ void norm_backward_##S(T* dx, const T* x, const T* dy, const float2* stats, const float* w, const float* b, u32 size, u32 spatial, u32 slabs, int centred, int silu) { norm_backward<T>(dx, x, dy, stats, w, b, size, spatial, slabs, centred, silu); } \
  extern "C" __global__ void row_norm_params_##S(float* dw, float* db, const T* x, const T* dy, const float2* stats, u32 rows, u32 width) { row_norm_params<T>(dw, db, x, dy, stats, rows, width); } \
  extern "C" __global__ void group_norm_params_##S(float* dw, float* db, const T* x, const T* dy, const float2* stats, const float* w, const float* b, u32 batch, u32 channels, u32 groups, u32 spatial, int silu) { group_norm_params<T>(dw, db, x, dy, stats, w, b, batch, channels, groups, spatial, silu); } \
  extern "C" __global__ void scaled_##S(T* y, const T* x, const T* factor, const T* add, float offset, int kind, u32 length, u32 width, u64 n) { scaled<T>(y, x, factor, add, offset, kind, length, width, n); } \
  extern "C" __global__ void summed_##S(T* out, const T* a, const T* b, u32 length, u32 width) { summed<T>(out, a, b, length, width); } \
  extern "C" __global__ void add_bias_##S(T* y, const T* bias, u32 channels, u32 spatial, u64 n) { add_bias<T>(y, bias, channels, spatial, n); } \
  extern "C" __global__ void rotary_##S(T* y, const T* x, const float* cos, const float* sin, float turn, u32 length, u32 row, u32 half, u64 n) { rotary<T>(y, x, cos, sin, turn, length, row, half, n); } \
  extern "C" __global__ void unpack_##S(T* y, const u8* codes, const f16* scales, const float* table, float largest, u32 in_a_byte, u64 n) { unpack<T>(y, codes, scales, table, largest, in_a_byte, n); }
FOR(float, f32)
FOR(bf16, bf16)
FOR(f16, f16)

// ---- AdamW's update of a weight and its two moments ----
extern "C" __global__ void adamw(float* w, float* m, float* v, const float* g, float new1, float new2, float eps, float kept, float rate, float root, u64 n) {
  EACH(i, n) {
    m[i] += new1 * (g[i] - m[i]);
    v[i] += new2 * (g[i] * g[i] - v[i]);
    w[i] = kept * w[i] - rate * m[i] / (sqrtf(v[i]) * root + eps);
  }
}
