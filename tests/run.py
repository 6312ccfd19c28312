#!/usr/bin/python3
"""Runs every test of the project and counts them; see scripts/test.

Kinds: unit tests (Catch2, in the ASan+UBSan build; one count a test case), replayed fuzz corpora (one count a
target), scripts that speak TAP (one count a line): structure, docs, e2e, crash. A program that ends in any other way
than its protocol allows counts as a failure of its own.
"""
import glob
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FULL = "--full" in sys.argv
ONLY = [word for word in sys.argv[1:] if not word.startswith("-")]
passed = failed = 0
failures = []


def wanted(name):
    return not ONLY or any(word in name for word in ONLY)


def run(command, limit, env=None):
    """(exit code or None if it took too long, output)"""
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=limit,
                              stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})})
        return done.returncode, done.stdout.decode("utf-8", "replace")
    except subprocess.TimeoutExpired as error:
        return None, (error.stdout or b"").decode("utf-8", "replace")


def record(name, ok, bad, output, seconds):
    global passed, failed
    passed, failed = passed + ok, failed + bad
    print(f"{'FAIL' if bad else 'ok  '} {name}: {ok} passed, {bad} failed ({seconds:.1f} s)", flush=True)
    if bad:
        failures.append(name)
        print("\n".join("     " + line for line in output.splitlines()[-60:]), flush=True)


SYMBOLS = ":external_symbolizer_path=/usr/lib/llvm-19/bin/llvm-symbolizer"
SANITIZERS = {"ASAN_OPTIONS": "detect_stack_use_after_return=1:abort_on_error=1:max_allocation_size_mb=2048" + SYMBOLS,
              "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1" + SYMBOLS,
              "TSAN_OPTIONS": f"halt_on_error=1:suppressions={ROOT}/tests/tsan.supp" + SYMBOLS,
              "LSAN_OPTIONS": f"suppressions={ROOT}/tests/lsan.supp:print_suppressions=0"}


def catch(path, name, limit, words=(), env=None):
    begin = time.monotonic()
    code, output = run([path, *words], limit, {**SANITIZERS, **(env or {})})
    all_passed = re.search(r"All tests passed \(\d+ assertions? in (\d+) test cases?\)", output)
    some = re.search(r"test cases:\s*(\d+)\s*\|(?:\s*(\d+) passed\s*\|)?\s*(\d+) failed", output)
    if code == 0 and all_passed:
        ok, bad = int(all_passed.group(1)), 0
    elif some:
        ok, bad = int(some.group(2) or 0), int(some.group(3))
    else:
        ok, bad = 0, 1
        output += f"\nended with {code}"
    return name, ok, bad, output, time.monotonic() - begin


def exit_code(path, name, limit, words=()):
    begin = time.monotonic()
    code, output = run([path, *words], limit, SANITIZERS)
    return name, int(code == 0), int(code != 0), output + f"\nended with {code}", time.monotonic() - begin


def tap(path, name, limit, words=()):
    begin = time.monotonic()
    code, output = run(["/usr/bin/python3", path, *words], limit)
    ok = len(re.findall(r"^ok \d+", output, re.M))
    bad = len(re.findall(r"^not ok \d+", output, re.M))
    plan = re.search(r"^1\.\.(\d+)", output, re.M)
    if not bad and (code != 0 or not plan or int(plan.group(1)) != ok):
        bad = 1
        output += f"\nended with {code} after {ok} checks"
    return name, ok, bad, output, time.monotonic() - begin


def programs(*patterns):
    return [path for pattern in patterns for path in sorted(glob.glob(f"{ROOT}/{pattern}"))
            if os.path.isfile(path) and os.access(path, os.X_OK)]


def units(build, label, limit):
    paths = programs(f"{build}/tests/unit/*/unit_*", f"{build}/tests/dialogue/dialogues")
    return [(catch, path, f"{label}/{os.path.basename(path)}", limit) for path in paths]


def long_outage():
    return [(catch, f"{ROOT}/build-optimized/tests/unit/relay/unit_relay", "outage of a million messages", 7200, ("two weeks*",),
             {"GREYMX_OUTAGE_MESSAGES": "1000000"})]


def corpora():
    return [(exit_code, path, f"corpus/{os.path.basename(path)}", 600) for path in programs("build-asan/tests/fuzz/*_replay")]


def scripts(limit, *folders, words=()):
    paths = [path for folder in folders for path in sorted(glob.glob(f"{ROOT}/tests/{folder}/*.py"))]
    return [(tap, path, os.path.relpath(path, f"{ROOT}/tests"), limit, words) for path in paths
            if os.path.basename(path) not in ("peers.py", "policy.py", "list_servers.py")]  # shared by the others


def fuzz_campaign():
    seconds = int(os.environ.get("FUZZ_SECONDS", "300"))
    tasks = []
    for path in programs("build-fuzz/tests/fuzz/fuzz_*"):
        target = os.path.basename(path)
        work = f"{ROOT}/build-fuzz/corpus/{target}"
        os.makedirs(work, exist_ok=True)
        tasks.append((exit_code, path, f"fuzz/{target}", seconds + 300,
                      [work, f"tests/fuzz/corpus/{target}", f"-max_total_time={seconds}", "-rss_limit_mb=4096", "-timeout=20"]))
    return tasks


def together(workers, tasks):
    with ThreadPoolExecutor(workers) as pool:
        for done in as_completed([pool.submit(*task) for task in tasks if wanted(task[2])]):
            record(*done.result())


def main():
    cores = os.cpu_count()
    # Most of these wait for a peer or a clock of their own most of the time.
    together(2 * cores, scripts(300, "structure", "docs") + corpora() + units("build-asan", "unit", 900)
             + scripts(7200 if FULL else 900, "e2e", "crash", words=("--full",) if FULL else ()))
    if FULL:
        together(2 * cores, units("build-optimized", "optimized", 900))
        together(cores, units("build-tsan", "tsan", 3600))
        together(cores, fuzz_campaign())
        together(1, long_outage() + scripts(7200, "full"))
    if failures:
        print("failed: " + ", ".join(failures))
    print(f"{passed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed or not passed else 0)


main()
