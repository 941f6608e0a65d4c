"""A relay of the shape of a Syft server, on a library of the original clients: the bar for figures.

Prints the port it listens at. Lets everybody in and checks no signature; a token is the name of its
user. Reads from each frame for whom it is, and passes it on as it came. Stores nothing.
"""

import asyncio
import base64
import json
import secrets

from aiohttp import WSMsgType, web

sockets = {}


async def register(request):
    await request.json()
    return web.Response(status=201, text="User registered successfully")


async def login(request):
    user = (await request.json())["user_id"]
    if request.query.get("verify") == "true":
        return web.json_response({"token": user})
    challenge = base64.b64encode(secrets.token_bytes(32)).decode()
    return web.json_response({"challenge": challenge})


def receivers(to, sender):
    if to != "broadcast":
        return list(sockets.get(to, ()))
    return [other for user, own in sockets.items() if user != sender for other in own]


async def enter(request):
    user = request.query["token"]
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    sockets.setdefault(user, set()).add(socket)
    try:
        async for frame in socket:
            if frame.type == WSMsgType.TEXT:
                for receiver in receivers(json.loads(frame.data)["to"], user):
                    await receiver.send_str(frame.data)
    finally:
        sockets[user].discard(socket)
    return socket


async def main():
    app = web.Application()
    app.add_routes(
        [
            web.post("/auth/register", register),
            web.post("/auth/login", login),
            web.get("/ws", enter),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.get_running_loop().create_future()


asyncio.run(main())
