"""A relay of the shape of the published APIntIO servers, on the same library: the bar for figures.

Argument: a file with lines `index:address`. Prints the port it listens at. Signs clients in with
EIP-191, then sends what each sends, with its index, to every connection of that index.
"""

import asyncio
import struct
import sys
import time
import uuid

import websockets
from eth_account import Account
from eth_account.messages import encode_defunct

allowed = {}
listeners = {}


async def serve(socket):
    challenge = str(uuid.uuid4())
    await socket.send(f"SIGN:{challenge}")
    given, address, signature = (await socket.recv()).split("|")
    signer = Account.recover_message(encode_defunct(text=given), signature=signature)
    if given != challenge or signer != address or address not in allowed:
        return
    index = allowed[address]
    await socket.send(f"HELLO {index} {address}")
    of_index = listeners.setdefault(index, set())
    of_index.add(socket)
    try:
        async for message in socket:
            if not isinstance(message, bytes) or len(message) > 16:
                return
            if len(message) in (4, 8):
                date = int(time.time() * 1000)
                value = message[-4:]
                message = struct.pack("<i", index) + value + struct.pack("<Q", date)
            elif len(message) in (12, 16):
                message = struct.pack("<i", index) + message[-12:]
            else:
                continue
            for listener in of_index:
                await listener.send(message)
    except websockets.ConnectionClosed:
        pass
    finally:
        of_index.discard(socket)


async def main(claims):
    with open(claims) as lines:
        for line in lines:
            index, address = line.strip().split(":")
            allowed[address] = int(index)
    async with websockets.serve(serve, "127.0.0.1", 0, compression=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().create_future()


asyncio.run(main(sys.argv[1]))
