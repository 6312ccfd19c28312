"""Block lists as they are in the world: rbldnsd serves them, unbound resolves."""
import os

from peers import Service, need


def start_rbldnsd(tap, port, lists, ttl=60):
    """`lists`: {zone: [(rbldnsd's kind of data, text), ...]}."""
    directory = os.path.join(tap.directory, "rbldnsd")
    os.makedirs(directory)
    zones = []
    for number, (zone, sets) in enumerate(lists.items()):
        for kind, text in sets:
            name = f"zone{number}.{kind}"
            with open(os.path.join(directory, name), "w") as file:
                file.write(f"$SOA {ttl} ns.lists.example hostmaster.lists.example 0 60 60 600 60\n$NS {ttl} ns.lists.example\n" + text)
            zones.append(f"{zone}:{kind}:{name}")
    user = ["-u", "nobody:nogroup"] if os.geteuid() == 0 else []
    Service(tap, "rbldnsd", [need("rbldnsd"), "-n", *user, "-w", directory, "-b", f"127.0.0.1/{port}", "-t", str(ttl), *zones])


def start_unbound(tap, port, stubs, address="127.0.0.1", data=()):
    """`stubs`: {zone under lists.example: port of its server on 127.0.0.1}; `data`: records of its own. Nothing else exists."""
    zones = "".join(f'stub-zone:\n  name: "{zone}"\n  stub-addr: 127.0.0.1@{server}\n' for zone, server in stubs.items())
    records = "".join(f'  local-data: "{record}"\n' for record in data)
    file_name = os.path.join(tap.directory, "unbound.conf")
    with open(file_name, "w") as file:
        file.write(f"""server:
  interface: {address}@{port}
  do-daemonize: no
  use-syslog: no
  username: ""
  chroot: ""
  directory: "{tap.directory}"
  pidfile: "{tap.directory}/unbound.pid"
  module-config: "iterator"
  num-threads: 1
  do-not-query-localhost: no
  access-control: 127.0.0.0/8 allow
  local-zone: "." static
  local-zone: "lists.example." transparent
{records}remote-control:
  control-enable: no
{zones}""")
    return Service(tap, "unbound", [need("unbound"), "-d", "-p", "-c", file_name])
