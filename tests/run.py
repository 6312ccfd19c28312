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
from concurrent.futures import ThreadPoolExecutor

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


SANITIZERS = {"ASAN_OPTIONS": "detect_stack_use_after_return=1:abort_on_error=1:max_allocation_size_mb=2048",
              "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1", "TSAN_OPTIONS": f"halt_on_error=1:suppressions={ROOT}/tests/tsan.supp",
              "LSAN_OPTIONS": f"suppressions={ROOT}/tests/lsan.supp:print_suppressions=0"}


def catch(path, name, limit):
    begin = time.monotonic()
    code, output = run([path], limit, SANITIZERS)
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


def exit_code(path, label, limit, words=()):
    name = f"{label}/{os.path.basename(path)}"
    if not wanted(name):
        return
    begin = time.monotonic()
    code, output = run([path, *words], limit, SANITIZERS)
    record(name, int(code == 0), int(code != 0), output + f"\nended with {code}", time.monotonic() - begin)


def tap(path, limit, words=()):
    name = os.path.relpath(path, os.path.join(ROOT, "tests"))
    if not wanted(name):
        return
    begin = time.monotonic()
    code, output = run(["/usr/bin/python3", path, *words], limit)
    ok = len(re.findall(r"^ok \d+", output, re.M))
    bad = len(re.findall(r"^not ok \d+", output, re.M))
    plan = re.search(r"^1\.\.(\d+)", output, re.M)
    if not bad and (code != 0 or not plan or int(plan.group(1)) != ok):
        bad = 1
        output += f"\nended with {code} after {ok} checks"
    record(name, ok, bad, output, time.monotonic() - begin)


def units(build, label, limit):
    """Side by side: some compute, others wait for their own clocks."""
    paths = sorted(glob.glob(f"{ROOT}/{build}/tests/unit/*/unit_*") + glob.glob(f"{ROOT}/{build}/tests/dialogue/dialogues"))
    names = {path: f"{label}/{os.path.basename(path)}" for path in paths if os.access(path, os.X_OK) and os.path.isfile(path)}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for result in pool.map(lambda path: catch(path, names[path], limit), filter(lambda path: wanted(names[path]), names)):
            record(*result)


def fuzz_campaign():
    for path in sorted(glob.glob(f"{ROOT}/build-fuzz/tests/fuzz/fuzz_*")):
        target = os.path.basename(path)
        if not os.path.isfile(path) or not os.access(path, os.X_OK):
            continue
        seconds = int(os.environ.get("FUZZ_SECONDS", "300"))
        work = f"{ROOT}/build-fuzz/corpus/{target}"
        os.makedirs(work, exist_ok=True)
        exit_code(path, "fuzz", seconds + 300,
                  [work, f"tests/fuzz/corpus/{target}", f"-max_total_time={seconds}", "-rss_limit_mb=4096", "-timeout=20"])


def main():
    long_words = ("--full",) if FULL else ()
    for path in sorted(glob.glob(f"{ROOT}/tests/structure/*.py") + glob.glob(f"{ROOT}/tests/docs/*.py")):
        tap(path, 300)
    units("build-asan", "unit", 900)
    for path in sorted(glob.glob(f"{ROOT}/build-asan/tests/fuzz/*_replay")):
        exit_code(path, "corpus", 600)
    for path in sorted(glob.glob(f"{ROOT}/tests/e2e/*.py") + glob.glob(f"{ROOT}/tests/crash/*.py")):
        if os.path.basename(path) not in ("peers.py", "policy.py", "list_servers.py"):  # shared by the others
            tap(path, 7200 if FULL else 900, long_words)
    if FULL:
        units("build-tsan", "tsan", 3600)
        fuzz_campaign()
        for path in sorted(glob.glob(f"{ROOT}/tests/full/*.py")):
            tap(path, 7200)
    if failures:
        print("failed: " + ", ".join(failures))
    print(f"{passed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed or not passed else 0)


main()
