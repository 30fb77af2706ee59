"""Waiting threads give way to other processes, and spin when alone; what hinders the watching hinders no training."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import ROOT

from util.system import cores, threads

watchable = pytest.mark.skipif(not threads.OWN_THREADS.exists(), reason="this system does not tell how long threads queue")

WAIT = """
import json, os, time
from threading import Event, main_thread
from util.system import threads
import torch

def alive():
    return len(os.listdir("/proc/self/task"))

def seconds_computing():
    begin = time.process_time()
    for _ in range(100):
        torch.ones(2**16)
        time.sleep(0.002)
    return time.process_time() - begin

def soon(condition):
    end = time.time() + 60
    while not condition() and time.time() < end:
        time.sleep(0.01)
    return condition()

torch.ones(2**20)
before, spinning = alive(), seconds_computing()
with threads.more_threads():
    during, asleep = alive(), seconds_computing()
same_again = soon(lambda: alive() == before)

needed = Event()
threads.contested = lambda seconds: time.sleep(0.01) or needed.is_set() and main_thread().is_alive()
described = threads.settle()
needed.set()
followed = soon(lambda: alive() > before + 1)
needed.clear()
went_back = soon(lambda: alive() == before + 1)
print(json.dumps([threads.WATCHED, before, during, same_again, spinning, asleep, described, followed, went_back]))
"""


@watchable
@pytest.mark.skipif(cores.bound() < 2, reason="one core")
def test_waits_are_short_while_others_need_the_cores(tmp_path):
    """What OpenMP does with more threads than cores shows in the time for which waiting threads compute."""
    (tmp_path / "wait.py").write_text(WAIT)
    environment = {name: value for name, value in os.environ.items() if name not in threads.CHOICES}
    environment |= {"OMP_NUM_THREADS": str(cores.bound()), "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "wait.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    watched, before, during, same_again, spinning, asleep, described, followed, went_back = json.loads(run.stdout)
    assert watched and before < during and same_again
    assert asleep < spinning / 2
    assert described == f"{cores.bound()} threads, which wait asleep while other processes need the cores"
    assert followed and went_back


@watchable
def test_cores_are_contested_where_a_thread_that_could_run_has_to_queue():
    core, over = min(os.sched_getaffinity(0)), threading.Event()
    pinned = f"import os\nos.sched_setaffinity(0, {{{core}}})\nwhile True: pass"

    def compute() -> None:
        os.sched_setaffinity(0, {core})  # this thread alone
        while not over.is_set():
            pass

    thread = threading.Thread(target=compute)
    with ThreadPoolExecutor() as watcher, subprocess.Popen([sys.executable, "-c", pinned]) as competitor:
        thread.start()
        try:
            assert watcher.submit(threads.contested, 0.5).result()
        finally:
            over.set()
            thread.join()
            competitor.kill()
    with ThreadPoolExecutor() as watcher:
        assert not watcher.submit(threads.contested, 0.5).result()  # nothing here wants to run


@pytest.mark.parametrize(
    ("asked", "usable", "bound", "expected"),
    [
        (None, 2, 2, True),
        (None, 2, 64, False),
        (None, 8, 16, True),
        ("1", 8, 8, False),
        ("6", 8, 8, True),
        ("6,1", 1, 8, True),
    ],
)
@watchable
def test_cores_are_watched_where_few_more_threads_would_do(monkeypatch, asked, usable, bound, expected):
    monkeypatch.setattr(cores, "usable", lambda: usable)
    monkeypatch.setattr(cores, "bound", lambda: bound)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert threads.can_watch() == expected


@pytest.mark.parametrize(
    "environment, can_watch, watched, said",
    [
        ({}, True, True, "2 threads, which wait asleep while other processes need the cores"),
        ({}, False, False, "2 threads, GOMP_SPINCOUNT=1000"),
        ({"GOMP_SPINCOUNT": "77"}, True, False, "2 threads, GOMP_SPINCOUNT=77"),
        ({"OMP_WAIT_POLICY": "passive"}, False, False, "2 threads, OMP_WAIT_POLICY=passive"),
    ],
)
def test_what_users_say_of_waiting_stays(monkeypatch, environment, can_watch, watched, said):
    monkeypatch.setattr(os, "environ", {"OMP_NUM_THREADS": "2"} | environment)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(threads, "can_watch", lambda: can_watch)
    monkeypatch.setattr(threads, "watch", lambda: True)
    monkeypatch.setattr(threads, "WATCHED", threads.choose())
    assert watched == threads.WATCHED and threads.settle() == said


def test_one_thread_waits_for_nobody():
    assert torch.get_num_threads() == 1  # as conftest.py asks for
    assert threads.settle() == "1 thread"


def test_where_the_system_allows_no_thread_more_all_goes_on(monkeypatch):
    def refuse(thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    before = threading.active_count()
    assert not threads.watch.__wrapped__()
    with threads.more_threads():
        assert threading.active_count() == before


def test_statistics_that_the_kernel_leaves_at_zero_are_none(tmp_path):
    (tmp_path / "schedstat").write_text("0 0 0\n")
    assert not threads.counts_time(tmp_path / "schedstat") and not threads.counts_time(tmp_path / "missing")
    (tmp_path / "schedstat").write_text("1200 34 5\n")
    assert threads.counts_time(tmp_path / "schedstat")
