#!/usr/bin/python3
"""Rules that a tool can check: which way includes point, coroutine statements that compilers get wrong, formatting."""
import glob
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
os.chdir(ROOT)

MAY_INCLUDE = {
    "base": {"base"},
    "config": {"base", "config"},
    "dns": {"base", "dns"},
    "dnsbl": {"base", "config", "dns", "dnsbl"},
    "spf": {"base", "dns", "spf"},
    "greylist": {"base", "config", "greylist"},
    "access": {"base", "config", "dns", "dnsbl", "spf", "greylist", "access"},
    "smtp": {"base", "config", "smtp"},
    "queue": {"base", "queue"},
    "relay": {"base", "config", "dns", "smtp", "queue", "relay"},
    "admin": {"base", "config", "dns", "dnsbl", "spf", "greylist", "access", "smtp", "queue", "relay", "admin"},
    "daemon": {"base", "config", "dns", "dnsbl", "spf", "greylist", "access", "smtp", "queue", "relay", "admin", "daemon"},
}
# One awaited call a statement, its result bound to a name (GCC PR 106188, 99576 and others); capturing lambda
# coroutines lose their captures at the first suspension. An exception carries the comment "co_await ok: why".
BAD_AWAIT = [
    (r"\?[^;:]*co_await|co_await[^;]*\?[^;]*:", "co_await in a conditional expression: use if/else"),
    (r"co_await[^;]*\[[^\]]+\]\s*\(", "co_await with a capturing lambda temporary: name it first"),
    (r"REQUIRE\(\s*co_await|CHECK\(\s*co_await", "co_await inside a test macro: bind first"),
]

count = failed = 0


def awaits_in_condition(code):
    """`if (auto result = co_await f(); …)` binds first and is fine; anything else awaited inside the parentheses is not."""
    for found in re.finditer(r"\b(?:if|while|switch)\s*\(", code):
        depth, end = 1, found.end()
        while end < len(code) and depth:
            depth += {"(": 1, ")": -1}.get(code[end], 0)
            end += 1
        condition = code[found.end():end]
        if "co_await" in condition and not re.match(r"\s*[\w:<>&, ]+ [\w\[\], ]+ = co_await [^;]*;[^;]*$", condition):
            return True
    return False


def check(problems, what):
    global count, failed
    count += 1
    if problems:
        failed += 1
    print(f"{'not ok' if problems else 'ok'} {count} - {what}")
    for problem in problems[:30]:
        print(f"# {problem}")


sources = sorted(glob.glob("src/**/*.[hc]pp", recursive=True))
tests = sorted(glob.glob("tests/**/*.[hc]pp", recursive=True))

problems = []
for path in sources:
    folder = path.split("/")[1]
    if folder not in MAY_INCLUDE:
        continue  # the two mains know everything
    for number, line in enumerate(open(path), 1):
        found = re.match(r'#include "(\w+)/', line)
        if found and found.group(1) not in MAY_INCLUDE[folder]:
            problems.append(f"{path}:{number}: src/{folder} must not include {found.group(1)}/")
check(problems, "includes point one way")

problems = []
for path in sources + tests:
    for number, line in enumerate(open(path), 1):
        code = line.split("//")[0]
        if "co_await" in code and "co_await ok:" not in line:
            problems += [f"{path}:{number}: {why}" for pattern, why in BAD_AWAIT if re.search(pattern, code)]
            if awaits_in_condition(code):
                problems.append(f"{path}:{number}: co_await in a condition: bind its result first")
check(problems, "coroutine statements are simple")

check([p for p in glob.glob("src/**/*.hpp", recursive=True) if "#pragma once" not in open(p).read()],
      "headers are guarded")
spawns = [p for p in sources if not p.startswith("src/base/async") and re.search(r"\bco_spawn\s*\(", open(p).read())]
check(spawns, "co_spawn appears in base/async only")
check([p for p in sources if re.search(r"\b(system|popen|strcpy|strcat|sprintf|gets)\s*\(", re.sub(r"//.*", "", open(p).read()))
       and "std::chrono" not in p], "no call that invites injection or overflow")

tool = shutil.which("clang-format-19")
if tool:
    done = subprocess.run([tool, "--dry-run", "-Werror", *sources, *tests], capture_output=True, text=True)
    check([line for line in done.stderr.splitlines() if "error:" in line], "formatted as .clang-format says")
else:
    check(["clang-format-19 is not installed"], "formatted as .clang-format says")

names = subprocess.run(["git", "ls-files"], capture_output=True, text=True).stdout.split("\n") if os.path.isdir(".git") else []
check([n for n in names if re.search(r"\.(o|a|so|exe|pyc|db)$", n)], "no binaries are kept")
print(f"1..{count}")
sys.exit(1 if failed else 0)
