"""A client of an IID gateway, on the libraries that the published Python clients use.

Arguments: the server's URL, what to sign in with, and for wss:// a file with the certificate to
believe. To sign in with is an Ethereum private key in hexadecimal; `KEY+MASTER`, with a letter that
the second key signs for the first; `rsa`, a key made for this run (its address is told first, and an
order begins the sign-in); or `password:TEXT`. Orders come as lines of JSON
on standard input: {"send": HEX}, {"text": TEXT}, {"flood": COUNT}, {"close": true}. What happens goes
out as lines of JSON: signed_in, integer, text, closed.
"""

import asyncio
import base64
import json
import ssl
import struct
import sys

import rsa
import websockets
from eth_account import Account
from eth_account.messages import encode_defunct


def tell(event, **more):
    print(json.dumps({"event": event, **more}), flush=True)


def sign(key, text):
    """As the published clients do: the signature has no 0x with current libraries."""
    return Account.from_key(key).sign_message(encode_defunct(text=text)).signature.hex()


def base58(data):
    digits = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = digits[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


def rsa_address(key):
    def part(number):
        return base64.b64encode(number.to_bytes((number.bit_length() + 7) // 8, "big")).decode()

    xml = f"<RSAKeyValue><Modulus>{part(key.n)}</Modulus><Exponent>{part(key.e)}</Exponent></RSAKeyValue>"
    return "pBit4096B58Pkcs1SHA256" + base58(xml.encode())


def answer(greeting, secret):
    challenge = greeting.split(":", 1)[1]
    if isinstance(secret, rsa.PrivateKey):
        signature = base58(rsa.sign(challenge.encode(), secret, "SHA-256"))
        return f"{challenge}|{rsa_address(secret)}|{signature}"
    if secret.startswith("password:"):
        return "SHA256:" + secret.split(":", 1)[1]
    key, _, master = secret.partition("+")
    address = Account.from_key(key).address
    parts = [challenge, address, sign(key, challenge)]
    if master:
        # Unity joins the parts of a letter with a bar and a line feed.
        letter = [Account.from_key(master).address, sign(master, address)]
        return "|\n".join(parts + letter)
    return "|".join(parts)


async def listen(socket, key):
    async for message in socket:
        if isinstance(message, bytes):
            if len(message) == 16:
                index, value, date = struct.unpack("<iiQ", message)
                tell("integer", index=index, value=value, date=date, hex=message.hex())
        elif message.startswith("SIGN:"):
            await socket.send(answer(message, key))
        elif message.startswith("HELLO "):
            tell("signed_in", hello=message)
        else:
            tell("text", text=message)


async def obey(socket):
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    while line := await reader.readline():
        order = json.loads(line)
        if "send" in order:
            await socket.send(bytes.fromhex(order["send"]))
        elif "text" in order:
            await socket.send(order["text"])
        elif "flood" in order:
            for value in range(order["flood"]):
                await socket.send(struct.pack("<i", value))
            tell("flooded")
        elif "close" in order:
            await socket.close()


async def main(url, key, certificate=None):
    trust = ssl.create_default_context(cafile=certificate) if certificate else None
    if key == "rsa":
        key = rsa.newkeys(1024)[1]
        tell("address", address=rsa_address(key))
        sys.stdin.readline()
    async with websockets.connect(url, ssl=trust) as socket:
        obeying = asyncio.ensure_future(obey(socket))
        try:
            await listen(socket, key)
        except websockets.ConnectionClosed:
            pass
        obeying.cancel()
        tell("closed", code=socket.close_code)


try:
    asyncio.run(main(*sys.argv[1:]))
except (OSError, websockets.WebSocketException) as error:
    tell("closed", code=None, reason=str(error))
