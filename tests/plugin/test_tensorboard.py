"""TensorBoard event files: right to the bit, whole after a crash, one line after a resume."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from recorded_run import Fails, killed, loaded, require_same_weights, tiny_config, trained, warnings_of

from spiral.errors import ArgumentError, SaveError
from spiral.plugins.tensorboard import TensorBoard, field, framed, masked_crc, varint


@pytest.mark.parametrize(
    ("data", "crc"),
    [  # CRC-32C of RFC 3720, B.4, before masking
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"123456789", 0xE3069283),
    ],
)
def test_checksums_are_those_of_the_standard(data, crc):
    assert masked_crc(data) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_a_record_has_the_bytes_that_tensorflow_writes():
    # the first record of every file of TensorFlow 2: Event(file_version="brain.Event:2") with a time of 0.5
    data = field(1, 0.5, double=True) + field(3, "brain.Event:2")
    assert data.hex() == "09000000000000e03f1a0d" + b"brain.Event:2".hex()
    assert framed(data)[:12].hex() == "1800000000000000" + "a37f4b22"
    assert len(framed(data)) == 8 + 4 + 24 + 4


def test_integers_and_floats_are_those_of_the_wire_format():
    assert [varint(n).hex() for n in (0, 1, 127, 128, 300, 2**63 - 1)] == [
        "00", "01", "7f", "8001", "ac02", "ffffffffffffffff7f",
    ]  # fmt: skip
    assert field(2, 1.5).hex() == "15" + struct.pack("<f", 1.5).hex()
    assert field(2, 1e300).hex() == "15" + struct.pack("<f", float("inf")).hex()


# ---------------------------------------------------------------- an independent reader
def records(path: Path) -> Iterator[bytes]:
    data, at = path.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        assert struct.unpack_from("<I", data, at + 8)[0] == masked_crc(data[at : at + 8])
        body = data[at + 12 : at + 12 + length]
        assert struct.unpack_from("<I", data, at + 12 + length)[0] == masked_crc(body)
        yield body
        at += 16 + length


def fields(data: bytes) -> Iterator[tuple[int, object]]:
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte, at = data[at], at + 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = number()
        kind = key & 7
        if kind == 0:
            yield key >> 3, number()
        elif kind == 2:
            size = number()
            yield key >> 3, data[at : at + size]
            at += size
        else:
            size, form = (8, "<d") if kind == 1 else (4, "<f")
            yield key >> 3, struct.unpack_from(form, data, at)[0]
            at += size


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """By tag and step, with what a later start has voided left out."""
    found: dict[str, dict[int, float]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for body in records(path):
            event = dict(fields(body))
            step = event.get(2, 0)
            if 7 in event:
                for values in found.values():
                    for later in [s for s in values if s >= step]:
                        del values[later]
            for n, value in fields(event.get(5, b"")):
                parts = dict(fields(value))
                if n == 1 and 2 in parts:
                    found.setdefault(parts[1].decode(), {})[step] = parts[2]
    return found


def recorded(config) -> dict[int, float]:
    """The losses in the run's own record, in single precision."""
    metrics = trained(config, resume=True).trainer.metrics
    return {e["step"]: struct.unpack("<f", struct.pack("<f", e["loss"]))[0] for e in metrics.read() if "lr" in e}


def accumulator(folder: Path):
    """TensorBoard's own reader."""
    module = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    return module.EventAccumulator(str(folder)).Reload()


def test_every_step_and_evaluation_is_in_the_file(tmp_path):
    config = tiny_config(tmp_path, run={"eval_every": 4})
    trained(config, callbacks=(TensorBoard(),))
    found = scalars(tmp_path / "run" / "tensorboard")
    assert found["loss/training"] == recorded(config)
    assert list(found["bits_per_byte"]) == [4, 8, 12]
    assert set(found) == {
        "loss/training", "loss/held_out", "bits_per_byte", "step/learning_rate", "step/gradient_norm",
        "step/tokens_per_second", "step/skipped",
    }  # fmt: skip


def test_tensorboard_itself_reads_the_file(tmp_path):
    config = tiny_config(tmp_path, run={"eval_every": 4})
    trained(config, callbacks=(TensorBoard(),))
    reader = accumulator(tmp_path / "run" / "tensorboard")
    assert {e.step: e.value for e in reader.Scalars("loss/training")} == recorded(config)
    assert reader.file_version == 2.0
    (text,) = reader.Tensors("configuration")
    assert b'"context_length": 16' in text.tensor_proto.string_val[0]


@pytest.mark.parametrize("by", ["error", "kill"])
def test_a_resumed_run_is_one_line(tmp_path, by):
    config = tiny_config(tmp_path)
    if by == "error":
        with pytest.raises(RuntimeError):
            trained(config, callbacks=(TensorBoard(), Fails(8)))
    else:
        killed(config, 8, TensorBoard())
    folder = tmp_path / "run" / "tensorboard"
    assert list(scalars(folder)["loss/training"]) == list(range(1, 9)), "a killed run keeps its record"
    trained(config, resume=True, callbacks=(TensorBoard(),))
    assert len(list(folder.iterdir())) == 2
    assert scalars(folder)["loss/training"] == recorded(config)
    reader = accumulator(folder)
    assert [e.step for e in reader.Scalars("loss/training")] == list(range(1, 13))


def test_weights_are_the_same_bits(tmp_path):
    require_same_weights(tmp_path, TensorBoard)


def test_a_folder_that_cannot_be_used_is_an_error_at_the_start(tmp_path):
    config = tiny_config(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="tensorboard: .*file/x: cannot be written: Not a directory"):
        trained(config, callbacks=(TensorBoard(folder=str(tmp_path / "file" / "x")),))


class FullDisk:
    """A file whose disk has room for a part of the fourth write, and for all later ones."""

    def __init__(self, file):
        self.file, self.writes = file, 0

    def write(self, data):
        self.writes += 1
        return self.file.write(data[: len(data) // 2] if self.writes in (4, 5) else data)

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_a_full_disk_costs_steps_of_the_record_and_nothing_else(tmp_path, caplog):
    class Full(TensorBoard):
        def on_start(self, trainer):
            super().on_start(trainer)
            self.file = FullDisk(self.file)

    config = tiny_config(tmp_path)
    trained(config, callbacks=(Full(),))
    assert list(scalars(tmp_path / "run" / "tensorboard")["loss/training"]) == [1, 2, 3, *range(6, 13)]
    (warning,) = warnings_of(caplog, "tensorboard")
    assert "No space left" in warning


@pytest.mark.parametrize("every", [0, -1, True, 1.5, "2"])
def test_every_must_be_a_positive_integer(every):
    with pytest.raises(ArgumentError, match="tensorboard: every must be a positive integer; received"):
        TensorBoard(every=every)


def test_every_third_step(tmp_path):
    with loaded("tensorboard") as make:
        trained(tiny_config(tmp_path), callbacks=(make(every=3, folder=str(tmp_path / "elsewhere")),))
    assert list(scalars(tmp_path / "elsewhere")["loss/training"]) == [3, 6, 9, 12]
