"""Makes a home folder with an earlier pimesh, for the tests of updates; README.md says how.

    make.py PROGRAM FORMAT FOLDER

Three nodes run on loopback: `pi-1` and `pi-2`, whose homes are kept, and `pi-3`, which is removed.
`pi-2` is stopped before the end, so that something waits for it. FORMAT is the format of the
program's store; it says which gateways the program has. The stores are written as SQL.
"""

import atexit
import json
import pathlib
import signal
import sqlite3
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
PROGRAM, FORMAT, FOLDER = pathlib.Path(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
LISTEN = ["--listen", "/ip4/127.0.0.1/tcp/0"]
CLAIM = "0xaeC963aC8DF14a807ab97715c564b7bD3973503A"


class Node:
    def __init__(self, name):
        self.name, self.home = name, FOLDER / name
        if not self.home.exists():
            self.home.mkdir(mode=0o700, parents=True)
            example = subprocess.check_output([PROGRAM, "config", "example"], text=True)
            example = example.replace("rsa_bits = 3072", "rsa_bits = 2048")
            (self.home / "pimesh.toml").write_text(example)
        command = [PROGRAM, "--home", self.home, "run", "--name", name, "--no-mdns", *LISTEN]
        log = open(FOLDER / f"{name}.log", "a")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        atexit.register(self.process.kill)
        assert self.process.stdout.readline().startswith("ready"), name

    def do(self, *words, check=True):
        command = [PROGRAM, "--home", self.home, *words]
        done = subprocess.run(command, text=True, capture_output=True, timeout=60)
        assert done.returncode == 0 or not check, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def ask(self, *words):
        return json.loads(self.do("--json", *words))

    def lines(self, *words):
        return [json.loads(line) for line in self.do("--json", *words).splitlines()]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0
        store = sqlite3.connect(self.home / "pimesh.db")
        version, = store.execute("PRAGMA user_version").fetchone()
        assert version == FORMAT
        with open(self.home / "pimesh.db.sql", "w") as file:
            print("PRAGMA application_id = 1886221160;", file=file)
            print(f"PRAGMA user_version = {version};", file=file)
            file.writelines(f"{line}\n" for line in store.iterdump())


class Foreign:
    """A client of `tests/foreign/python`."""

    def __init__(self, script, *args):
        command = [sys.executable, "-u", HERE.parent / "foreign/python" / script, *args]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        atexit.register(self.process.kill)

    def tell(self, order, event):
        print(json.dumps(order), file=self.process.stdin, flush=True)
        return self.wait(event)

    def wait(self, event):
        while line := self.process.stdout.readline():
            found = json.loads(line)
            assert found["event"] not in ("error", "refused", "broken"), line
            if found["event"] == event:
                return found
        raise EOFError(event)


def gateway(node, name):
    """Opens a gateway on a free port, and returns where."""
    node.do("gateway", "enable", name, "--listen", "127.0.0.1:0")
    for _ in range(100):
        found = [g for g in node.lines("gateway", "list") if g.get("gateway", g.get("name")) == name]
        if found and found[0].get("addresses"):
            return found[0]["addresses"][0]
    raise TimeoutError(found)


def p2sn(one):
    """A P2SN program writes, and something waits for it; the node writes to a P2SN server."""
    host, port = gateway(one, "p2sn").split(":")
    peer = Foreign("p2sn_peer.py")
    peer.tell({"do": "connect", "to": [host, int(port)]}, "connected")
    peer.tell({"do": "ask", "text": "hello from P2SN"}, "reply")
    client = next(row for row in one.lines("inbox") if row["text"] == "hello from P2SN")
    one.do("send", client["peer_id"], "for the P2SN program")
    server = Foreign("p2sn_peer.py").tell({"do": "serve"}, "serving")
    one.do("p2sn", "send", f"127.0.0.1:{server['port']}", "to a P2SN server")
    peer.process.kill()


def syft(one, two):
    """Agents at both nodes; returns what is left to do once the other node is away."""
    urls = [f"http://{gateway(node, 'syft')}" for node in (one, two)]
    agents = Foreign("syft_agent.py")
    agents.wait("ready")
    for number, (user, url) in enumerate([("alice", 0), ("bob", 0), ("carol", 1)], 1):
        seed = f"{number:02x}" * 32
        agents.tell({"do": "new", "user": user, "url": urls[url], "seed": seed}, "made")
        agents.tell({"do": "enter", "as": user}, "connected")
    describe = {"do": "http", "as": "bob", "method": "POST", "path": "/user/descriptions",
                "body": ["opens doors"], "bearer": True}
    agents.tell(describe, "answer")
    while not any(user["name"] == "carol" for user in one.lines("gateway", "syft", "users")):
        pass
    agents.tell({"do": "send", "as": "alice", "to": "bob", "text": "bob reads this"}, "sent")
    agents.wait("message")
    agents.tell({"do": "send", "as": "alice", "to": "carol", "text": "carol reads this"}, "sent")
    agents.wait("message")
    agents.tell({"do": "send", "as": "carol", "to": "pi-1", "text": "from carol"}, "sent")
    while not any(row["text"] == "from carol" for row in one.lines("inbox")):
        pass
    logout = {"do": "http", "method": "POST", "path": "/auth/logout", "bearer": True}
    agents.tell({**logout, "as": "bob"}, "answer")
    agents.tell({"do": "send", "as": "alice", "to": "bob", "text": "for bob"}, "sent")
    agents.tell({"do": "send", "as": "alice", "to": "broadcast", "text": "for all"}, "sent")
    one.do("send", "bob", "for bob, from the node")

    def later():
        agents.tell({"do": "send", "as": "alice", "to": "carol", "text": "for carol"}, "sent")
        one.do("send", "carol", "for carol, from the node")
        while len(one.lines("outbox")) < 2:
            pass
        agents.process.kill()

    return later


def main():
    one, two, three = (Node(name) for name in ("pi-1", "pi-2", "pi-3"))
    for node in (two, three):
        node.do("join", one.ask("invite")["ticket"])
    for name in ("pi-2", "pi-3"):
        one.do("send", "--wait", name, f"{name} has this\nüber zwei Zeilen")
    two.do("send", "--wait", "pi-1", "from pi-2")
    three.do("send", "--wait", "pi-1", "from pi-3")
    one.do("send", "--via", "p2sn", "pi-2", "by P2SN")
    one.do("int", "42")
    one.do("invite", "--name", "garden", "--index", "-9", "--expires", "1h",
           *(["--vouch", "5..7"] if FORMAT >= 2 else []))
    one.do("peers", "remove", "pi-3", "--yes")
    three.process.kill()
    if FORMAT >= 3:
        p2sn(one)
        one.do("gateway", "iid", "allow", "7", CLAIM)
        one.do("gateway", "enable", "iid", "--listen", "127.0.0.1:0")
    later = syft(one, two) if FORMAT >= 4 else lambda: None
    two.stop()
    while any(peer["state"] == "up" for peer in one.lines("peers")):
        pass
    one.do("send", "pi-2", "it waits")
    later()
    one.stop()


main()
