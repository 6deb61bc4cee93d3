"""Events are typed values; the bus brings each to those who listen, whatever the listeners do."""

from __future__ import annotations

import gc
import json
import logging
import math
import pickle
import threading
import time
import weakref
from dataclasses import FrozenInstanceError, dataclass, fields
from pathlib import Path

import numpy as np
import pytest

import spiral as sp
from spiral.errors import ArgumentError, RegistryError, SaveError
from spiral.ownership import Ledger
from spiral.plugin import events
from spiral.plugin.bus import EventBus, JsonlSink, Recorder
from spiral.plugin.events import (
    BUILT_IN,
    Custom,
    EpochEnd,
    EpochStart,
    PluginEvent,
    SystemInit,
    Telemetry,
    TensorOp,
    near_built_in,
)


@pytest.fixture
def bus():
    return EventBus()


def example(kind):
    values = {"data": {"x": 1.0}, "path": Path("a/b"), "skipped": False}
    shapes = {"input_shapes": ((2, 3),), "output_shapes": ((),)}
    return kind(**{f.name: {**values, **shapes}.get(f.name, 1) for f in fields(kind)})


# ------------------------------------------------------------ events
@pytest.mark.parametrize("kind", BUILT_IN.values(), ids=lambda kind: kind.__name__)
def test_a_built_in_event_is_frozen_named_pickles_and_goes_through_json(kind):
    event = example(kind)
    assert event.name == kind.__name__
    assert getattr(PluginEvent, kind.__name__) is kind
    assert pickle.loads(pickle.dumps(event)) == event
    written = json.loads(json.dumps(event.to_dict(), allow_nan=False))
    assert written["event"] == kind.__name__ and set(written) == {"event", *(f.name for f in fields(kind))}
    assert not hasattr(event, "__dict__")
    for field in fields(kind):
        with pytest.raises(FrozenInstanceError):
            setattr(event, field.name, 2)


def test_every_built_in_event_is_public_and_matched_in_the_form_of_the_seed():
    assert set(events.__all__) == {*BUILT_IN, "Custom", "PluginEvent"}
    match PluginEvent.EpochStart(epoch=1):
        case PluginEvent.EpochStart(epoch=epoch):
            assert epoch == 1
        case _:
            pytest.fail("no match")


def test_a_custom_event_has_its_own_name_and_carries_the_very_object(bus):
    data, heard = object(), []
    bus.subscribe("MyEvent", heard.append)
    bus.publish(PluginEvent.custom("MyEvent", data))
    assert heard[0].name == "MyEvent" and heard[0].data is data


@pytest.mark.parametrize("name", ["EpochEnd", "Custom", "PluginEvent", "*", "", " x", "x ", 3, None, "epoch_end"])
def test_a_custom_event_cannot_pass_for_another(name):
    with pytest.raises(RegistryError, match=r"^event: "):
        Custom(name)


def test_a_class_of_ones_own_cannot_take_a_built_in_name():
    with pytest.raises(RegistryError, match="'EpochEnd' is a name of spiral's own"):
        type("EpochEnd", (PluginEvent,), {})


def test_telemetry_cannot_be_changed_by_a_listener():
    numbers = {"loss": 1.0}
    event = Telemetry(numbers)
    numbers["loss"] = 2.0
    assert event.data == {"loss": 1.0}
    with pytest.raises(TypeError):
        event.data["loss"] = 3.0
    with pytest.raises(RegistryError, match="received 'x'"):
        Telemetry("x")


def test_what_json_cannot_hold_is_named_not_guessed():
    class Broken:
        def __repr__(self):
            raise OSError

    cyclic = []
    cyclic.append(cyclic)
    data = {
        "nan": math.nan, "inf": -math.inf, 3: np.int64(4), "array": np.zeros((2, 3)), "tensor": sp.ones((4,)),
        "broken": Broken(), "cyclic": cyclic, "type": int, "surrogate": "\ud800", "long": range, "set": {1},
    }  # fmt: skip
    found = json.loads(json.dumps(Custom("X", data).to_dict(), allow_nan=False))["data"]
    assert found["nan"] == "nan" and found["inf"] == "-inf" and found["3"] == 4
    assert found["array"] == "ndarray (2, 3) float64" and found["tensor"].startswith("Tensor (4,)")
    assert found["broken"] == "<Broken, whose repr raised OSError>"
    assert found["type"] == "<class 'int'>" and found["set"] == "{1}"


# ------------------------------------------------------------ names
@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("EpochEnds", "EpochEnd"), ("epochend", "EpochEnd"), ("epoch_end", "EpochEnd"), ("EPOCH-END", "EpochEnd"),
        ("EpohcEnd", "EpochEnd"), ("EpochEn", "EpochEnd"), ("EpochEnb", "EpochEnd"), ("tensorop", "TensorOp"),
        ("pochEnd", "EpochEnd"), ("StepEnd ", None), ("TensorOps", "TensorOp"),
    ],
)  # fmt: skip
def test_a_misspelt_built_in_name_is_an_error_that_names_the_right_one(bus, wrong, right):
    with pytest.raises(RegistryError, match=repr(right) if right else "blanks"):
        bus.subscribe(wrong, print)
    assert bus.subscriptions() == []


@pytest.mark.parametrize("name", ["MyEvent", "StepStart", "ModelRegistered", "Epoch", "Tick", "TrainingStopped"])
def test_other_names_are_taken_for_custom_events(bus, name):
    assert near_built_in(name) is None
    assert bus.subscribe(name, print).name == name


@pytest.mark.parametrize("wrong", [None, 3, PluginEvent, int, EpochEnd(1, 0.5), ["EpochEnd"]])
def test_what_is_no_kind_of_event_cannot_be_subscribed_to_nor_asked_for(bus, wrong):
    for ask in (lambda: bus.subscribe(wrong, print), lambda: bus.has_listeners(wrong), lambda: bus.listen(wrong)):
        with pytest.raises((RegistryError, TypeError)):
            ask()


@pytest.mark.parametrize("wrong", [None, "EpochEnd", EpochEnd, {"event": "EpochEnd"}, PluginEvent(), object()])
def test_what_is_no_event_cannot_be_published(bus, wrong):
    heard = []
    bus.subscribe("*", heard.append)
    for publish in (bus.publish, bus.publish_report):
        with pytest.raises(RegistryError, match=r"^publish: expected an event"):
            publish(wrong)
    assert heard == []


async def asynchronous(event):
    pass


class AsynchronousCall:
    async def __call__(self, event):
        pass


@pytest.mark.parametrize("listener", [None, "print", asynchronous, AsynchronousCall()])
def test_a_listener_that_would_never_run_is_refused(bus, listener):
    with pytest.raises(RegistryError, match="subscribe: EpochEnd"):
        bus.subscribe(EpochEnd, listener)
    assert not bus.has_listeners()


# ------------------------------------------------------------ order and matching
def test_specific_listeners_come_first_then_those_of_everything_each_in_their_order(bus):
    heard = []
    for name, kind in (("*1", "*"), ("a", EpochEnd), ("*2", "*"), ("b", "EpochEnd"), ("no", EpochStart)):
        bus.subscribe(kind, lambda event, name=name: heard.append(name))
    bus.publish(EpochEnd(1, 0.5))
    assert heard == ["a", "b", "*1", "*2"]


def test_custom_events_are_matched_by_name_and_by_class_and_own_classes_by_name(bus):
    @dataclass(frozen=True)
    class Arrived(PluginEvent):
        who: str

    heard = []
    bus.subscribe(Custom, lambda event: heard.append(("Custom", event.name)))
    bus.subscribe("Tick", lambda event: heard.append(("Tick", event.name)))
    bus.subscribe(Arrived, lambda event: heard.append(("Arrived", event.who)))
    bus.publish(Custom("Tick"))
    bus.publish(Custom("Tock"))
    bus.publish(Arrived("x"))
    assert heard == [("Custom", "Tick"), ("Tick", "Tick"), ("Custom", "Tock"), ("Arrived", "x")]
    assert Arrived("x").to_dict() == {"event": "Arrived", "who": "x"}


def test_has_listeners_counts_everything_that_would_hear(bus):
    assert not bus.has_listeners() and not bus.has_listeners(EpochEnd, "Tick", "*", Custom)
    first = bus.subscribe(EpochEnd, print)
    assert bus.has_listeners(EpochEnd) and bus.has_listeners("EpochEnd") and bus.has_listeners(EpochStart, EpochEnd)
    assert not bus.has_listeners(EpochStart) and not bus.has_listeners("*") and not bus.has_listeners("Tick")
    first.cancel()
    with bus.subscribe("*", print):
        assert all(bus.has_listeners(kind) for kind in (EpochStart, "Tick", "*", Custom))
    assert not bus.has_listeners()
    with bus.subscribe(Custom, print):
        assert bus.has_listeners("Tick") and not bus.has_listeners("*") and not bus.has_listeners(EpochEnd)


def test_one_listener_subscribed_twice_hears_twice_and_each_ends_alone(bus):
    heard = []
    one, _ = bus.subscribe(EpochEnd, heard.append), bus.subscribe(EpochEnd, heard.append)
    bus.publish(EpochEnd(1, 0.5))
    one.cancel()
    bus.publish(EpochEnd(2, 0.5))
    assert [event.epoch for event in heard] == [1, 1, 2]


# ------------------------------------------------------------ changes while running
def test_what_a_listener_subscribes_hears_from_the_next_publish_on(bus):
    heard = []

    def first(event):
        heard.append("first")
        bus.subscribe(EpochEnd, lambda event: heard.append("late"))

    bus.subscribe(EpochEnd, first)
    bus.publish(EpochEnd(1, 0.5))
    assert heard == ["first"]
    bus.publish(EpochEnd(2, 0.5))
    assert heard == ["first", "first", "late"]


def test_what_a_listener_cancels_still_hears_the_event_under_way(bus):
    heard, later = [], []

    def first(event):
        heard.append("first")
        later[0].cancel()

    bus.subscribe(EpochEnd, first)
    later.append(bus.subscribe(EpochEnd, lambda event: heard.append("second")))
    bus.publish(EpochEnd(1, 0.5))
    bus.publish(EpochEnd(2, 0.5))
    assert heard == ["first", "second", "first"]


def test_a_listener_may_unsubscribe_itself(bus):
    heard = []

    def once(event):
        heard.append(event.epoch)
        assert bus.unsubscribe(subscription) is (len(heard) == 1)

    subscription = bus.subscribe(EpochEnd, once)
    assert bus.publish_report(EpochEnd(1, 0.5)).matched == 1
    assert bus.publish_report(EpochEnd(2, 0.5)).matched == 0
    assert heard == [1] and not subscription.live and bus.subscriptions() == []


def test_a_listener_may_publish(bus):
    heard = []
    bus.subscribe(EpochStart, lambda event: bus.publish(EpochEnd(event.epoch, 0.0)))
    bus.subscribe("*", lambda event: heard.append(event.name))
    bus.publish(EpochStart(1))
    assert heard == ["EpochEnd", "EpochStart"]


def test_unsubscribe_takes_only_subscriptions_of_its_bus(bus):
    foreign = EventBus().subscribe(EpochEnd, print)
    for wrong in (print, None, "EpochEnd", foreign):
        with pytest.raises(RegistryError, match="unsubscribe: expected"):
            bus.unsubscribe(wrong)
    assert foreign.live


# ------------------------------------------------------------ raising listeners
def test_a_raising_listener_is_isolated_reported_counted_and_logged_once(bus, caplog):
    heard = []

    def bad(event):
        raise ValueError(f"epoch {event.epoch}")

    subscription = bus.subscribe(EpochEnd, bad)
    bus.subscribe(EpochEnd, heard.append)
    bus.subscribe("*", heard.append)
    with caplog.at_level(logging.WARNING, "spiral"):
        report = bus.publish_report(EpochEnd(1, 0.5))
        bus.publish(EpochEnd(2, 0.5))
    assert (report.ok, report.matched, report.delivered) == (False, 3, 2)
    assert [(f.subscription, str(f.error)) for f in report.failures] == [(subscription, "epoch 1")]
    assert len(heard) == 4 and subscription.failures == 2 and bus.failures == 2
    assert len(caplog.records) == 1 and caplog.records[0].exc_info is not None
    assert "bad of spiral raised ValueError: epoch 1" in caplog.text


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_the_program_passes_through(bus, error):
    def stop(event):
        raise error

    heard = []
    bus.subscribe(EpochEnd, stop)
    bus.subscribe(EpochEnd, heard.append)
    with pytest.raises(error):
        bus.publish(EpochEnd(1, 0.5))
    assert heard == []


def test_nobody_listening_is_no_failure(bus):
    report = bus.publish_report(SystemInit())
    assert report.ok and report.matched == 0 and report.delivered == 0 and report.failures == ()


def test_listeners_that_make_each_other_publish_without_end_fail_once_and_fast(bus, caplog):
    for _ in range(3):  # unwound level by level this would be called 3 to the power of the recursion limit
        bus.subscribe("Ping", lambda event: bus.publish(Custom("Ping")))
    start = time.monotonic()
    report = bus.publish_report(Custom("Ping"))
    assert {type(f.error) for f in report.failures} == {RecursionError} and len(report.failures) == 3
    assert time.monotonic() - start < 10


# ------------------------------------------------------------ ownership
def test_a_subscription_belongs_to_the_ledger_and_ends_with_it(bus):
    ledger, heard = Ledger("plugin"), []
    with ledger.recording():
        subscription = bus.subscribe(EpochEnd, heard.append)
        queue = bus.listen("*")
    assert [(a.kind, a.name) for a in ledger.additions()] == [("subscription", "EpochEnd"), ("subscription", "*")]
    assert subscription.owner == "plugin"
    ledger.undo_all()
    bus.publish(EpochEnd(1, 0.5))
    assert heard == [] and not subscription.live and queue.closed and list(queue) == []


def test_an_unloaded_owner_cannot_subscribe_any_more(bus):
    ledger = Ledger("plugin")
    ledger.undo_all()
    with ledger.recording(), pytest.raises(RegistryError, match="has been unloaded"):
        bus.subscribe(EpochEnd, print)
    assert bus.subscriptions() == [] and not bus.has_listeners(EpochEnd)


def test_an_ended_subscription_is_not_kept_alive_by_the_bus(bus):
    class Listener:
        def __call__(self, event):
            pass

    listener = Listener()
    there = weakref.ref(listener)
    with bus.subscribe("Tick", listener) as subscription:
        bus.publish(Custom("Tick"))
    del listener, subscription
    gc.collect()
    assert there() is None


def test_interest_is_told_when_the_first_comes_and_the_last_goes(bus):
    told = []
    bus.on_interest(TensorOp, told.append)
    one, two = bus.subscribe(TensorOp, print), bus.subscribe("*", print)
    bus.subscribe(EpochEnd, print)
    one.cancel()
    assert told == [True]
    two.cancel()
    assert told == [True, False]


# ------------------------------------------------------------ queues, rings, files
def test_a_full_queue_drops_the_oldest_and_counts_it(bus):
    queue = bus.listen(EpochStart, maxlen=3)
    for epoch in range(10):
        bus.publish(EpochStart(epoch))
    queue.close()
    bus.publish(EpochStart(99))
    assert queue.dropped == 7 and [event.epoch for event in queue] == [7, 8, 9]
    assert queue.get() is None and bus.subscriptions() == []


def test_a_queue_says_when_nothing_came_in_time(bus):
    with bus.listen("*") as queue:
        with pytest.raises(TimeoutError, match=r"within 0\.01 s"):
            queue.get(timeout=0.01)
        bus.publish(EpochStart(1))
        assert [event.epoch for event in queue.within(0.01)] == [1] and not queue.closed


def test_a_thread_that_waits_gets_every_event_and_ends_when_the_queue_closes(bus):
    queue, heard = bus.listen(EpochStart, maxlen=10_000), []
    reader = threading.Thread(target=lambda: heard.extend(event.epoch for event in queue))
    reader.start()
    for epoch in range(1000):
        bus.publish(EpochStart(epoch))
    queue.close()
    reader.join(10)
    assert not reader.is_alive() and heard == list(range(1000)) and queue.dropped == 0


@pytest.mark.parametrize("maxlen", [0, -1, 1.5, None, True])
def test_a_queue_or_a_ring_without_room_is_refused(bus, maxlen):
    with pytest.raises(ArgumentError, match="at least 1"):
        bus.listen("*", maxlen=maxlen)
    with pytest.raises(ArgumentError, match="at least 1"):
        Recorder(maxlen)
    assert not bus.has_listeners()


def test_a_recorder_keeps_the_newest_and_gives_them_by_kind(bus):
    recorder = Recorder(maxlen=3)
    bus.subscribe("*", recorder)
    for epoch in (1, 2):
        bus.publish(EpochStart(epoch))
        bus.publish(EpochEnd(epoch, 0.5))
    assert [event.name for event in recorder.events()] == ["EpochEnd", "EpochStart", "EpochEnd"]
    assert recorder.events(EpochStart) == (EpochStart(2),) == recorder.events("EpochStart")
    recorder.clear()
    assert len(recorder) == 0 and recorder.seen == 4


def test_a_file_of_events_is_readable_at_any_moment_and_mends_a_line_cut_short(bus, tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"event": "Epoch')
    with JsonlSink(path) as sink, bus.subscribe("*", sink):
        bus.publish(EpochEnd(1, math.nan))
        bus.publish(Custom("Greeting", "Grüße\nan \ud800 alle"))
        lines = path.read_text().splitlines()
    assert len(lines) == 3 and lines[0] == '{"event": "Epoch'
    first, second = (json.loads(line) for line in lines[1:])
    assert (first["event"], first["epoch"], first["loss"]) == ("EpochEnd", 1, "nan") and first["time"] > 1e9
    assert second["event"] == "Greeting" and "Grüße" in second["data"]


def test_a_file_that_cannot_be_written_is_reported_and_training_goes_on(bus, tmp_path):
    with pytest.raises(SaveError, match="cannot be opened"):
        JsonlSink(tmp_path / "absent" / "events.jsonl")
    sink = JsonlSink(tmp_path / "events.jsonl")
    subscription = bus.subscribe("*", sink)
    sink.close()
    assert not bus.publish_report(EpochStart(1)).ok and subscription.failures == 1


# ------------------------------------------------------------ threads
def test_threads_that_publish_and_subscribe_at_once_lose_nothing(bus):
    """A listener that is there throughout hears every event; one that comes and goes hears none after its end."""
    permanent = Recorder(maxlen=1_000_000)
    bus.subscribe(EpochEnd, permanent)
    until, wrong, published = time.monotonic() + 1.0, [], [0] * 8

    def work(number):
        while time.monotonic() < until:
            ended = threading.Event()
            mine = threading.get_ident()

            def listener(event, ended=ended, mine=mine):
                if ended.is_set() and threading.get_ident() == mine:
                    wrong.append(event)

            with bus.subscribe(EpochEnd, listener), bus.subscribe("*", lambda event: None):
                bus.publish(EpochEnd(number, 0.0))
            ended.set()
            bus.publish(EpochEnd(number, 0.0))
            published[number] += 2

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == [] and bus.failures == 0
    assert permanent.seen == sum(published) > 0
    assert len(bus.subscriptions()) == 1
