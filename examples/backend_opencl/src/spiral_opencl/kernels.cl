// Reductions, matrix products, softmax, norms and AdamW. Every array is an address and the offset of its first element.
// An item computes its result (a row, where results are rows) in a fixed order: same inputs, same bits.
#pragma OPENCL FP_CONTRACT OFF

#define IN(x) global const float *x##_block, long x##_at
#define OUT(x) global float *x##_block, long x##_at
#define AT(x) (x##_block + x##_at)

// A running sum that keeps what rounding loses (Neumaier 1974): as exact as float64, which not every device has.
typedef struct { float sum, lost; } Sum;
inline void add_to(Sum *s, float v) {
  const float t = s->sum + v;
  s->lost += fabs(s->sum) >= fabs(v) ? (s->sum - t) + v : (v - t) + s->sum;
  s->sum = t;
}
inline float total(const Sum *s) { return isfinite(s->sum) ? s->sum + s->lost : s->sum; }

// x (outer, n, inner) to y (outer, inner)
#define REDUCE(name, begin, step, finish)                                        \
  kernel void reduce_##name(IN(x), OUT(y), long outer, long n, long inner) {     \
    const long item = get_global_id(0);                                          \
    if (item >= outer * inner) return;                                           \
    global const float *x = AT(x) + item / inner * n * inner + item % inner;     \
    begin;                                                                       \
    for (long k = 0; k < n; k++) {                                               \
      const float v = x[k * inner];                                              \
      step;                                                                      \
    }                                                                            \
    AT(y)[item] = finish;                                                        \
  }
REDUCE(sum, Sum s = {0}, add_to(&s, v), total(&s))
REDUCE(mean, Sum s = {0}, add_to(&s, v), total(&s) / n)
REDUCE(max, float m = -INFINITY, m = v >= m || isnan(v) ? v : m, m)
REDUCE(min, float m = INFINITY, m = v <= m || isnan(v) ? v : m, m)

// z (batch, m, n) = x (batch, m, k) @ y (batch, k, n): x with any strides, columns of y side by side. An item computes
// 8 x 8 elements; at the edges fewer.
typedef struct { long batch, row, column; } By;
kernel void matmul(IN(x), By xs, IN(y), By ys, OUT(z), long batch, long m, long n, long k) {
  const long tiles_n = (n + 7) / 8, tiles = (m + 7) / 8 * tiles_n, item = get_global_id(0);
  if (item >= batch * tiles) return;
  const long b = item / tiles, row = item % tiles / tiles_n * 8, column = item % tiles_n * 8;
  const int rows = min(m - row, 8L), columns = min(n - column, 8L);
  global const float *x[8], *y = AT(y) + b * ys.batch + column;
  for (int i = 0; i < 8; i++) x[i] = AT(x) + b * xs.batch + (row + min(i, rows - 1)) * xs.row;
  float8 z[8] = {0};
  for (long t = 0; t < k; t++, y += ys.row) {
    float edge[8] = {0};
    for (int j = 0; columns < 8 && j < columns; j++) edge[j] = y[j];
    const float8 v = columns < 8 ? vload8(0, edge) : vload8(0, y);
    for (int i = 0; i < 8; i++) z[i] = fma((float8)(x[i][t * xs.column]), v, z[i]);
  }
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < columns; j++) AT(z)[(b * m + row + i) * n + column + j] = ((float *)&z[i])[j];
}

#define ROW                            \
  const long row = get_global_id(0);   \
  if (row >= rows) return;             \
  global const float *x = AT(x) + row * n; \
  global float *y = AT(y) + row * n;

kernel void softmax(IN(x), OUT(y), long rows, long n) {
  ROW
  float top = -INFINITY;
  for (long k = 0; k < n; k++) top = fmax(top, x[k]);
  Sum s = {0};
  for (long k = 0; k < n; k++) add_to(&s, y[k] = exp(x[k] - top));
  for (long k = 0; k < n; k++) y[k] /= total(&s);
}

// centred: layer norm, else RMS norm, whose mean is 0
kernel void norm(IN(x), IN(w), IN(b), OUT(y), OUT(mean), OUT(rstd), long rows, long n, long centred, float eps) {
  ROW
  Sum s = {0}, squares = {0};
  for (long k = 0; centred && k < n; k++) add_to(&s, x[k]);
  const float mean = total(&s) / n;
  for (long k = 0; k < n; k++) add_to(&squares, (x[k] - mean) * (x[k] - mean));
  const float rstd = 1 / sqrt(total(&squares) / n + eps);
  for (long k = 0; k < n; k++) y[k] = (x[k] - mean) * rstd * AT(w)[k] + AT(b)[k];
  if (centred) AT(mean)[row] = mean;
  AT(rstd)[row] = rstd;
}

// Loshchilov & Hutter 2019. new1, new2: 1 - beta; rate: lr / (1 - beta1^step); root: sqrt(1 - beta2^step)
kernel void adamw(OUT(p), IN(g), OUT(m), OUT(v), long n, long decoupled, float decay, float new1, float new2, float eps,
                  float rate, float root) {
  const long i = get_global_id(0);
  if (i >= n) return;
  float p = AT(p)[i], g = AT(g)[i], m = AT(m)[i], v = AT(v)[i];
  if (decoupled) p *= 1 - decay;
  else g += decay * p;
  AT(m)[i] = m += new1 * (g - m);
  AT(v)[i] = v = (1 - new2) * v + new2 * g * g;
  AT(p)[i] = p - rate * m / (sqrt(v) / root + eps);
}
