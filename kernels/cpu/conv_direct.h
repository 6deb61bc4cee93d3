// Convolution by the register tiles of conv_tiles.h: packed weights, tiles over samples and rows, and the
// gradient of the weights. Included by conv.cpp, which says when it is used.
//
// direct() overwrites y; direct_weight_grad() adds to its sum. Per tile the padded input, one block of
// output and the weights stay in the second-level cache; the last sweep writes y once, in its own layout.
#pragma once
#include <atomic>

#include "conv_tiles.h"
#include "gemm.h"
#include "native.h"

namespace spiral {
namespace {
constexpr i64 WEIGHTS = 96 << 10;      // bytes of packed weights per sweep over the pixels; L2 keeps up
constexpr i64 L2_OUTPUT = 192 << 10;   // bytes of a block of output before it is transposed
constexpr i64 L1_GRADIENT = 24 << 10;  // bytes of transposed g per sweep over the taps

// packed[group][block][tap][lane] from weight (o, taps). `swap`: for dx, where the mirrored taps of
// (channel in, channel out) take the place of those of (out, in).
void pack(const Conv& a, const Blocks& blocks, const float* w, bool swap, float* packed) {
  i64 width = blocks.width(), k = a.taps(), area = a.kh * a.kw;
  parallel_tiles(a.groups * blocks.count, [&](i64 t) {
    i64 group = t / blocks.count, first = t % blocks.count * width;
    float* to = packed + t * k * width;
    for (i64 i = 0; i < k; i++)
      for (i64 l = 0; l < width; l++) {
        i64 c = i / area, u = i % area, o = first + l;
        float v = 0.f;
        if (o < a.og())
          v = swap ? w[((group * a.cg() + c) * a.og() + o) * area + area - 1 - u]
                   : w[(group * a.og() + o) * k + i];
        to[i * width + l] = v;
      }
  });
}

// Output rows [r0, r0 + rows) of one sample and group.
struct Direct {
  const Conv& a;
  const Blocks& blocks;
  const float *packed, *bias;
  Activation act;
  i64 rows;  // per tile
  Planes planes;

  Direct(const Conv& conv, const Blocks& b, const float* w, const float* bias_, Activation act_)
      : a(conv),
        blocks(b),
        packed(w),
        bias(bias_),
        act(act_),
        rows(rows_per_tile(conv, b)),
        planes(conv, rows) {}

  // few enough that the output block stays in L2, and enough tiles when there are few samples
  static i64 rows_per_tile(const Conv& a, const Blocks& b) {
    i64 rows = std::max<i64>(1, L2_OUTPUT / (a.ow * b.width() * 4));
    i64 share = std::max<i64>(1, 8 / std::max<i64>(1, a.n * a.groups));
    return std::min({a.oh, rows, (a.oh + share - 1) / share});
  }
  i64 tiles() const { return (a.oh + rows - 1) / rows; }
  i64 scratch() const { return planes.scratch(a) + rows * a.ow * blocks.width(); }

  void run(const float* x, float* y, i64 group, i64 r0, const int32_t* off, float* mem) const {
    i64 nr = std::min(rows, a.oh - r0), width = blocks.width(), k = a.taps(), area = a.kh * a.kw;
    float* out = mem + planes.scratch(a);
    Planes used(a, nr);  // the last tile may have fewer rows
    used.plane = planes.plane;
    const float* in = used.read(a, x, r0, mem);
    i64 channels = std::max<i64>(1, WEIGHTS / (area * width * 4));
    const TapSum* sums = tap_sums(blocks.v);
    for (i64 b = 0; b < blocks.count; b++) {
      const float* w = packed + (group * blocks.count + b) * k * width;
      float* to = y + (b * width * a.oh + r0) * a.ow;
      pieces(a.cg(), channels, [&](i64 c, i64 nc) {
        for (i64 i = 0; i < nr; i++) {
          if (c == 0) prefetch<true>(to + i * a.ow, a.pixels(), 0, std::min(width, a.og() - b * width), a.ow);
          pieces(a.ow, pixels_for(blocks.v), [&](i64 j, i64 np) {
            sums[np - 1](in + i * a.sh * planes.pitch + j, off + c * area, nc * area, w + c * area * width,
                         out + (i * a.ow + j) * width, c > 0);
          });
        }
      });
      finish(out, nr * a.ow, group, b, to);
    }
  }
  // y: channel 0 of the block, first pixel of the tile
  void finish(const float* out, i64 pixels, i64 group, i64 b, float* y) const {
    i64 first = b * blocks.width(), n = std::min(blocks.width(), a.og() - first);
    const float* add = bias ? bias + group * a.og() + first : nullptr;
    bool relu = act == ACT_RELU;
    transpose(out, blocks.width(), pixels, n, y, a.pixels(), [=](Lanes v, i64 c) {
      if (add) v += add[c];
      return relu ? at_least(v, 0.f) : v;
    });
  }
};

bool direct(const Conv& a, const float* x, const float* w, bool swap, const float* bias, Activation act,
            float* y) {
  Blocks blocks(a.og());
  i64 k = a.taps();
  Scratch packed((size_t)(a.groups * blocks.count * k * blocks.width()) * 4), off((size_t)k * 4);
  if (!packed.p || !off.p) return false;
  pack(a, blocks, w, swap, packed.as<float>());
  Direct d(a, blocks, packed.as<float>(), bias, act);
  d.planes.offsets(a, off.as<int32_t>());
  std::atomic<bool> enough{true};
  i64 per = d.tiles();
  parallel_tiles(a.n * a.groups * per, [&](i64 t) {
    i64 sample = t / per / a.groups, group = t / per % a.groups;
    Scratch mem((size_t)d.scratch() * 4);
    if (!mem.p) {
      enough = false;
      return;
    }
    d.run(x + (sample * a.c + group * a.cg()) * a.h * a.w, y + (sample * a.o + group * a.og()) * a.pixels(),
          group, t % per * d.rows, off.as<int32_t>(), mem.as<float>());
  });
  return enough;
}

// output rows whose transposed g stays in L1
i64 gradient_rows(const Conv& a, const Blocks& blocks) {
  return std::max<i64>(1, L1_GRADIENT / (a.ow * blocks.width() * 4));
}

// dw of one sample and group, added to sum[block][tap][lane].
void direct_weight_grad(const Conv& a, const Blocks& blocks, const Planes& planes, const int32_t* off,
                        const float* x, const float* g, float* mem, float* sum) {
  i64 width = blocks.width(), k = a.taps();
  float* gt = mem + planes.scratch(a);
  const float* in = planes.read(a, x, 0, mem);
  const PixelSum* sums = pixel_sums(blocks.v);
  pieces(a.oh, gradient_rows(a, blocks), [&](i64 r0, i64 rows) {
    for (i64 b = 0; b < blocks.count; b++) {
      i64 n = std::min(width, a.og() - b * width);
      const float* from = g + b * width * a.pixels() + r0 * a.ow;
      if (n < width) std::fill(gt, gt + rows * a.ow * width, 0.f);
      transpose(from, a.pixels(), n, rows * a.ow, gt, width, as_is);
      pieces(k, taps_for(blocks.v), [&](i64 t, i64 nt) {
        prefetch<false>(from + rows * a.ow, a.pixels(), t * n / k, (t + nt) * n / k,
                        rows * a.ow);  // the next rows
        sums[nt - 1](in + r0 * a.sh * planes.pitch, a.sh * planes.pitch, off + t, rows, a.ow, gt,
                     sum + (b * k + t) * width);
      });
    }
  });
}

}  // namespace
}  // namespace spiral
