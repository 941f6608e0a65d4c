"""A Syft agent's client, written anew on the libraries of the original (aiohttp, websockets,
cryptography, PyNaCl), for the tests of pimesh. It shares no code with pimesh. With `language`, a client
signs, verifies and introduces itself as the clients in Go or in JavaScript (Electron) do.

It takes orders on stdin and tells what happens on stdout, in lines of JSON. An order names a
client with `as`; one process plays as many clients as it is told to.
"""

import asyncio
import base64
import json
import ssl
import sys
import time
import urllib.parse
from datetime import datetime, timezone

import aiohttp
import nacl.bindings
import nacl.public
import nacl.utils
import websockets
import websockets.http11
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FRAME_BYTES_MAX = 10 * 1024 * 1024


def tell(event, **more):
    print(json.dumps({"event": event, **more}), flush=True)


def b64(data):
    return base64.b64encode(data).decode()


def raw(text):
    return base64.b64decode(text)


def nanos(text):
    """What the Python client signs: a time that went through a float."""
    return int(datetime.fromisoformat(text).timestamp() * 1e9)


def exact_nanos(text, digits):
    """What the clients in Go (nine digits) and JavaScript (three, the others cut off) sign."""
    seconds, _, rest = text.removesuffix("Z").removesuffix("+00:00").partition(".")
    whole = int(datetime.fromisoformat(seconds).replace(tzinfo=timezone.utc).timestamp())
    return whole * 10**9 + int(rest[:digits].ljust(9, "0") or 0)


def exact_text(digits):
    """What they write: Go without zeros at the end, JavaScript always three digits."""
    now = time.time_ns()
    text = datetime.fromtimestamp(now // 10**9, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.")
    fraction = f"{now % 10**9:09}"[:digits]
    return (text + (fraction.rstrip("0") if digits == 9 else fraction)).removesuffix(".") + "Z"


# For each language: how a time is written, which number is signed, and how the program calls itself
# (`None`: not at all).
LANGUAGES = {
    "python": (lambda: datetime.now(timezone.utc).isoformat(), nanos, websockets.http11.USER_AGENT),
    "go": (lambda: exact_text(9), lambda text: exact_nanos(text, 9), "Go-http-client/1.1"),
    "electron": (lambda: exact_text(3), lambda text: exact_nanos(text, 3), None),
}


def seal(text, public_key):
    box_key = nacl.public.PublicKey(
        nacl.bindings.crypto_sign_ed25519_pk_to_curve25519(raw(public_key))
    )
    ephemeral = nacl.public.PrivateKey.generate()
    key = nacl.utils.random(32)
    key_nonce = nacl.utils.random(24)
    data_nonce = nacl.utils.random(12)
    sealed_key = nacl.public.Box(ephemeral, box_key).encrypt(key, key_nonce).ciphertext
    return json.dumps(
        {
            "ephemeral_public_key": b64(bytes(ephemeral.public_key)),
            "key_nonce": b64(key_nonce),
            "encrypted_key": b64(sealed_key),
            "data_nonce": b64(data_nonce),
            "encrypted_content": b64(AESGCM(key).encrypt(data_nonce, text.encode(), None)),
        }
    )


def unseal(content, seed, public_key):
    envelope = json.loads(content)
    private = nacl.bindings.crypto_sign_ed25519_sk_to_curve25519(seed + public_key)
    box = nacl.public.Box(
        nacl.public.PrivateKey(private),
        nacl.public.PublicKey(raw(envelope["ephemeral_public_key"])),
    )
    key = box.decrypt(raw(envelope["encrypted_key"]), raw(envelope["key_nonce"]))
    data = raw(envelope["encrypted_content"])
    return AESGCM(key).decrypt(raw(envelope["data_nonce"]), data, None).decode()


class Client:
    def __init__(self, name, user, url, seed, http, insecure, trust=None, language="python"):
        self.name = name
        self.written, self.signed, self.agent = LANGUAGES[language]
        self.user = user
        self.url = url
        self.http = http
        self.ssl = None
        if insecure:
            self.ssl = ssl.create_default_context()
            self.ssl.check_hostname = False
            self.ssl.verify_mode = ssl.CERT_NONE
        elif url.startswith("https:"):
            self.ssl = ssl.create_default_context(cafile=trust)
        self.key = Ed25519PrivateKey.from_private_bytes(seed)
        self.seed = seed
        self.public = self.key.public_key().public_bytes_raw()
        self.token = None
        self.flood = None
        self.keys = {}
        self.socket = None
        self.reader = None
        self.serves = False

    def tell(self, event, **more):
        tell(event, **{"as": self.name}, **more)

    async def request(self, method, path, body=None, headers=None):
        data = body if isinstance(body, (str, bytes, type(None))) else json.dumps(body)
        # As the published clients do; the library would call it plain text.
        headers = {"Content-Type": "application/json"} | (headers or {})
        async with self.http.request(
            method, self.url + path, data=data, headers=headers, ssl=self.ssl or False
        ) as answer:
            return answer.status, await answer.text()

    async def register(self):
        return await self.request(
            "POST",
            "/auth/register",
            {"user_id": self.user, "username": self.user, "public_key": b64(self.public)},
        )

    async def login(self):
        status, text = await self.request("POST", "/auth/login", {"user_id": self.user})
        if status != 200:
            return status, text
        challenge = json.loads(text)["challenge"]
        signature = b64(self.key.sign(challenge.encode()))
        status, text = await self.request(
            "POST", "/auth/login?verify=true", {"user_id": self.user, "signature": signature}
        )
        if status == 200:
            self.token = json.loads(text)["token"]
        return status, text

    async def connect(self, **options):
        url = self.url.replace("http", "ws", 1) + "/ws?token=" + (self.token or "")
        self.socket = await websockets.connect(
            url, max_size=FRAME_BYTES_MAX, ping_interval=20, ping_timeout=10, ssl=self.ssl,
            user_agent_header=self.agent, **options
        )
        self.reader = asyncio.create_task(self.read(self.socket))

    async def read(self, socket):
        try:
            async for frame in socket:
                await self.receive(frame)
        except websockets.ConnectionClosed:
            pass
        self.tell("closed", code=socket.close_code, reason=socket.close_reason)

    async def key_of(self, user):
        if user not in self.keys:
            path = "/auth/users/" + urllib.parse.quote(user, safe="")
            status, text = await self.request("GET", path)
            if status != 200:
                return None
            self.keys[user] = json.loads(text)["public_key"]
        return self.keys[user]

    async def receive(self, frame):
        message = json.loads(frame)
        content = message["content"]
        status = message.get("status")
        if message.get("is_forward_message") and self.serves:
            await self.serve(message)
            return
        if message["from"] == "system" or message.get("is_forward_message"):
            self.tell("system", frame=message)
            return
        if message.get("signature"):
            key = await self.key_of(message["from"])
            trust = self.verify(message, key) if key else "unverified"
        else:
            trust = "unsigned"
        if status in (None, "", "pending"):
            status = trust
        if message["to"] == self.user:
            try:
                content = unseal(content, self.seed, self.public)
            except Exception:
                status = "decryption_failed"
        self.tell("message", status=status, text=content, **{"from": message["from"]},
                  to=message["to"], id=message["id"], raw=frame)

    async def serve(self, message):
        """Answers a forwarded request as the Go client does: to whom it is from, unsigned."""
        inner = json.loads(json.loads(message["content"])["message"])
        if inner["type"] == "forward":
            answer = {"type": "forward_response", "message": f"{self.name} knows {inner['message']}"}
        else:
            text = f"{inner['type']} {inner['filename']}: {inner['content']} {inner.get('metadata')}"
            kind = "error" if inner["filename"] == "refused" else "success"
            answer = {"type": f"register_document_{kind}", "message": text}
        frame = {
            "from": self.user,
            "to": message["from"],
            "timestamp": datetime.now(timezone.utc).isoformat(),
            "content": json.dumps({"type": "forward", "message": json.dumps(answer)}),
            "is_forward_message": True,
        }
        await self.socket.send(json.dumps(frame))

    def verify(self, message, key):
        signed = self.signed(message["timestamp"])
        text = f"{message['from']}|{message['to']}|{signed}|{message['content']}"
        try:
            Ed25519PublicKey.from_public_bytes(raw(key)).verify(
                raw(message["signature"]), text.encode()
            )
            return "verified"
        except InvalidSignature:
            return "invalid_signature"

    def frame(self, to, content, changes):
        written = self.written()
        text = f"{self.user}|{to}|{self.signed(written)}|{content}"
        frame = {
            "from": self.user,
            "to": to,
            "content": content,
            "is_forward_message": False,
            "timestamp": written,
            "signature": b64(self.key.sign(text.encode())),
        }
        frame.update(changes)
        return {name: value for name, value in frame.items() if value is not None}

    async def send(self, to, text, changes=None):
        if to == "broadcast":
            content = text
        else:
            key = await self.key_of(to)
            if key is None:
                self.tell("no_key", to=to)
                return None
            content = seal(text, key)
        frame = json.dumps(self.frame(to, content, changes or {}))
        await self.socket.send(frame)
        return frame


class Agent:
    def __init__(self):
        self.clients = {}
        self.http = None

    async def run(self):
        self.http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64))
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=16 * 1024 * 1024)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        tell("ready")
        while line := await reader.readline():
            order = json.loads(line)
            try:
                await getattr(self, "do_" + order.pop("do"))(**order)
            except Exception as error:
                tell("error", order=line.decode(), error=repr(error))
        await self.http.close()

    async def do_new(self, user, url, seed, insecure=False, trust=None, language="python", **name):
        name = name.get("as", user)
        seed = bytes.fromhex(seed)
        self.clients[name] = Client(name, user, url, seed, self.http, insecure, trust, language)
        tell("made", **{"as": name}, key=b64(self.clients[name].public))

    async def do_register(self, **name):
        status, text = await self.clients[name["as"]].register()
        tell("answer", status=status, text=text)

    async def do_login(self, **name):
        status, text = await self.clients[name["as"]].login()
        tell("answer", status=status, text=text)

    async def do_connect(self, **name):
        client = self.clients[name["as"]]
        try:
            await client.connect()
            tell("connected")
        except websockets.InvalidStatus as error:
            tell("refused", status=error.response.status_code, text=error.response.body.decode())

    async def do_enter(self, **name):
        """Registers, logs in and connects."""
        client = self.clients[name["as"]]
        await client.register()
        status, text = await client.login()
        if status != 200:
            tell("answer", status=status, text=text)
            return
        await client.connect()
        tell("connected")

    async def do_crowd(self, url, count, seed_base):
        """Enters many users at once: user-0, user-1 and so on."""

        async def one(number):
            name = f"user-{number}"
            seed = (seed_base + number).to_bytes(32, "big")
            client = Client(name, name, url, seed, self.http, False)
            self.clients[name] = client
            status, text = await client.register()
            assert status == 201, text
            status, text = await client.login()
            assert status == 200, text
            await client.connect()

        for first in range(0, count, 50):
            await asyncio.gather(*(one(n) for n in range(first, min(first + 50, count))))
        tell("connected")

    async def do_send(self, to, text, changes=None, **name):
        frame = await self.clients[name["as"]].send(to, text, changes)
        tell("sent", frame=frame)

    async def do_send_many(self, to, count, prefix, pause=0, **name):
        client = self.clients[name["as"]]
        for number in range(count):
            await client.send(to, f"{prefix} {number}")
            if pause:
                await asyncio.sleep(pause)
        tell("sent_many", count=count)

    async def do_raw(self, text, **name):
        await self.clients[name["as"]].socket.send(text)
        tell("sent", frame=None)

    async def do_big(self, size, **name):
        await self.clients[name["as"]].socket.send("x" * size)
        tell("sent", frame=None)

    async def do_ping(self, **name):
        loop = asyncio.get_running_loop()
        start = loop.time()
        await asyncio.wait_for(await self.clients[name["as"]].socket.ping(), 20)
        tell("pong", seconds=loop.time() - start)

    async def do_deaf(self, **name):
        """Connects and never reads."""
        client = self.clients[name["as"]]
        host, port = client.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port), limit=1024)
        writer.transport.pause_reading()
        key = b64(nacl.utils.random(16))
        writer.write(
            (
                f"GET /ws?token={client.token} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
                f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
                "Sec-WebSocket-Version: 13\r\n\r\n"
            ).encode()
        )
        await writer.drain()
        client.deaf = writer
        tell("connected")

    async def do_http(self, method, path, body=None, headers=None, bearer=False, **name):
        client = self.clients[name["as"]]
        headers = dict(headers or {})
        if bearer:
            headers["Authorization"] = "Bearer " + (client.token or "")
        try:
            status, text = await client.request(method, path, body, headers)
        except aiohttp.ClientConnectorCertificateError:
            status, text = 0, "the certificate is not trusted"
        tell("answer", status=status, text=text)

    async def do_serve(self, **name):
        """From now on answers forwarded requests."""
        self.clients[name["as"]].serves = True
        tell("serves")

    async def do_ask_many(self, count, **name):
        """Puts so many questions to the user's own agent at once."""
        client = self.clients[name["as"]]
        headers = {"Authorization": "Bearer " + client.token}

        async def ask(number):
            body = {"type": "forward", "query": f"question {number}"}
            return await client.request("POST", "/direct-message/", body, headers)

        answers = await asyncio.gather(*(ask(number) for number in range(count)))
        tell("answers", answers=answers)

    async def do_flood(self, method, path, body=None, **name):
        """Makes one request over and over, on eight connections, until it is told to stop. Tells what came
        back once each of the eight was refused: then no answer to an earlier request is still on its way."""
        client = self.clients[name["as"]]
        statuses = {}

        async def flood(refused):
            while True:
                status, _ = await client.request(method, path, body)
                statuses[status] = statuses.get(status, 0) + 1
                if status == 429:
                    refused.set()

        refused = [asyncio.Event() for _ in range(8)]
        client.flood = [asyncio.create_task(flood(event)) for event in refused]
        await asyncio.wait_for(asyncio.gather(*(event.wait() for event in refused)), 60)
        tell("refused", statuses=statuses)

    async def do_calm(self, **name):
        for task in self.clients[name["as"]].flood:
            task.cancel()
        tell("calm")

    async def do_challenge(self, **name):
        """Logs in step by step: returns a challenge and the signature over it."""
        client = self.clients[name["as"]]
        _, text = await client.request("POST", "/auth/login", {"user_id": client.user})
        challenge = json.loads(text)["challenge"]
        tell("challenge", challenge=challenge, signature=b64(client.key.sign(challenge.encode())))

    async def do_token(self, token=None, **name):
        client = self.clients[name["as"]]
        if token is not None:
            client.token = token
        tell("token", token=client.token)

    async def do_close(self, **name):
        await self.clients[name["as"]].socket.close()
        tell("gone")

    async def do_cut(self, **name):
        """Drops the connection without a word."""
        self.clients[name["as"]].socket.transport.abort()
        tell("gone")

    async def do_stay(self, **name):
        """Reconnects as the original does: at once, then every few seconds, for ever."""
        client = self.clients[name["as"]]

        async def stay():
            while True:
                await client.reader
                while True:
                    try:
                        await client.connect()
                        client.tell("reconnected")
                        break
                    except (OSError, websockets.WebSocketException):
                        await asyncio.sleep(0.5)

        client.stay = asyncio.create_task(stay())
        tell("staying")


asyncio.run(Agent().run())
