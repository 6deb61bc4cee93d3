"""Random numbers: Philox's published vectors, one definition for tiles, threads and backends, states."""

import math

import numpy as np
import pytest

import spiral as sp
from spiral import nn, philox
from spiral.errors import ArgumentError
from spiral.storage import native

# Random123's kat_vectors for philox4x32-10: counter, key, result
KNOWN = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.fixture
def threads():
    before = sp.get_num_threads()
    yield
    sp.set_num_threads(before)


@pytest.mark.parametrize("counter, key, expected", KNOWN)
def test_philox_gives_the_published_numbers(counter, key, expected):
    words = philox.block([np.array([c], np.uint64) for c in counter], tuple(key))
    assert [int(w[0]) for w in words] == expected


def test_element_i_takes_lane_i_mod_4_of_block_i_div_4_whatever_the_piece():
    whole = philox.random_bits(7, 3, 0, 1001)
    for start, n in ((0, 1), (1, 1), (3, 2), (5, 996), (998, 3), (1000, 1), (1001, 0)):
        assert philox.random_bits(7, 3, start, n).tolist() == whole[start : start + n].tolist()
    for start, n in ((0, 7), (1, 7), (6, 1), (13, 501)):
        pieces = philox.normal(7, 3, start, n, 1.0, 2.0)
        assert pieces.tolist() == philox.normal(7, 3, 0, 1001, 1.0, 2.0)[start : start + n].tolist()


def test_elements_beyond_32_bits_of_blocks_and_streams_are_distinct():
    last = philox.random_bits(1, 0, 4 * 2**32 - 2, 4)
    assert last.tolist()[2:] != philox.random_bits(1, 0, 0, 2).tolist()
    assert philox.random_bits(1, 2**32, 0, 4).tolist() != philox.random_bits(1, 0, 0, 4).tolist()
    assert philox.random_bits(2**32, 0, 0, 4).tolist() != philox.random_bits(0, 0, 0, 4).tolist()


@pytest.mark.skipif(native is None, reason="the C++ extension was not built")
@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_the_extensions_bits_uniform_numbers_and_integers_are_numpys(n_threads, threads):
    sp.set_num_threads(n_threads)
    seed, stream, start, n = 2**63 + 5, 2**33 + 1, 3, 100_001
    bits = np.empty(n, np.uint32)
    native.random_bits(seed, stream, start, bits)
    assert np.array_equal(bits, philox.random_bits(seed, stream, start, n))
    for low, high in ((-1.5, 2.5), (0.1, 0.7), (-1e-3, 3e7), (1.0, 1.0000001), (0.25, 0.25)):
        uniform = np.empty(n, np.float32)
        native.random_uniform(seed, stream, start, low, high, uniform)
        assert np.array_equal(uniform, philox.uniform(seed, stream, start, n, low, high)), (low, high)
    integers = np.empty(n, np.int64)
    native.random_integers(seed, stream, start, -7, 1000, integers)
    assert np.array_equal(integers, philox.integers(seed, stream, start, n, -7, 1000))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.999])
def test_dropout_masks_are_bit_equal_for_all_shapes_layouts_threads_dtypes_and_backends(p, threads):
    n = 3 * 5 * 7 * 97

    def mask(x):
        sp.random.manual_seed(11)
        return nn.functional.dropout(x, p).astype(sp.float32).numpy().reshape(-1) != 0.0

    expected = philox.kept(11, 0, n, p)
    for shape in ((n,), (n, 1), (3, -1), (15, 7, 97), (1, n)):
        assert np.array_equal(mask(sp.ones(n).reshape(*shape)), expected)
    assert np.array_equal(mask(sp.ones((97, n // 97)).T), expected)
    assert np.array_equal(mask(sp.broadcast_to(sp.ones(1), (n,))), expected)
    for n_threads in (1, 2, 3):
        sp.set_num_threads(n_threads)
        assert np.array_equal(mask(sp.ones(n)), expected)
    for dtype in (sp.float64, sp.float16, sp.bfloat16):
        assert np.array_equal(mask(sp.ones(n, dtype=dtype)), expected)
    for backend in sp.backends():
        with sp.prefer(backend):
            assert np.array_equal(mask(sp.ones(n)), expected)


@pytest.mark.skipif(native is None, reason="the C++ extension was not built")
def test_the_extensions_normal_numbers_are_numpys_but_for_the_last_bit():
    numbers = np.empty(100_001, np.float32)
    native.random_normal(2**40 + 3, 9, 5, 0.5, 2.0, numbers)
    expected = philox.normal(2**40 + 3, 9, 5, 100_001, 0.5, 2.0)
    differ = numbers != expected
    assert differ.mean() < 1e-4
    np.testing.assert_allclose(numbers, expected, rtol=2e-7, atol=1e-9)


@pytest.mark.skipif(native is None, reason="the C++ extension was not built")
def test_dropout_keeps_what_philox_h_says_where_p_is_a_word_and_a_half():
    n, words = 35, philox.random_bits(3, 5, 0, 35)
    ones, y = np.ones(n, np.float32), np.empty(n, np.float32)
    for i in (0, 17, 34):
        for part, survives in ((0.0, True), (0.25, True), (0.5, False), (0.75, False)):
            p = (int(words[i]) + part) * 2.0**-32
            native.dropout(ones, p, 3, 5, y)
            assert (y != 0).tolist() == philox.kept(3, 5, n, p).tolist()
            assert bool(y[i]) is survives
    for p in (0.0, 2.0**-33, 2.0**-34, 1.0 - 2.0**-33, 1.0 - 2.0**-32, np.nextafter(1.0, 0.0)):
        native.dropout(ones, float(p), 3, 5, y)
        assert (y != 0).tolist() == philox.kept(3, 5, n, p).tolist()


@pytest.mark.skipif(native is None, reason="the C++ extension was not built")
def test_first_weights_are_the_same_on_every_backend():
    def weights():
        sp.random.manual_seed(4)
        model = nn.Sequential(nn.Linear(5, 4), nn.Embedding(3, 4), nn.Conv2d(2, 3, 3), nn.LSTM(3, 2))
        nn.init.trunc_normal_(model[0].weight)
        nn.init.orthogonal_(model[1].weight)
        return [p.tolist() for p in model.parameters()]

    with sp.prefer("numpy"):
        slow = weights()
    assert weights() == slow


def test_the_state_restores_the_stream_and_seeds_are_checked():
    sp.random.manual_seed(np.int64(9))
    sp.random.normal(3)
    state = sp.random.get_state()
    first = [sp.random.uniform((2, 2)).tolist(), sp.random.permutation(9).tolist()]
    sp.random.set_state(state)
    assert [sp.random.uniform((2, 2)).tolist(), sp.random.permutation(9).tolist()] == first
    sp.random.manual_seed(2**64 - 1)
    for bad in (-1, 2**64, 1.0, "7"):
        with pytest.raises(ArgumentError, match="manual_seed: expected an integer"):
            sp.random.manual_seed(bad)


def test_moments_ranges_and_permutations():
    sp.random.manual_seed(0)
    u = sp.random.uniform((100_000,), low=-2.0, high=3.0).numpy()
    assert u.min() >= -2.0 and u.max() < 3.0 and abs(u.mean() - 0.5) < 0.02
    z = sp.random.normal((100_001,), mean=1.0, std=2.0).numpy()
    assert abs(z.mean() - 1.0) < 0.03 and abs(z.std() - 2.0) < 0.02 and np.isfinite(z).all()
    k = sp.random.integers(-3, 4, (70_000,)).numpy()
    counts = np.bincount(k + 3, minlength=7)
    assert len(counts) == 7 and np.abs(counts - 10_000).max() < 6 * math.sqrt(10_000)
    assert sorted(sp.random.permutation(50).tolist()) == list(range(50))
    assert sp.random.uniform((), dtype=sp.float64).shape == () and sp.random.normal(0).shape == (0,)
    with pytest.raises(ArgumentError, match="integers: expected 0 < high - low"):
        sp.random.integers(3, 3, (2,))
