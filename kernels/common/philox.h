// Philox4x32-10, the counter-based random generator of Salmon, Moraes, Dror & Shaw, "Parallel random
// numbers: as easy as 1, 2, 3" (SC 2011), written once for C++ and CUDA C.
//
// The streams of this project, exactly, so that any backend (or NumPy) gives the same numbers:
//   key      k0 = seed mod 2^32, k1 = seed div 2^32          (seed: unsigned 64 bits)
//   counter  c0, c1 = block mod 2^32, block div 2^32;  c2, c3 = stream mod 2^32, stream div 2^32
//   bits     element i of a stream is word i mod 4 of block i div 4
//   uniform  f32(f64(low) + f64(f32(high - low)) * (bits div 2^8) * 2^-24), the product and the sum in
//            float64, then rounded to float32; a result that rounding took to `high` becomes the float
//            before it. For low = 0, high = 1 this is (bits div 2^8) * 2^-24.
//   normal   of the words (a, b) = (0, 1) and (2, 3) of a block, in float64 (Box & Muller 1958):
//            r = sqrt(-2 ln((a div 2^8 + 1/2) * 2^-24)), t = 2 pi (b div 2^8) * 2^-24
//            even element: f32(mean + std * (r cos t)), odd element: f32(mean + std * (r sin t))
//   integer  low + ((bits * (high - low)) div 2^32)
//   dropout  element i is kept when bits >= round(p * 2^32)
//
// Known answers (Random123, kat_vectors): key 0, counter 0 gives 6627e8d5 e169c58d bc57ac4c 9b00dbd8;
// key and counter all ones give 408f276d 41c83b0e a20bc7c6 6d5451fd.
#pragma once
// no <stdint.h>: NVRTC has none
typedef unsigned int spiral_word;         // uint32_t
typedef unsigned long long spiral_word2;  // 64 bits

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define SPIRAL_PHILOX_FN static __host__ __device__ inline
#else
#define SPIRAL_PHILOX_FN static inline
#endif

#define SPIRAL_PHILOX_M0 0xD2511F53u  // multipliers
#define SPIRAL_PHILOX_M1 0xCD9E8D57u
#define SPIRAL_PHILOX_W0 0x9E3779B9u  // key increments: the golden ratio and sqrt(3) - 1
#define SPIRAL_PHILOX_W1 0xBB67AE85u
#define SPIRAL_PHILOX_ROUNDS 10

// c: the counter on entry, the block's four words on return
SPIRAL_PHILOX_FN void philox4x32_10(spiral_word c[4], spiral_word k0, spiral_word k1) {
  for (int round = 0; round < SPIRAL_PHILOX_ROUNDS; round++) {
    spiral_word2 p0 = (spiral_word2)SPIRAL_PHILOX_M0 * c[0], p1 = (spiral_word2)SPIRAL_PHILOX_M1 * c[2];
    c[0] = (spiral_word)(p1 >> 32) ^ c[1] ^ k0;
    c[1] = (spiral_word)p1;
    c[2] = (spiral_word)(p0 >> 32) ^ c[3] ^ k1;
    c[3] = (spiral_word)p0;
    k0 += SPIRAL_PHILOX_W0;
    k1 += SPIRAL_PHILOX_W1;
  }
}

// one block of a stream
SPIRAL_PHILOX_FN void philox_block(spiral_word2 seed, spiral_word2 stream, spiral_word2 block, spiral_word words[4]) {
  words[0] = (spiral_word)block;
  words[1] = (spiral_word)(block >> 32);
  words[2] = (spiral_word)stream;
  words[3] = (spiral_word)(stream >> 32);
  philox4x32_10(words, (spiral_word)seed, (spiral_word)(seed >> 32));
}
