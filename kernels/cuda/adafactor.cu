// Adafactor (Shazeer & Stern 2018, algorithms 4 and 5) over all tensors of a group in five launches, whatever their number:
// row_means and column_sums, column_means, then update_squares and apply, each with a block per job of a table. A job
// names a tensor and a part of it; jobs depend on shapes alone. Tensors are float16, bfloat16, float32 or float64;
// arithmetic is in A: float, or double where one is float64. Sums have a fixed order.
#include "kinds.cuh"

namespace spiral {
constexpr int THREADS = 256, ROWS = 32, LONG_ROW = 2048, CHUNK = 256, TILE = 32, PIECE = 16384;

struct Factored {  // struct format "4P6q4i"
  void* p;         // parameter (lead, rows, columns), changed
  const void* g;   // its gradient
  void* row;       // averages (lead, rows, 1), changed; or those of every element where columns is 0
  void* column;    // averages (lead, 1, columns), changed
  i64 rows, columns, size;
  i64 sums_at;     // where its part of the scratch `sums` begins: (lead, chunks, columns)
  i64 mean_at;     // and of `means`: (lead)
  i64 piece_at;    // and of `squares`: (pieces, 2)
  int chunks;      // of CHUNK rows
  int pieces;      // of PIECE elements
  int kinds;       // four bits for the Kind of p, g, row, column each
  int unused;
  __device__ int kind(int k) const { return kinds >> 4 * k & 15; }
};

struct Job { int tensor, a, b, c; };

struct Settings {  // struct format "6d"
  double share, eps1, eps2, rate, d, keep;  // share: step^beta2_decay; rate: min(lr, 1 / sqrt(step))
};

template <class A>
__device__ inline A square_of(const Factored& f, i64 i) {
  const A g = load_one<A>(f.g, f.kind(1), i);
  return g * g;
}

template <class A>
__device__ inline void average(void* p, int kind, i64 i, A value, A share) {
  const A old = load_one<A>(p, kind, i);
  store_one<A>(p, kind, i, old + share * (value - old));
}

// row_means: row += share * (mean of g^2 over the columns - row); job: rows a * ROWS to (a + 1) * ROWS of (lead * rows).
// A warp sums a row, or the whole block does where it is long. Reads g once; 2 operations per element.
template <class A>
__global__ void row_means(const Factored* tensors, const Job* jobs, Settings s) {
  __shared__ A scratch[32];
  const Job job = jobs[blockIdx.x];
  const Factored f = tensors[job.tensor];
  const bool alone = f.columns > LONG_ROW;
  const int lane = alone ? threadIdx.x : threadIdx.x & 31, lanes = alone ? THREADS : 32;
  const i64 total = f.size / f.columns, first = (i64)job.a * ROWS;
  for (int r = alone ? 0 : threadIdx.x >> 5; r < ROWS && first + r < total; r += alone ? 1 : THREADS / 32) {
    const i64 start = (first + r) * f.columns;
    A sum = 0;
    for (i64 c = lane; c < f.columns; c += lanes) sum += square_of<A>(f, start + c);
    sum = alone ? block_reduce<Add>(sum, (A)0, scratch) : warp_reduce<Add>(sum);
    if (lane == 0) average<A>(f.row, f.kind(2), first + r, sum / (A)f.columns, (A)s.share);
  }
}

// column_sums: sums[lead, chunk, column] = the sum of g^2 over a chunk's rows; job: lead a, chunk b, columns c * TILE on.
// Reads g once; 2 operations per element.
template <class A>
__global__ void column_sums(const Factored* tensors, const Job* jobs, A* sums) {
  __shared__ A part[THREADS / TILE][TILE];
  const Job job = jobs[blockIdx.x];
  const Factored f = tensors[job.tensor];
  const i64 column = (i64)job.c * TILE + threadIdx.x % TILE, first = (i64)job.b * CHUNK;
  const i64 last = first + CHUNK < f.rows ? first + CHUNK : f.rows;
  A sum = 0;
  if (column < f.columns)
    for (i64 r = first + threadIdx.x / TILE; r < last; r += THREADS / TILE)
      sum += square_of<A>(f, (job.a * f.rows + r) * f.columns + column);
  part[threadIdx.x / TILE][threadIdx.x % TILE] = sum;
  __syncthreads();
  if (threadIdx.x >= TILE || column >= f.columns) return;
  for (int k = 1; k < THREADS / TILE; k++) sum += part[k][threadIdx.x];
  sums[f.sums_at + ((i64)job.a * f.chunks + job.b) * f.columns + column] = sum;
}

// column_means: column += share * (mean of g^2 over the rows - column), and means[lead] = the mean of the row averages;
// job: lead a.
template <class A>
__global__ void column_means(const Factored* tensors, const Job* jobs, const A* sums, A* means, Settings s) {
  __shared__ A scratch[32];
  const Job job = jobs[blockIdx.x];
  const Factored f = tensors[job.tensor];
  for (i64 c = threadIdx.x; c < f.columns; c += THREADS) {
    A sum = 0;
    for (int k = 0; k < f.chunks; k++) sum += sums[f.sums_at + ((i64)job.a * f.chunks + k) * f.columns + c];
    average<A>(f.column, f.kind(3), job.a * f.columns + c, sum / (A)f.rows, (A)s.share);
  }
  A sum = 0;
  for (i64 r = threadIdx.x; r < f.rows; r += THREADS) sum += load_one<A>(f.row, f.kind(2), job.a * f.rows + r);
  sum = block_reduce<Add>(sum, (A)0, scratch);
  if (threadIdx.x == 0) means[f.mean_at + job.a] = sum / (A)f.rows;
}

// The unscaled update of element i: g over the root of the estimated second moment.
template <class A>
__device__ inline A update_of(const Factored& f, i64 i, const A* means, const Settings& s) {
  A estimate;
  if (f.columns == 0) {
    estimate = load_one<A>(f.row, f.kind(2), i);
  } else {
    i64 row, column, lead;
    if ((u64)f.size >> 32 == 0)  // 64-bit divisions cost several times as much
      row = (u32)i / (u32)f.columns, column = (u32)i % (u32)f.columns, lead = (u32)row / (u32)f.rows;
    else
      row = i / f.columns, column = i % f.columns, lead = row / f.rows;
    const A mean = means[f.mean_at + lead], eps1 = (A)s.eps1;
    estimate = load_one<A>(f.row, f.kind(2), row) * load_one<A>(f.column, f.kind(3), lead * f.columns + column) /
               (mean > eps1 || mean != mean ? mean : eps1);
  }
  const A least = (A)(s.eps1 * s.eps1);
  return load_one<A>(f.g, f.kind(1), i) / (A)sqrt(estimate > least || estimate != estimate ? estimate : least);
}

// update_squares: squares[piece] = the sums of p^2 and of update^2 over a piece, job: piece a; the averages of tensors
// without rows and columns are moved here. Reads p, g and the averages once; about 10 operations per element.
template <class A>
__global__ void update_squares(const Factored* tensors, const Job* jobs, const A* means, double* squares, Settings s) {
  __shared__ double scratch[32];
  const Job job = jobs[blockIdx.x];
  const Factored f = tensors[job.tensor];
  const i64 first = (i64)job.a * PIECE, last = first + PIECE < f.size ? first + PIECE : f.size;
  A sizes = 0, updates = 0;
#pragma unroll 4
  for (i64 i = first + threadIdx.x; i < last; i += THREADS) {
    if (f.columns == 0) average<A>(f.row, f.kind(2), i, square_of<A>(f, i), (A)s.share);
    const A p = load_one<A>(f.p, f.kind(0), i), u = update_of<A>(f, i, means, s);
    sizes += p * p, updates += u * u;
  }
  const double p2 = block_reduce<Add>((double)sizes, 0.0, scratch);
  const double u2 = block_reduce<Add>((double)updates, 0.0, scratch);
  if (threadIdx.x == 0) squares[2 * (f.piece_at + job.a)] = p2, squares[2 * (f.piece_at + job.a) + 1] = u2;
}

// apply: p = keep * p - update * alpha / max(rms(update) / d, 1), alpha = max(rms(p), eps2) * rate; job: piece a. Reads p
// and g and writes p once; about 12 operations per element.
template <class A>
__global__ void apply(const Factored* tensors, const Job* jobs, const A* means, const double* squares, Settings s) {
  __shared__ double scratch[32];
  const Job job = jobs[blockIdx.x];
  const Factored f = tensors[job.tensor];
  double p2 = 0, u2 = 0;
  for (int k = threadIdx.x; k < f.pieces; k += THREADS)
    p2 += squares[2 * (f.piece_at + k)], u2 += squares[2 * (f.piece_at + k) + 1];
  const double size = sqrt(block_reduce<Add>(p2, 0.0, scratch) / f.size);
  const double clip = sqrt(block_reduce<Add>(u2, 0.0, scratch) / f.size) / s.d;
  const double alpha = (size > s.eps2 || size != size ? size : s.eps2) * s.rate;
  const A scale = (A)(alpha / (clip > 1 || clip != clip ? clip : 1.0)), keep = (A)s.keep;
  const i64 first = (i64)job.a * PIECE, last = first + PIECE < f.size ? first + PIECE : f.size;
#pragma unroll 4
  for (i64 i = first + threadIdx.x; i < last; i += THREADS) {
    const A p = load_one<A>(f.p, f.kind(0), i);
    store_one<A>(f.p, f.kind(0), i, p * keep - update_of<A>(f, i, means, s) * scale);
  }
}
}  // namespace spiral
