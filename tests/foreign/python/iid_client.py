"""A client of an IID gateway, on the libraries that the published Python clients use.

Arguments: the server's URL, an Ethereum private key in hexadecimal, and for wss:// a file with the
certificate to believe. Orders come as lines of JSON
on standard input: {"send": HEX}, {"text": TEXT}, {"flood": COUNT}, {"close": true}. What happens goes
out as lines of JSON: signed_in, integer, text, closed.
"""

import asyncio
import json
import ssl
import struct
import sys

import websockets
from eth_account import Account
from eth_account.messages import encode_defunct


def tell(event, **more):
    print(json.dumps({"event": event, **more}), flush=True)


def answer(greeting, key):
    """As the published clients do: the signature has no 0x with current libraries."""
    challenge = greeting.split(":", 1)[1]
    account = Account.from_key(key)
    signed = account.sign_message(encode_defunct(text=challenge))
    return f"{challenge}|{account.address}|{signed.signature.hex()}"


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
