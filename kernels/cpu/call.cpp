// The call path of an op in C: dispatch key, table probe, outputs, launch, graph node.
//
// It does what `spiral.dispatch.call_slow` and `spiral.autograd.record` do, on the same objects and the same
// tables, for calls whose arguments are tensors, None and Python numbers. Everything else (a key that is not
// bound yet, lists of tensors, declared mutations, a kernel that raises) is left to them by calling
// `call_slow`, so there is one definition of every rule and this file only runs the common case faster: 0.5 us
// instead of 4 to 6 for a call, 0.3 instead of 3 for its node (2026-11). Objects are read through the offsets
// of their __slots__, which `call_setup` looks up once.
#include "native.h"

#include <structmember.h>

namespace spiral {
namespace {
// ---------------------------------------------------------------- objects by the offsets of their slots
typedef Py_ssize_t Slot;
inline PyObject*& at(PyObject* o, Slot s) { return *(PyObject**)((char*)o + s); }
inline void put(PyObject* o, Slot s, PyObject* v) { at(o, s) = v; }  // into a fresh object; steals v

bool find_slot(PyObject* type, const char* name, Slot* s) {
  PyObject* d = PyObject_GetAttrString(type, name);
  if (!d) return false;
  bool ok = Py_TYPE(d) == &PyMemberDescr_Type;
  if (ok)
    *s = ((PyMemberDescrObject*)d)->d_member->offset;
  else
    PyErr_Format(PyExc_TypeError, "call_setup: %.100s of %R is not a slot", name, type);
  Py_DECREF(d);
  return ok;
}

struct Core {
  PyTypeObject *core, *tensor, *node;
  PyObject *policy, *grad, *sequence;      // context variables and the tape's counter
  PyObject *slow, *empty_array;             // Python functions
  PyObject* foreign;                        // stamps of memory that is not pooled
  PyTypeObject* spec_of;                    // tuple (shape, key)
  PyObject *key_none, *key_bool, *key_int, *key_float, *zero, *one;
  Slot a, key, tape, index;                           // of TensorCore
  Slot op, edges, saved, keys, attrs, seq, outs;      // of Node
  Slot table;                                         // of Policy
  Slot fn, guard, next, out_keys, allocates, specs;   // of Entry
} core;
bool ready = false;
bool observed = false;  // somebody listens to ops: every call goes to Python, which tells them
bool direct = false;    // ready and not observed: one flag to test for both

// ---------------------------------------------------------------- the callable of one op
enum Kind { INPUT, SPEC, OUTPUT, ATTR };
struct Want {
  Kind kind;
  int at;
};
constexpr int MAX_ARGS = 24, MAX_OUTS = 8;

struct Site {
  PyObject_HEAD
  vectorcallfunc call;
  PyObject *op, *id, *meta, *decompose, *name;
  int inputs, attrs, visible, wants;
  int least;  // how many outputs the results and the saved values need
  int key_attrs;  // bit i: attribute i is part of the key
  bool simple, differentiable;
  Want want[MAX_ARGS];
};

struct Held {  // releases a reference at the end of a scope
  PyObject* o;
  explicit Held(PyObject* x) : o(x) {}
  ~Held() { Py_XDECREF(o); }
  Held(const Held&) = delete;
  PyObject* take() {
    PyObject* x = o;
    o = nullptr;
    return x;
  }
};

// The buffers of a call's inputs. Their tensors alone would not keep them: while a kernel has released the GIL, another
// thread may give a tensor a new value.
struct Inputs {
  PyObject** at;
  int n = 0;
  explicit Inputs(PyObject** to) : at(to) {}
  ~Inputs() {
    while (n > 0) Py_DECREF(at[--n]);
  }
  Inputs(const Inputs&) = delete;
  void add(PyObject* o) { at[n++] = Py_NewRef(o); }
};

PyObject* pack(PyObject* const* from, int n) {
  PyObject* t = PyTuple_New(n);
  for (int i = 0; t && i < n; i++) PyTuple_SET_ITEM(t, i, Py_NewRef(from[i]));
  return t;
}

PyObject* call_slow(Site* s, PyObject* const* args) {
  Held inputs(pack(args, s->inputs)), attrs(pack(args + s->inputs, s->attrs));
  if (!inputs.o || !attrs.o) return nullptr;
  PyObject* a[] = {s->op, inputs.o, attrs.o};
  return PyObject_Vectorcall(core.slow, a, 3, nullptr);
}

// A kernel raised: for what it says of its arguments, the slow path meets the same refusal and words it.
PyObject* refused(Site* s, PyObject* const* args) {
  for (PyObject* kind : {PyExc_ValueError, PyExc_TypeError, PyExc_IndexError})
    if (PyErr_ExceptionMatches(kind)) {
      PyErr_Clear();
      return call_slow(s, args);
    }
  return nullptr;
}

// Whether a lookup failed for a key that cannot be hashed; anything else that was raised stays set.
bool unhashable() {
  if (!PyErr_ExceptionMatches(PyExc_TypeError)) return false;
  PyErr_Clear();
  return true;
}

inline bool is_tensor(PyObject* o) {
  return Py_TYPE(o) == core.tensor || PyType_IsSubtype(Py_TYPE(o), core.core);
}

inline bool on_cpu(PyObject* key) {  // the device's code stands above the six bits of the dtype
  return PyLong_AsLong(key) >> 6 == 0;
}

PyObject* new_object(PyTypeObject* t) { return t->tp_alloc(t, 0); }

PyObject* wrap(PyObject* array, PyObject* key, PyObject* node, PyObject* index) {  // borrows all
  PyObject* t = new_object(core.tensor);
  if (!t) return nullptr;
  put(t, core.a, Py_NewRef(array)), put(t, core.key, Py_NewRef(key));
  put(t, core.tape, Py_NewRef(node)), put(t, core.index, Py_NewRef(index));
  return t;
}

PyObject* shape_of(PyObject* array) {
  const int n = (int)ndim(array);
  PyObject* t = PyTuple_New(n);
  for (int i = 0; t && i < n; i++) {
    PyObject* d = PyLong_FromSsize_t(dims(array)[i]);
    if (!d) {
      Py_DECREF(t);
      return nullptr;
    }
    PyTuple_SET_ITEM(t, i, d);
  }
  return t;
}

// ---------------------------------------------------------------- outputs
// The shapes of the arrays and the attributes, which is all that a meta function may look at besides dtypes. The types
// of the attributes too: 1, 1.0 and True are equal, but are not all taken for an axis. nullptr without an exception
// for what is too large to be remembered.
PyObject* meta_key(Site* s, PyObject* const* raw, PyObject* const* attrs) {
  constexpr int ROOM = MAX_ARGS * 10;
  i64 shape[ROOM + MAX_ARGS];
  int n = 0;
  for (int i = 0; i < s->inputs; i++) {
    PyObject* o = raw[i];
    if (!is_array(o)) {
      shape[n++] = -1;
      continue;
    }
    if (ndim(o) > 8) return nullptr;
    shape[n++] = ndim(o);
    for (int d = 0; d < ndim(o); d++) shape[n++] = dims(o)[d];
  }
  for (int i = 0; i < s->attrs; i++) {
    PyObject* a = attrs[i];
    shape[n++] = (i64)Py_TYPE(a);
    if (!PyTuple_CheckExact(a)) continue;
    if (n + PyTuple_GET_SIZE(a) > ROOM) return nullptr;
    for (Py_ssize_t k = 0; k < PyTuple_GET_SIZE(a); k++) shape[n++] = (i64)Py_TYPE(PyTuple_GET_ITEM(a, k));
  }
  PyObject* bytes = PyBytes_FromStringAndSize((const char*)shape, n * (Py_ssize_t)sizeof(i64));
  if (!bytes || s->attrs == 0) return bytes;
  PyObject* key = PyTuple_New(1 + s->attrs);
  if (!key) {
    Py_DECREF(bytes);
    return nullptr;
  }
  PyTuple_SET_ITEM(key, 0, bytes);
  for (int i = 0; i < s->attrs; i++) PyTuple_SET_ITEM(key, 1 + i, Py_NewRef(attrs[i]));
  return key;
}

// A Spec as what new_array() takes, (shape, NumPy dtype); one with a memory order of its own stays a Spec.
PyObject* prepared(PyObject* spec) {
  Held order(PyObject_GetAttrString(spec, "order"));
  if (!order.o) return nullptr;
  if (order.o != Py_None) return Py_NewRef(spec);
  Held shape(PyObject_GetAttrString(spec, "shape")), dtype(PyObject_GetAttrString(spec, "dtype"));
  Held descr(dtype.o ? PyObject_GetAttrString(dtype.o, "numpy") : nullptr);
  if (!shape.o || !descr.o) return nullptr;
  if (!PyTuple_CheckExact(shape.o) || PyTuple_GET_SIZE(shape.o) > NPY_MAXDIMS || !PyArray_DescrCheck(descr.o))
    return Py_NewRef(spec);
  return PyTuple_Pack(2, shape.o, descr.o);
}

PyObject* allocate(PyObject* prepared) {
  if (!PyTuple_CheckExact(prepared)) return PyObject_CallOneArg(core.empty_array, prepared);
  PyObject* shape = PyTuple_GET_ITEM(prepared, 0);
  const int nd = (int)PyTuple_GET_SIZE(shape);
  npy_intp extent[NPY_MAXDIMS];
  for (int i = 0; i < nd; i++) {
    extent[i] = PyLong_AsSsize_t(PyTuple_GET_ITEM(shape, i));
    if (extent[i] == -1 && PyErr_Occurred()) return nullptr;
  }
  return new_array(nd, extent, (PyArray_Descr*)PyTuple_GET_ITEM(prepared, 1));
}

// The outputs, prepared: from the entry's memory of earlier shapes, else from meta. New reference to a tuple.
PyObject* output_specs(Site* s, PyObject* entry, PyObject* const* args, PyObject* const* raw) {
  PyObject* memory = at(entry, core.specs);
  Held key(meta_key(s, raw, args + s->inputs));
  if (!key.o && PyErr_Occurred()) return nullptr;
  PyObject* known = key.o ? PyDict_GetItemWithError(memory, key.o) : nullptr;
  if (known) return Py_NewRef(known);
  bool hashable = key.o != nullptr;
  if (PyErr_Occurred()) {  // an attribute that cannot be hashed: nothing to remember
    if (!unhashable()) return nullptr;
    hashable = false;
  }
  Held found(PyObject_Vectorcall(s->meta, args, s->inputs + s->attrs, nullptr));
  if (!found.o) return nullptr;
  const bool many = PyTuple_Check(found.o);
  const Py_ssize_t count = many ? PyTuple_GET_SIZE(found.o) : 1;
  Held specs(PyTuple_New(count));
  for (Py_ssize_t i = 0; specs.o && i < count; i++) {
    PyObject* one = prepared(many ? PyTuple_GET_ITEM(found.o, i) : found.o);
    if (!one) return nullptr;
    PyTuple_SET_ITEM(specs.o, i, one);
  }
  if (!specs.o) return nullptr;
  if (hashable) {
    if (PyDict_GET_SIZE(memory) >= 256) PyDict_Clear(memory);
    if (PyDict_SetItem(memory, key.o, specs.o) < 0) return nullptr;
  }
  return specs.take();
}

// ---------------------------------------------------------------- graph node
PyObject* make_node(Site* s, PyObject* const* args, PyObject* const* raw, PyObject* const* outs, PyObject* out_keys) {
  Held edges(PyTuple_New(s->inputs)), saved(PyTuple_New(s->wants)), keys(PyTuple_New(s->wants));
  Held attrs(pack(args + s->inputs, s->attrs)), seq(PyIter_Next(core.sequence));
  if (!edges.o || !saved.o || !keys.o || !attrs.o || !seq.o) return nullptr;
  for (int i = 0; i < s->inputs; i++) {
    PyObject *a = args[i], *edge = nullptr;
    if (is_tensor(a) && at(a, core.tape) != Py_None) {
      edge = PyTuple_New(2);
      if (!edge) return nullptr;
      PyTuple_SET_ITEM(edge, 0, Py_NewRef(at(a, core.tape))), PyTuple_SET_ITEM(edge, 1, Py_NewRef(at(a, core.index)));
    } else {
      edge = Py_NewRef(Py_None);
    }
    PyTuple_SET_ITEM(edges.o, i, edge);
  }
  for (int w = 0; w < s->wants; w++) {
    const Want& want = s->want[w];
    PyObject *value = nullptr, *key = Py_None;
    PyObject* a = want.kind == INPUT || want.kind == SPEC ? args[want.at] : nullptr;
    if (want.kind == OUTPUT) {
      value = Py_NewRef(outs[want.at]), key = PyTuple_GET_ITEM(out_keys, want.at);
    } else if (want.kind == ATTR) {
      value = Py_NewRef(args[s->inputs + want.at]);
    } else if (!is_tensor(a)) {
      value = Py_NewRef(a);
    } else if (want.kind == INPUT) {
      value = Py_NewRef(raw[want.at]), key = at(a, core.key);
    } else {
      Held shape(shape_of(raw[want.at]));
      if (!shape.o) return nullptr;
      value = core.spec_of->tp_alloc(core.spec_of, 2);
      if (!value) return nullptr;
#if PY_VERSION_HEX >= 0x030E0000
      ((PyTupleObject*)value)->ob_hash = -1;  // not computed yet
#endif
      PyTuple_SET_ITEM(value, 0, shape.take()), PyTuple_SET_ITEM(value, 1, Py_NewRef(at(a, core.key)));
    }
    if (!value) return nullptr;
    PyTuple_SET_ITEM(saved.o, w, value), PyTuple_SET_ITEM(keys.o, w, Py_NewRef(key));
  }
  PyObject* n = new_object(core.node);
  if (!n) return nullptr;
  put(n, core.op, Py_NewRef(s->op)), put(n, core.edges, edges.take()), put(n, core.saved, saved.take());
  put(n, core.keys, keys.take()), put(n, core.attrs, attrs.take()), put(n, core.seq, seq.take());
  put(n, core.outs, s->visible == 1 ? Py_NewRef(core.one) : PyLong_FromLong(s->visible));
  return n;
}

// ---------------------------------------------------------------- the call
PyObject* context_value(PyObject* variable) {
  PyObject* v = nullptr;
  if (PyContextVar_Get(variable, nullptr, &v) < 0) return nullptr;
  return v;  // both variables have defaults
}

PyObject* site_call(PyObject* self, PyObject* const* args, size_t nargsf, PyObject* names) {
  Site* s = (Site*)self;
  const int count = (int)PyVectorcall_NARGS(nargsf), n = s->inputs;
  if (names || count != n + s->attrs) {
    PyErr_Format(PyExc_TypeError, "%U: expected %d arguments, received %d", s->name, n + s->attrs, count);
    return nullptr;
  }
  if (!s->simple || !direct) return call_slow(s, args);
  PyObject* stack[MAX_ARGS + MAX_OUTS];  // inputs as buffers, attributes, outputs
  bool recording = false;
  Inputs held(stack);
  Held key(PyTuple_New(1 + n + __builtin_popcount((unsigned)s->key_attrs)));
  if (!key.o) return nullptr;
  PyTuple_SET_ITEM(key.o, 0, Py_NewRef(s->id));
  for (int i = 0; i < n; i++) {
    PyObject *a = args[i], *buffer = a, *k;
    if (is_tensor(a)) {
      PyObject* tape = at(a, core.tape);
      k = at(a, core.key), buffer = at(a, core.a);
      // devices other than the CPU allocate for themselves
      if (!k || !buffer || !tape || !at(a, core.index) || !is_array(buffer) || !on_cpu(k)) return call_slow(s, args);
      if (tape != Py_None) recording = true;
    } else if (a == Py_None) {
      k = core.key_none;
    } else if (Py_TYPE(a) == &PyFloat_Type) {
      k = core.key_float;
    } else if (Py_TYPE(a) == &PyLong_Type) {
      k = core.key_int;
    } else if (Py_TYPE(a) == &PyBool_Type) {
      k = core.key_bool;
    } else {
      return call_slow(s, args);
    }
    held.add(buffer);
    PyTuple_SET_ITEM(key.o, 1 + i, Py_NewRef(k));
  }
  for (int i = 0, k = 1 + n; i < s->attrs; i++) {
    stack[n + i] = args[n + i];
    if (s->key_attrs >> i & 1) PyTuple_SET_ITEM(key.o, k++, Py_NewRef(args[n + i]));
  }
  Held policy(context_value(core.policy));
  if (!policy.o) return nullptr;
  PyObject* first = PyDict_GetItemWithError(at(policy.o, core.table), key.o);
  if (!first) {
    if (PyErr_Occurred() && !unhashable()) return nullptr;  // the slow path says that it cannot be part of a key
    return call_slow(s, args);
  }
  Held entry(Py_NewRef(first));
  while (at(entry.o, core.guard) != Py_None) {
    Held yes(PyObject_Vectorcall(at(entry.o, core.guard), stack, n + s->attrs, nullptr));
    const int pass = yes.o ? PyObject_IsTrue(yes.o) : -1;
    if (pass < 0) return nullptr;
    if (pass) break;
    PyObject* next = at(entry.o, core.next);
    if (next == Py_None) return call_slow(s, args);
    Held old(entry.take());
    entry.o = Py_NewRef(next);
  }
  PyObject* fn = at(entry.o, core.fn);
  if (fn == Py_None) return PyObject_Vectorcall(s->decompose, args, n + s->attrs, nullptr);

  PyObject* out_keys = at(entry.o, core.out_keys);
  const int produced = (int)PyTuple_GET_SIZE(out_keys);
  if (produced < s->least) return call_slow(s, args);  // a meta that gives fewer outputs than the schema
  Held outs(nullptr);
  PyObject* const* out = nullptr;
  if (at(entry.o, core.allocates) == Py_True) {
    outs.o = PyObject_Vectorcall(fn, stack, n + s->attrs, nullptr);
    if (!outs.o) return refused(s, args);
    if (PyTuple_Check(outs.o)) {
      if (PyTuple_GET_SIZE(outs.o) != produced) return call_slow(s, args);
      out = &PyTuple_GET_ITEM(outs.o, 0);
    } else if (produced != 1) {
      return call_slow(s, args);
    } else {
      out = &outs.o;
    }
  } else {
    Held specs(output_specs(s, entry.o, args, stack));
    if (!specs.o) return nullptr;
    if (PyTuple_GET_SIZE(specs.o) != produced || produced > MAX_OUTS) return call_slow(s, args);
    outs.o = PyTuple_New(produced);
    if (!outs.o) return nullptr;
    for (int i = 0; i < produced; i++) {
      PyObject* array = allocate(PyTuple_GET_ITEM(specs.o, i));
      if (!array) return nullptr;
      PyTuple_SET_ITEM(outs.o, i, array);
      stack[n + s->attrs + i] = array;
    }
    Held done(PyObject_Vectorcall(fn, stack, n + s->attrs + produced, nullptr));
    if (!done.o) return refused(s, args);
    out = &PyTuple_GET_ITEM(outs.o, 0);
  }

  Held node(nullptr);
  if (recording && s->differentiable) {
    Held enabled(context_value(core.grad));
    if (!enabled.o) return nullptr;
    const int on = PyObject_IsTrue(enabled.o);
    if (on < 0 || (on && !(node.o = make_node(s, args, stack, out, out_keys)))) return nullptr;
  }
  PyObject* tape = node.o ? node.o : Py_None;
  if (s->visible == 1) return wrap(out[0], PyTuple_GET_ITEM(out_keys, 0), tape, core.zero);
  Held results(PyTuple_New(s->visible));
  for (int i = 0; results.o && i < s->visible; i++) {
    Held index(PyLong_FromLong(i));
    PyObject* t = index.o ? wrap(out[i], PyTuple_GET_ITEM(out_keys, i), tape, index.o) : nullptr;
    if (!t) return nullptr;
    PyTuple_SET_ITEM(results.o, i, t);
  }
  return results.take();
}

// ---------------------------------------------------------------- backward
// restore(node, n) -> list of the n values that its vjp asks for, saved buffers as constants; None when Python has
// to look closer (lists of tensors, a buffer that was overwritten since).
PyObject* restore(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!arity("restore", count, 2, 2)) return nullptr;
  PyObject* node = args[0];
  if (!ready || Py_TYPE(node) != core.node) Py_RETURN_NONE;
  PyObject *saved = at(node, core.saved), *keys = at(node, core.keys);
  if (!saved || !keys || !PyTuple_CheckExact(saved) || !PyTuple_CheckExact(keys)) Py_RETURN_NONE;
  const uint64_t age = PyLong_AsUnsignedLongLong(at(node, core.seq));
  const Py_ssize_t n = (Py_ssize_t)as_int(args[1]);
  if (PyErr_Occurred()) return nullptr;
  if (n < 0 || n > PyTuple_GET_SIZE(saved) || n > PyTuple_GET_SIZE(keys)) Py_RETURN_NONE;
  Held values(PyList_New(n));
  for (Py_ssize_t i = 0; values.o && i < n; i++) {
    PyObject *raw = PyTuple_GET_ITEM(saved, i), *key = PyTuple_GET_ITEM(keys, i), *value;
    if (key == Py_None) {
      value = Py_NewRef(raw);
    } else {
      uint64_t stamp = 0;
      if (!is_array(raw) || (!stamp_of(raw, &stamp) && PyDict_GET_SIZE(core.foreign) > 0) || stamp > age)
        Py_RETURN_NONE;
      value = wrap(raw, key, Py_None, core.zero);
    }
    if (!value) return nullptr;
    PyList_SET_ITEM(values.o, i, value);
  }
  return values.take();
}

// an op holds its site and the site its op: the collector takes both when a plugin's op is gone
int site_traverse(PyObject* self, visitproc visit, void* arg) {
  Site* s = (Site*)self;
  for (PyObject* o : {s->op, s->id, s->meta, s->decompose, s->name}) Py_VISIT(o);
  return 0;
}

void site_dealloc(PyObject* self) {
  Site* s = (Site*)self;
  PyObject_GC_UnTrack(self);
  for (PyObject* o : {s->op, s->id, s->meta, s->decompose, s->name}) Py_XDECREF(o);
  PyObject_GC_Del(self);
}

PyTypeObject SiteType = {PyVarObject_HEAD_INIT(nullptr, 0)};

// call_site(op, op.id, op.name, op.meta, op.decompose, inputs, attrs, key_attrs, visible, simple, differentiable, wants)
// wants: pairs (kind number, position). With `simple` false every call goes to the slow path.
PyObject* call_site(PyObject*, PyObject* const* a, Py_ssize_t n) {
  if (!arity("call_site", n, 12, 12)) return nullptr;
  const Py_ssize_t wants = PyTuple_GET_SIZE(a[11]), inputs = as_int(a[5]), attrs = as_int(a[6]);
  Site* s = PyObject_GC_New(Site, &SiteType);
  if (!s) return nullptr;
  s->call = site_call;
  s->op = Py_NewRef(a[0]), s->id = Py_NewRef(a[1]), s->name = Py_NewRef(a[2]), s->meta = Py_NewRef(a[3]);
  s->decompose = Py_NewRef(a[4]);
  s->inputs = (int)inputs, s->attrs = (int)attrs, s->key_attrs = (int)as_int(a[7]), s->visible = (int)as_int(a[8]);
  s->simple = as_bool(a[9]) && inputs + attrs <= MAX_ARGS && wants <= MAX_ARGS;
  s->differentiable = as_bool(a[10]), s->wants = s->simple ? (int)wants : 0;
  s->least = s->visible;
  for (int i = 0; i < s->wants; i++) {
    PyObject* pair = PyTuple_GET_ITEM(a[11], i);
    s->want[i] = Want{(Kind)as_int(PyTuple_GET_ITEM(pair, 0)), (int)as_int(PyTuple_GET_ITEM(pair, 1))};
    if (s->want[i].kind == OUTPUT) s->least = std::max(s->least, s->want[i].at + 1);
  }
  if (PyErr_Occurred()) {
    Py_DECREF(s);
    return nullptr;
  }
  PyObject_GC_Track(s);
  return (PyObject*)s;
}

// call_setup(TensorCore, Tensor, Node, Policy, Entry, policy variable, grad variable, counter, slow, empty_array,
//            (key_none, key_bool, key_int, key_float), type of saved specs, stamps of foreign memory)
PyObject* call_setup(PyObject*, PyObject* const* a, Py_ssize_t n) {
  if (!arity("call_setup", n, 13, 13)) return nullptr;
  Core& c = core;
  PyObject *tensor = a[0], *node = a[2], *policy = a[3], *entry = a[4];
  if (!(find_slot(tensor, "_a", &c.a) && find_slot(tensor, "_key", &c.key) && find_slot(tensor, "_node", &c.tape) &&
        find_slot(tensor, "_index", &c.index) && find_slot(node, "op", &c.op) && find_slot(node, "edges", &c.edges) &&
        find_slot(node, "saved", &c.saved) && find_slot(node, "keys", &c.keys) && find_slot(node, "attrs", &c.attrs) &&
        find_slot(node, "seq", &c.seq) && find_slot(node, "n_out", &c.outs) && find_slot(policy, "table", &c.table) &&
        find_slot(entry, "fn", &c.fn) && find_slot(entry, "guard", &c.guard) && find_slot(entry, "next", &c.next) &&
        find_slot(entry, "out_keys", &c.out_keys) && find_slot(entry, "allocates", &c.allocates) &&
        find_slot(entry, "specs", &c.specs)))
    return nullptr;
  for (Py_ssize_t i = 0; i < n; i++) Py_INCREF(a[i]);  // for the life of the process
  c.core = (PyTypeObject*)a[0], c.tensor = (PyTypeObject*)a[1], c.node = (PyTypeObject*)a[2];
  c.policy = a[5], c.grad = a[6], c.sequence = a[7], c.slow = a[8], c.empty_array = a[9];
  PyObject** keys[] = {&c.key_none, &c.key_bool, &c.key_int, &c.key_float};
  for (int i = 0; i < 4; i++) *keys[i] = PyTuple_GET_ITEM(a[10], i);
  c.spec_of = (PyTypeObject*)a[11], c.foreign = a[12];
  c.zero = PyLong_FromLong(0), c.one = PyLong_FromLong(1);
  ready = true, direct = !observed;
  Py_RETURN_NONE;
}

// set_observed(bool): whether calls go to Python's `dispatch.call`, which publishes them.
PyObject* set_observed(PyObject*, PyObject* const* a, Py_ssize_t n) {
  if (!arity("set_observed", n, 1, 1)) return nullptr;
  const bool on = as_bool(a[0]);
  if (PyErr_Occurred()) return nullptr;
  observed = on, direct = ready && !on;
  Py_RETURN_NONE;
}
}  // namespace

bool call_ready() {
  SiteType.tp_name = "spiral.Site";
  SiteType.tp_doc = "The callable of one op: inputs, then attributes, by position";
  SiteType.tp_basicsize = sizeof(Site);
  SiteType.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_HAVE_GC;
  SiteType.tp_vectorcall_offset = offsetof(Site, call);
  SiteType.tp_call = PyVectorcall_Call;
  SiteType.tp_dealloc = site_dealloc;
  SiteType.tp_traverse = site_traverse;
  return PyType_Ready(&SiteType) == 0;
}

PyMethodDef call_methods[] = {
    {"call_site", (PyCFunction)(void*)call_site, METH_FASTCALL, "call_site(op, ...): the callable of an op"},
    {"restore", (PyCFunction)(void*)restore, METH_FASTCALL, "restore(node, n): the values its vjp asks for, or None"},
    {"call_setup", (PyCFunction)(void*)call_setup, METH_FASTCALL, "call_setup(types, variables, functions, keys)"},
    {"set_observed", (PyCFunction)(void*)set_observed, METH_FASTCALL, "set_observed(on): every call goes to Python"},
    {nullptr, nullptr, 0, nullptr}};
}  // namespace spiral
