#!/usr/bin/python3
"""The manual pages, the completions and the alert rules say what the code says: every command and option, every key
with its default, every metric, and nothing that does not exist. What the code has is read from its tables."""
import glob
import os
import re
import shutil
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
os.chdir(ROOT)
count = failed = 0


def check(problems, what):
    global count, failed
    count += 1
    failed += 1 if problems else 0
    print(f"{'not ok' if problems else 'ok'} {count} - {what}")
    for problem in problems[:30]:
        print(f"# {problem}")


def text(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def difference(code, documented, where):
    return [f"{where} lacks {name}" for name in sorted(code - documented)] + \
           [f"{where} has {name}, which does not exist" for name in sorted(documented - code)]


# --- the tool ---------------------------------------------------------------------------------------------------
cli = text("src/admin/cli.cpp")
table = cli[cli.index("constexpr Command commands[]"):cli.index("class Tool")]
commands = set(re.findall(r'^    \{"([a-z ]+)",', table, re.M))
options = set(re.findall(r'"(--[a-z]+)"', cli)) | {"--" + name for name in re.findall(r"--([a-z]+)=[A-Z]+!?", table)}
options |= {"--help", "--config"}
man = text("man/greymx.1")
listed = set(re.findall(r"^\.It Cm ((?:greylist |spool )?[a-z]+)", man, re.M))
check([] if len(commands) > 20 else [f"only {len(commands)} commands found in src/admin/cli.cpp"], "the table of commands is read")
check(difference(commands, listed, "greymx(1)"), "greymx(1) has every command")
check(difference(options, {"--" + name for name in re.findall(r"Fl Fl ([a-z]+)", man)}, "greymx(1)"),
      "greymx(1) has every option")
words = {word for command in commands for word in command.split()}
for path in ("conf/greymx.bash-completion", "conf/_greymx"):
    completion = text(path)
    check([f"{path} lacks {word}" for word in sorted(words) if not re.search(rf"\b{word}\b", completion)] +
          [f"{path} lacks {option}" for option in sorted(options) if option not in completion], f"{path} knows all of them")
groups = {command.split()[0] for command in commands}
wrong = []
for path in ["README.md", *glob.glob("docs/*.md"), *glob.glob("man/*"), *glob.glob("conf/*.yml")]:
    for first, second in re.findall(r"(?:`|\$ |^\.(?:Ql|Dl) (?:[#$] )?)greymx ([a-z]+)(?: ([a-z]+)\b)?", text(path), re.M):
        if first not in groups or (first in ("greylist", "spool") and second and f"{first} {second}" not in commands):
            wrong.append(f"{path}: greymx {first} {second}".rstrip())
check(wrong, "no document names a command that does not exist")

page = " ".join(text("docs/troubleshooting.md").split())
source = "".join(text(path) for path in sorted(glob.glob("src/**/*.?pp", recursive=True)))
source = re.sub(r'"\s*\n\s*"', "", source).lower()
quoted = re.findall(r'"([^"`]+)"', page) + re.findall(r"`\d{3} \d\.\d\.\d+ ?([^`]*)`", page)
pieces = {piece.strip(" .,:;").lower() for quote in quoted for piece in re.split(r"…|\b[A-Z]\b", quote)}
check([f'docs/troubleshooting.md quotes "{piece}", which the code does not say' for piece in sorted(pieces) if piece not in source]
      if len(pieces) > 5 else ["no quotation is found"], "what the documents quote is said")

# --- relay.conf -------------------------------------------------------------------------------------------------
schema = text("src/config/schema.cpp")
keys = {}
for function in re.findall(r"& (\w+_keys)\(\) \{(.*?)return rows;", schema, re.S):
    for name, raw, plain in re.findall(r'key<\w+>\("([^"]+)", (?:R"\((.*?)\)"|"((?:[^"\\]|\\.)*)"), ', function[1]):
        keys.setdefault(name, set()).add(raw or plain.replace('\\"', '"'))
documented = {}
for name, default in re.findall(r"^\.It Cm ([a-z_.0-9]+)(?: No = (.*))?$", text("man/relay.conf.5"), re.M):
    documented.setdefault(name, set()).add(default.replace("\\(dq", '"'))
check([] if len(keys) > 80 else [f"only {len(keys)} keys found in src/config/schema.cpp"], "the table of keys is read")
check(difference(set(keys), set(documented), "relay.conf(5)"), "relay.conf(5) has every key")
check([f"{name}: relay.conf(5) says {documented[name]}, the code {keys[name]}" for name in sorted(keys)
       if name in documented and documented[name] != keys[name]], "relay.conf(5) has their defaults")
if os.path.exists("conf/relay.conf"):
    example = text("conf/relay.conf")
    check([f"conf/relay.conf lacks {name}" for name in sorted(keys)
           if not re.search(rf"\b{name.split('.')[-1]}\b", example)], "conf/relay.conf names every key")

# --- metrics ----------------------------------------------------------------------------------------------------
metrics = {name: labels for name, labels in
           re.findall(r'\{"(greymx_\w+)", "\w+",\s+"[^"]*",\s+"([^"]*)"', text("src/base/metrics_table.cpp"))}
page = text("man/greymxd.8")
shown = {name: labels.replace(" ", "") for name, labels in re.findall(r"^\.It Cm (greymx_\w+)(?: Pq (.*))?$", page, re.M)}
check([] if len(metrics) > 20 else [f"only {len(metrics)} metrics found"], "the table of metrics is read")
check(difference({f"{n}{{{l}}}" for n, l in metrics.items()}, {f"{n}{{{l}}}" for n, l in shown.items()}, "greymxd(8)"),
      "greymxd(8) has every metric with its labels")
rules = set(re.findall(r"greymx_\w+", text("conf/alerts.rules.yml")))
known = {name + suffix for name in metrics for suffix in ("", "_bucket", "_sum", "_count")}
check([f"conf/alerts.rules.yml uses {name}, which does not exist" for name in sorted(rules - known)],
      "the alert rules use metrics that exist")
# A value of a label is one that the table starts with 0: a rule on any other might never see it.
starts = {name: {(label, value) for row in rows.split(";") for label, value in zip(labels.split(","), row.split(","))}
          for name, labels, rows in re.findall(r'\{"(greymx_\w+)", "\w+",\s+"[^"]*",\s+"([^"]*)", \w*(?:\{\})?, "([^"]*)"',
                                               text("src/base/metrics_table.cpp"))}
results = re.search(r'result : \{(.*?)\}', text("src/admin/status.cpp"))  # whose domains are not known beforehand
starts["greymx_deliveries_total"] = {("result", word) for word in re.findall(r"\w+", results[1])} if results else set()
used = [(name, *pair) for name, pairs in re.findall(r"(greymx_\w+)\{([^}]*)\}", text("conf/alerts.rules.yml"))
        for pair in re.findall(r'(\w+)="([^"]*)"', pairs)]
check([f'conf/alerts.rules.yml asks {name} for {label}="{value}", which it never says' for name, label, value in used
       if (label, value) not in starts.get(name, set())] if used and starts else ["no label is found"],
      "and labels that they have")

# --- form -------------------------------------------------------------------------------------------------------
if shutil.which("mandoc"):
    lint = subprocess.run(["mandoc", "-Tlint", *sorted(glob.glob("man/*"))], capture_output=True, text=True)
    # Whether other pages are installed on this machine says nothing about ours.
    check([line for line in lint.stdout.splitlines() if "referenced manual not found" not in line and "mandoc.db" not in line],
          "mandoc -Tlint finds nothing")
if shutil.which("bash"):
    parsed = subprocess.run(["bash", "-n", "conf/greymx.bash-completion"], capture_output=True, text=True)
    check(parsed.stderr.splitlines(), "the bash completion parses")

print(f"1..{count}")
raise SystemExit(1 if failed else 0)
