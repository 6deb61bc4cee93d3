// Calls a kernel with its parameters given as cuLaunchKernel takes them: an array of pointers to values.
#pragma once
#include "runtime.h"

namespace spiral_cpu {
template <int... I> struct Indices {};
template <int N, int... I> struct CountTo : CountTo<N - 1, N - 1, I...> {};
template <int... I> struct CountTo<0, I...> { typedef Indices<I...> type; };
template <class T> struct Value { typedef T type; };
template <class T> struct Value<const T> { typedef T type; };

struct Parameter {
  int bytes;    // -1: there are no more
  int padding;  // that it may have at its end, at most
};

template <auto kernel> struct Entry;
template <class... P, void (*kernel)(P...)>
struct Entry<kernel> {
  static constexpr Parameter parameters[] = {{sizeof(P), __is_class(P) ? alignof(P) - 1 : 0}..., {-1, 0}};
  static void call(void** params) { call_with(params, typename CountTo<sizeof...(P)>::type()); }
  template <int... I>
  static void call_with(void** params, Indices<I...>) { kernel(*(typename Value<P>::type*)params[I]...); }
};

struct Kernel {
  const char* name;
  void (*call)(void** params);
  const Parameter* parameters;
};
}  // namespace spiral_cpu
