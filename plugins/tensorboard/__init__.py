"""TensorBoard event files, written without TensorFlow: ``tensorboard --logdir RUN/tensorboard`` shows the run.

A file is a sequence of TFRecords (tensorflow/core/lib/io/record_writer.h): the length as a little-endian uint64, its
masked CRC, the data, their masked CRC. The CRC is CRC-32C (Castagnoli, RFC 3720, appendix B.4), rotated right by 15
bits plus 0xa282ead8. The data are ``Event`` messages (tensorflow/core/util/event.proto) in the protobuf wire format.
"""

from __future__ import annotations

import ctypes
import errno
import json
import logging
import os
import socket
import struct
import time
from pathlib import Path
from typing import IO

import spiral
from spiral.errors import ArgumentError, SaveError
from spiral.plugin import Plugin, PluginCapability, PluginContext, PluginMetadata
from spiral.train import Callback, Evaluation, StepRecord, Trainer

log = logging.getLogger("spiral.plugin.tensorboard")
CRC_TABLE = list(range(256))
for _ in range(8):
    CRC_TABLE = [c >> 1 ^ (0x82F63B78 if c & 1 else 0) for c in CRC_TABLE]


def masked_crc(data: bytes) -> int:
    """The checksum of a TFRecord's parts."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def framed(data: bytes) -> bytes:
    """One TFRecord."""
    size = struct.pack("<Q", len(data))
    return size + struct.pack("<I", masked_crc(size)) + data + struct.pack("<I", masked_crc(data))


def varint(value: int) -> bytes:
    """A protobuf integer: seven bits a byte, the lowest first."""
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80]) + varint(value >> 7)


def field(number: int, value: bytes | str | int | float, *, double: bool = False) -> bytes:
    """One field of a protobuf message; a message is the fields one after the other."""
    if isinstance(value, float) and double:
        return varint(number << 3 | 1) + struct.pack("<d", value)
    if isinstance(value, float):  # one beyond the range of single precision becomes infinite
        return varint(number << 3 | 5) + struct.pack("<f", ctypes.c_float(value).value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def event(fields: bytes) -> bytes:
    """The record of an Event of now: its step is field 2, file_version 3, summary 5, session_log 7."""
    return framed(field(1, time.time(), double=True) + fields)


class TensorBoard(Callback):
    """Writes loss, rates, norms, speed and evaluations for TensorBoard.

    Every start writes a file of its own, which voids what was recorded after the checkpoint that it resumes. Each step
    is one unbuffered write: a killed run keeps its record. A folder that cannot be used is an error at the start; when
    the disk is full later, a warning is logged once and training goes on.

    Args:
        folder: Where to; empty: ``tensorboard`` in the run's folder.
        every: Record every so many steps.
    """

    def __init__(self, folder: str = "", every: int = 1) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ArgumentError(f"tensorboard: every must be a positive integer; received {every!r}.")
        self.folder, self.every = folder, every
        self.file: IO[bytes] | None = None
        self.warned = False

    def on_start(self, trainer: Trainer) -> None:
        folder = Path(self.folder) if self.folder else trainer.folder / "tensorboard"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            there = [p.name.split(".")[3] for p in folder.glob("events.out.tfevents.*")]
            stamp = max(int(time.time()), *(int(t) + 1 for t in there if t.isdecimal()), 0)  # read in this order
            name = f"events.out.tfevents.{stamp:010d}.{socket.gethostname()}.{os.getpid()}"
            self.file = (folder / name).open("xb", buffering=0)
        except OSError as error:
            raise SaveError(f"tensorboard: {folder}: cannot be written: {error.strerror}.") from error
        config = "    " + json.dumps(trainer.config.to_dict(), indent=1).replace("\n", "\n    ")  # Markdown's code
        tensor = field(1, 7) + field(2, field(2, field(1, 1))) + field(8, config)  # dtype string, shape (1,)
        value = field(1, "configuration") + field(8, tensor) + field(9, field(1, field(1, "text")))
        shown = event(field(2, trainer.step) + field(5, field(1, value)))
        start = event(field(2, trainer.step + 1) + field(7, field(1, 1)))  # SessionLog.START voids later steps
        self.write(event(field(3, "brain.Event:2")) + start + shown)

    def on_step(self, trainer: Trainer, record: StepRecord) -> None:
        if record.step % self.every == 0:
            speed = record.tokens / record.seconds if record.seconds else 0.0
            self.scalars(record.step, {
                "loss/training": record.loss, "step/learning_rate": record.lr, "step/gradient_norm": record.grad_norm,
                "step/tokens_per_second": speed, "step/skipped": float(record.skipped),
            })  # fmt: skip

    def on_evaluation(self, trainer: Trainer, evaluation: Evaluation) -> None:
        self.scalars(trainer.step, {"loss/held_out": evaluation.loss, "bits_per_byte": evaluation.bits_per_byte})

    def on_close(self, trainer: Trainer) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes numbers of a step, by tag."""
        summary = b"".join(field(1, field(1, tag) + field(2, value)) for tag, value in values.items())
        self.write(event(field(2, step) + field(5, summary)))

    def write(self, data: bytes) -> None:
        """Appends records, all of them or none."""
        assert self.file is not None
        before = self.file.tell()
        try:
            if self.file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self.file.truncate(before)
            self.file.seek(before)
            if not self.warned:
                self.warned = True
                log.warning("tensorboard: %s: %s; the record lacks steps.", self.file.name, error.strerror)


class TensorBoardPlugin(Plugin):
    """Brings the callback ``tensorboard``."""

    def metadata(self) -> PluginMetadata:
        made = PluginMetadata("tensorboard", spiral.__version__).with_capability(PluginCapability.Telemetry)
        return made.with_description("event files for TensorBoard")

    def on_load(self, ctx: PluginContext) -> None:
        ctx.register_callback("tensorboard", TensorBoard)
