"""What the benchmarks share: the CPU and memory of a server with all its processes, and their tables."""
import mmap
import os
import re
import subprocess
import threading
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "e2e"))
from peers import Service, free_port, listening, need, wait_for

ticks = os.sysconf("SC_CLK_TCK")


def compiled(tap, name):
    """The program tests/bench/NAME.cpp."""
    here = os.path.dirname(os.path.abspath(__file__))
    program = os.path.join(tap.directory, name)
    subprocess.run([*os.environ.get("CXX", "clang++-19").split(), "-std=c++23", "-O2", os.path.join(here, name + ".cpp"), "-o", program,
                    "-pthread"], check=True)
    return program


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def warm_memory():
    """Touches most of the memory that is free. A virtual machine gets each page from its host when it is first used, which
    costs many times what a copy into it does: without this, whoever writes more is charged for the host."""
    with open("/proc/meminfo") as file:
        free = int(re.search(r"MemFree:\s+(\d+)", file.read()).group(1)) * 1024
    pages = mmap.mmap(-1, free * 3 // 4, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pages.madvise(23)  # MADV_POPULATE_WRITE, which Python has no name for
    pages.close()


def family(pid):
    """A process and its descendants, each with the CPU ticks of itself and of its children that have ended."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
                parents[int(name)] = (int(fields[1]), sum(map(int, fields[11:15])))
            except OSError:
                pass
    mine, grew = {pid}, True
    while grew:
        more = {pid for pid, (parent, _) in parents.items() if parent in mine} - mine
        mine |= more
        grew = bool(more)
    return {pid: parents[pid][1] for pid in mine if pid in parents}


def memory(pid):
    """PSS of the family in KiB."""
    total = 0
    for member in family(pid):
        try:
            with open(f"/proc/{member}/smaps_rollup") as file:
                total += int(re.search(r"Pss:\s+(\d+)", file.read()).group(1))
        except (OSError, AttributeError):  # it has ended
            pass
    return total


class Meter:
    """CPU seconds and peak memory of a process and its descendants."""

    def __init__(self, pid):
        self.pid, self.peak, self.stop = pid, 0, False
        self.begin = self.cpu()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def cpu(self):
        return sum(family(self.pid).values()) / ticks

    def _watch(self):
        while not self.stop:
            self.peak = max(self.peak, memory(self.pid))
            time.sleep(0.2)

    def end(self):
        self.stop = True
        self.thread.join()
        return self.cpu() - self.begin, self.peak / 1024


class Counter:
    """smtp-sink as the primary, with its own running count."""

    def __init__(self, tap, port):
        self.port = port
        self.service = Service(tap, f"sink-{port}-{time.time_ns()}", [need("smtp-sink"), "-c", "-u", "nobody", f"127.0.0.1:{port}", "1000"])
        wait_for(lambda: listening(port))

    def count(self):
        with open(self.service.output, "rb") as file:
            file.seek(max(0, os.path.getsize(self.service.output) - 200))
            found = re.findall(rb"mesg[ =]*(\d+)|(\d+)", file.read())
        return int((found[-1][0] or found[-1][1])) if found else 0

    def close(self):
        self.service.kill()
