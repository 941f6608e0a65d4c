"""A P2SN program written on the `rsa` package, with the habits of the published one.

It shares no code with pimesh. What it does on the wire is in proto-specs/p2sn.md: sections 2 to 4,
from the client's side and the server's, in the words of the program that the standard describes.

Orders come on stdin, one JSON object a line; what happens goes to stdout, one JSON object a line.

    {"do": "connect", "to": [HOST, PORT]}    exchange keys        {"event": "connected", ...}
       with "check": BYTES or "pem": TEXT    in the place of the right one
       with "from": ADDRESS                  from this address of loopback
    {"do": "ask", "text": TEXT}              one message          {"event": "reply", "text": TEXT}
    {"do": "ask", "hex": DIGITS}             one of bytes
    {"do": "raw", "hex": BYTES}              bytes as they are    {"event": "raw", "hex": ANSWER}
    {"do": "hang", "to": [HOST, PORT], "count": N}  N connections that never finish
    {"do": "close"}
    {"do": "serve", "port": PORT}            become a server      {"event": "serving", "port": PORT}
"""

import argparse
import base64
import hashlib
import json
import os
import socket
import sys
import threading

import rsa

PUBKEY, KEYCHECK, ERRORKEY = b"P2SN:PUBKEY", b"P2SN:KEYCHECK", b"P2SN:ERRORKEY"
EOT = b"\x04"
CLIENT_TIMEOUT_S = 3.0


def tell(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


def load_or_make_key(path, bits):
    if path and os.path.exists(path):
        with open(path, "rb") as file:
            private = rsa.PrivateKey.load_pkcs1(file.read())
        return rsa.PublicKey(private.n, private.e), private
    public, private = rsa.newkeys(bits, accurate=True)
    if path:
        with open(path, "wb") as file:
            file.write(private.save_pkcs1())
    return public, private


def fingerprint(public):
    return hashlib.sha256(public.save_pkcs1("DER")).hexdigest()


def open_socket(host, port, source=None):
    source = (source, 0) if source else None
    return socket.create_connection((host, port), CLIENT_TIMEOUT_S, source)


class Client:
    def __init__(self, keys, bare):
        self.public, self.private = keys
        # Clients up to 0.3.0-beta.1 end a message with nothing.
        self.message_end = b"" if bare else EOT
        self.socket = None

    def connect(self, host, port, check=None, pem=None, source=None):
        self.socket = open_socket(host, port, source)
        self.socket.sendall(PUBKEY + EOT)
        self.server = rsa.PublicKey.load_pkcs1(self.receive())
        right = base64.b64encode(rsa.encrypt(KEYCHECK, self.server)) + EOT
        self.socket.sendall(right if check is None else bytes.fromhex(check))
        asked = self.receive()
        if asked != PUBKEY:
            return tell("refused", at="key_check", got=asked.decode())
        pem = self.public.save_pkcs1() if pem is None else pem.encode()
        self.socket.sendall(base64.b64encode(pem) + EOT)
        got = self.receive()
        if got in (ERRORKEY, b""):
            return tell("refused", at="key", got=got.decode())
        if rsa.decrypt(base64.b64decode(got), self.private) != KEYCHECK:
            return tell("refused", at="server_check", got="")
        tell("connected", fingerprint=fingerprint(self.public), server=fingerprint(self.server))

    def ask(self, message):
        block = base64.b64encode(rsa.encrypt(message, self.server))
        try:
            self.socket.sendall(block + self.message_end)
            got = self.receive()
        except OSError as error:
            return tell("broken", why=str(error))
        if not got:
            return tell("broken", why="no reply")
        reply = rsa.decrypt(base64.b64decode(got), self.private)
        tell("reply", text=reply.decode(errors="replace"), hex=reply.hex())

    def raw(self, data):
        try:
            self.socket.sendall(data)
            tell("raw", hex=self.receive().hex())
        except OSError as error:
            tell("raw", hex="", why=str(error))

    def receive(self):
        """Reads pieces of 1024 bytes until one has an end in it, and throws away what follows."""
        message = b""
        while True:
            try:
                piece = self.socket.recv(1024)
            except socket.timeout:
                return message
            if not piece:
                return message
            message += piece.split(EOT)[0]
            if EOT in piece:
                return message


class Server:
    def __init__(self, keys):
        self.public, self.private = keys
        # Of each address the last key, as the published server keeps them.
        self.clients = {}

    def serve(self, port):
        listener = socket.create_server(("127.0.0.1", port))
        tell("serving", port=listener.getsockname()[1], fingerprint=fingerprint(self.public))
        while True:
            connection, address = listener.accept()
            threading.Thread(target=self.talk, args=(connection, address[0]), daemon=True).start()

    def talk(self, connection, address):
        while True:
            frame = connection.recv(64_000).split(EOT)[0]
            if not frame:
                return connection.close()
            if frame == PUBKEY:
                if not self.exchange(connection, address):
                    return connection.close()
                continue
            text = rsa.decrypt(base64.b64decode(frame), self.private)
            tell("asked", text=text.decode())
            answer = b'Hi! You sent me "' + text + b'"'
            connection.sendall(self.sealed(address, answer))

    def exchange(self, connection, address):
        connection.sendall(self.public.save_pkcs1() + EOT)
        try:
            check = base64.b64decode(connection.recv(64_000).split(EOT)[0])
            if rsa.decrypt(check, self.private) != KEYCHECK:
                raise ValueError("no key check")
            connection.sendall(PUBKEY + EOT)
            pem = base64.b64decode(connection.recv(64_000).split(EOT)[0])
            self.clients[address] = rsa.PublicKey.load_pkcs1(pem)
        except (ValueError, rsa.DecryptionError):
            connection.sendall(ERRORKEY + EOT)
            return False
        connection.sendall(self.sealed(address, KEYCHECK))
        return True

    def sealed(self, address, text):
        return base64.b64encode(rsa.encrypt(text, self.clients[address])) + EOT


def hang(host, port, count):
    """Opens connections that begin an exchange and never go on, nor read."""
    held, refused = [], 0
    for number in range(count):
        try:
            connection = open_socket(host, port, f"127.0.1.{number // 10 + 1}")
            connection.sendall(PUBKEY + EOT)
            held.append(connection)
        except OSError:
            refused += 1
    tell("hanging", count=len(held), refused=refused)
    return held


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--key", help="file with the private key; made if it is not there")
    parser.add_argument("--bits", type=int, default=2048)
    parser.add_argument("--bare", action="store_true", help="end messages with nothing")
    options = parser.parse_args()
    keys = load_or_make_key(options.key, options.bits)
    client = Client(keys, options.bare)
    held = []
    for line in sys.stdin:
        order = json.loads(line)
        what = order["do"]
        try:
            if what == "connect":
                client.connect(*order["to"], order.get("check"), order.get("pem"), order.get("from"))
            elif what == "ask":
                is_hex = "hex" in order
                client.ask(bytes.fromhex(order["hex"]) if is_hex else order["text"].encode())
            elif what == "raw":
                client.raw(bytes.fromhex(order["hex"]))
            elif what == "hang":
                held += hang(*order["to"], order["count"])
            elif what == "close":
                client.socket.close()
                tell("closed")
            elif what == "serve":
                port = order.get("port", 0)
                threading.Thread(target=Server(keys).serve, args=(port,), daemon=True).start()
        except (OSError, ValueError, rsa.DecryptionError) as error:
            tell("broken", why=str(error))


if __name__ == "__main__":
    main()
