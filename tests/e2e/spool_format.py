#!/usr/bin/python3
"""A reader of the spool written only from greymx-spool(5), against what the daemon wrote and `greymx spool dump` says."""
import json
import os
import re
import struct

from peers import *

BLOCK = 4096
ALPHABET = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"


def crc_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)
    return table


TABLE = crc_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def id_text(value):
    digits = ""
    for _ in range(12):
        value, digit = divmod(value, 52)
        digits = ALPHABET[digit] + digits
    return digits


class Fields:
    def __init__(self, data):
        self.data, self.at = data, 0

    def number(self, form):
        size = struct.calcsize("<" + form)
        value, = struct.unpack("<" + form, self.data[self.at:self.at + size])
        self.at += size
        return value

    def u8(self): return self.number("B")
    def u16(self): return self.number("H")
    def u32(self): return self.number("I")
    def u64(self): return self.number("Q")
    def time(self): return self.number("q")

    def flag(self):
        value = self.u8()
        assert value in (0, 1)
        return value == 1

    def text(self):
        length = self.u32()
        self.at += length
        assert self.at <= len(self.data)
        return self.data[self.at - length:self.at].decode("utf-8", "replace")

    def list(self, each):
        return [each() for _ in range(self.u32())]

    def end(self, value):
        assert self.at == len(self.data), f"{len(self.data) - self.at} bytes left"
        return value


def state(f):
    held, why = f.flag(), f.text()
    names = ("status", "delay_reported", "attempts", "next_attempt", "held_since", "reason", "dsn", "remote")
    recipients = f.list(lambda: dict(zip(names, (f.u8(), f.flag(), f.u32(), f.time(), f.time(), f.text(), f.text(), f.text()))))
    return {"held": held, "hold_reason": why, "recipients": recipients}


def envelope(f):
    result = {"origin": f.u8(), "body": f.u8(), "ret": f.u8(), "authorised": f.u8(), "smtputf8": f.flag(), "hold": f.flag(),
              "client_trusted": f.flag(), "client_port": f.u16()}
    for name in ("client_address", "client_name", "helo", "protocol", "tls", "message_id", "envid", "reverse_path"):
        result[name] = f.text()
    names = ("notify_never", "notify_success", "notify_failure", "notify_delay", "address", "original_recipient")
    result["recipients"] = f.list(lambda: dict(zip(names, (f.flag(), f.flag(), f.flag(), f.flag(), f.text(), f.text()))))
    return result


class Segment:
    def __init__(self, path):
        with open(path, "rb") as file:
            self.data = file.read()
        self.number = int(os.path.basename(path)[:-4])
        header = next(h for h in (self.data[:64], self.data[BLOCK:BLOCK + 64]) if crc32c(h[:60]) == struct.unpack("<I", h[60:])[0])
        magic, version, number, self.salt, self.created = struct.unpack("<8sIIQq", header[:32])
        assert magic == b"greymxSP" and version == 1 and number == self.number
        seal = self.record(len(self.data) - BLOCK)
        self.sealed = seal is not None and seal["type"] == 6
        self.log_end = None
        if self.sealed:
            self.summary = self.record(seal["id"])
            assert self.summary["type"] == 5 and self.summary["sound"] and len(self.summary["body"]) == seal["body_length"]
            self.log_end = -(-(seal["id"] + self.summary["length"]) // BLOCK) * BLOCK

    def record(self, offset):
        """The record whose header stands at this offset, or None if that is none of this segment's."""
        header = self.data[offset:offset + 40]
        if len(header) < 40:
            return None
        crc, number, kind, previous, ident, head_length, head_crc, body_length, body_crc = struct.unpack("<IIBIQIIII", header[:37])
        covered = struct.pack("<QIQ", self.salt, self.number, offset) + header[4:]
        if number != self.number or crc != crc32c(covered):
            return None
        head = self.data[offset + 40:offset + 40 + head_length]
        body = self.data[offset + 40 + head_length:offset + 40 + head_length + body_length]
        sound = kind in (1, 6) or crc32c(head) == head_crc and crc32c(body) == body_crc
        return {"type": kind, "previous": previous, "id": ident, "head": head, "body": body, "body_length": body_length,
                "length": -(-(40 + head_length + body_length) // 8) * 8, "offset": offset, "sound": sound}

    def records(self):
        at = 2 * BLOCK
        while at < (self.log_end or len(self.data)):
            batch = self.record(at)
            if batch is None or batch["type"] != 1:
                at += BLOCK
                continue
            inside = at + 40
            end = inside + batch["body_length"]
            while inside < end:
                record = self.record(inside)
                if record is None:
                    break
                if record["sound"]:
                    yield record
                inside += record["length"]
            at = -(-end // BLOCK) * BLOCK

    def entries(self):
        """What the summary says: (type, id, offset, head length, previous, ...)."""
        f = Fields(self.summary["body"])
        domains = f.list(f.text)

        def entry():
            kind = f.u8()
            result = [kind, f.u64(), f.u32(), f.u32(), f.u32()]
            if kind == 2:
                result += [f.u64(), f.flag()]
            if kind in (2, 3):
                result += [f.flag(), f.list(lambda: (f.u8(), f.time(), domains[f.u32()] if kind == 2 else None))]
            return result
        return f.end(f.list(entry))


def read_spool(directory):
    """(what dump should print, the queue: id -> (envelope, state, content))"""
    lines, queue = [], {}
    for name in sorted(n for n in os.listdir(directory) if re.fullmatch(r"\d{8,}\.log", n)):
        segment = Segment(f"{directory}/{name}")
        lines.append({"segment": segment.number, "type": "segment", "created": segment.created, "sealed": segment.sealed})
        told = []
        for record in segment.records():
            kind, ident = record["type"], id_text(record["id"])
            line = {"segment": segment.number, "offset": record["offset"], "type": {2: "message", 3: "change", 4: "end"}.get(kind),
                    "id": ident, "previous": record["previous"]}
            f = Fields(record["head"])
            entry = [kind, record["id"], record["offset"], len(record["head"]), record["previous"]]
            if kind == 2:
                line.update(own_file=f.flag(), size=f.u64(), crc32c=f.u32())
                line.update(envelope=envelope(f), state=f.end(state(f)))
                content = record["body"]
                if line["own_file"]:
                    path = f"{directory}/large/{ident}"
                    content = open(path, "rb").read() if os.path.exists(path) else None
                queue[ident] = [line["envelope"], line["state"], content, line["size"], line["crc32c"]]
                entry += [line["size"], line["own_file"]]
            elif kind == 3:
                line.update(state=f.end(state(f)))
                if ident in queue:
                    queue[ident][1] = line["state"]
            elif kind == 4:
                queue.pop(ident, None)
            else:
                continue
            if kind in (2, 3):
                domain = [r["address"].rpartition("@")[2].lower() for r in line["envelope"]["recipients"]] if kind == 2 else None
                entry += [line["state"]["held"], [(r["status"], r["next_attempt"], domain[i] if domain else None)
                                                  for i, r in enumerate(line["state"]["recipients"])]]
            told.append(entry)
            lines.append(line)
        if segment.sealed:
            tap.check(segment.entries() == told, f"{name}: the summary says what the records say")
    return lines, queue


tap = Tap("spool_format")
mx = Greymx(tap, f"""
[domains."example.com"]
primary = ["127.0.0.1:{free_port()}"]
verify_recipients = false
[domains."example.org"]
primary = ["127.0.0.1:{free_port()}"]
verify_recipients = false
[access]
trusted_networks = ["127.0.0.0/8"]
""")
directory = f"{mx.directory}/queue"
tap.equal(crc32c(b"123456789"), 0xE3069283, "CRC-32C")


def compare(what):
    """Our reading of the spool, and the tool's; the tool's view of the queue, too."""
    lines, queue = read_spool(directory)
    dumped = [json.loads(line) for line in mx.tool("spool", "dump", check=True).stdout.splitlines()]
    same = next((pair for pair in zip(lines, dumped) if pair[0] != pair[1]), None)
    tap.check(same is None and len(lines) == len(dumped), f"{what}: dump shows what the format says", f"{same}\n{len(lines)} {len(dumped)}")
    listed = {entry["queue_id"]: entry for entry in map(json.loads, mx.tool("mailq", "--json", check=True).stdout.splitlines())}
    tap.equal(sorted(listed), sorted(queue), f"{what}: mailq lists what the log leaves")
    for ident, (env, now, content, size, crc) in queue.items():
        sound = content is not None and len(content) == size and crc32c(content) == crc
        tap.check(sound, f"{what}: {ident} has its content")
    verified = mx.tool("spool", "verify")
    tap.equal(verified.returncode, 0, f"{what}: verify finds nothing wrong")
    return queue


mx.start()
client = Smtp(mx.smtp)
sent = {}
for number, (recipients, size) in enumerate([(["bob@example.com"], 100), (["bob@Example.ORG", "eve@example.com"], 5000),
                                             (["eve@example.org"], 400000), (["x@example.com"], 0), (["y@example.com"], 70000)]):
    content = b"".join(b"line %d of %d\r\n" % (i, number) for i in range(size // 10)) or b"Subject: empty\r\n"
    replies = client.mail("sender@client.example.org", recipients, b"Subject: x\r\n\r\n" + content)
    queued = re.search(r"queued as (\S+)", replies[-1])
    if tap.check(queued, f"message {number} is taken", replies):
        sent[queued.group(1)] = (recipients, content)
ids = sorted(sent)
mx.tool("hold", ids[0], check=True)
mx.tool("delete", ids[3], check=True)
wait_for(lambda: any(e["recipients"][0]["delay_reason"] for e in map(json.loads, mx.tool("mailq", "--json").stdout.splitlines())))
mx.kill9()
queue = compare("after kill -9")
tap.check(set(ids) - {ids[3]} <= set(queue), "every message that got 250 is in the log", f"{ids} {sorted(queue)}")
for ident in set(queue) & set(sent):
    recipients, content = sent[ident]
    tap.equal([r["address"] for r in queue[ident][0]["recipients"]], recipients, f"{ident} has its recipients")
    tap.check(queue[ident][2].endswith(content), f"{ident} ends as it was sent")

mx.start()
mx.tool("hold", ids[1], check=True)
mx.tool("delete", ids[3])
mx.stop()
queue = compare("after a clean stop")
tap.check(queue[ids[1]][1]["held"], "the hold is in the log")
tap.check(ids[3] not in queue, "the deleted message is not in the queue")

large = f"{directory}/large/{ids[2]}"
with open(large, "r+b") as file:
    file.seek(1000)
    file.write(b"!")
verified = mx.tool("spool", "verify")
tap.check(verified.returncode == 1 and ids[2] in verified.stdout + verified.stderr, "verify names the message whose file has changed",
          verified.stdout + verified.stderr)
tap.done()
