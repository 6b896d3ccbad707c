"""WebSockets by Python's `websockets`, to a running demo: python websockets_test.py HOST:PORT

Prints a line a conversation; the first that goes wrong ends it.
"""

import asyncio
import json
import sys

import websockets
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

PATIENCE = 20  # seconds that a conversation may take on a busy machine

JSON = ["sabir.v1.json"]


async def say(socket, value):
    await socket.send(json.dumps(value))


async def hear(socket):
    """The next message; initial metadata is passed over."""
    message = json.loads(await socket.recv())
    return await hear(socket) if "$headers" in message else message


async def closed(socket):
    """The code and the reason with which the socket is closed."""
    try:
        frame = await socket.recv()
    except ConnectionClosed as end:
        return end.rcvd.code, end.rcvd.reason
    raise AssertionError(f"a frame instead of the close: {frame!r}")


def same(got, expected):
    assert got == expected, f"{got!r} instead of {expected!r}"


async def plain(url):
    """Without a subprotocol the messages go alone."""
    async with connect(url + "/library.v1.Probe/Echo") as socket:
        await say(socket, {"int64Value": "9007199254740993"})
        same(await hear(socket), {"int64Value": "9007199254740993"})
        same(await closed(socket), (1000, ""))


async def bidirectional(url):
    """A bidirectional call, half-closed by the client."""
    async with connect(url + "/v1/rooms/python:chat", subprotocols=JSON) as socket:
        same(socket.subprotocol, "sabir.v1.json")
        for text in ("one", "two"):
            await say(socket, {"author": "python", "text": text})
            same((await hear(socket))["text"], text)
        await say(socket, {"$end": {}})
        same((await hear(socket))["$status"]["code"], 0)
        same((await closed(socket))[0], 1000)


async def upload(url):
    """A stream of requests, one answer."""
    async with connect(url + "/v1/shelves/3/books:import", subprotocols=JSON) as socket:
        for title in ("Kim", "Ivanhoe", "Emma"):
            await say(socket, {"title": title})
        await say(socket, {"$end": {}})
        same(len((await hear(socket))["names"]), 3)
        same((await hear(socket))["$status"]["code"], 0)
        same((await closed(socket))[0], 1000)


async def failure(url):
    """A failure has a status and a close code of its own."""
    async with connect(url + "/v1/shelves/1/books/1000", subprotocols=JSON) as socket:
        status = (await hear(socket))["$status"]
        same((status["code"], status["details"][0]["@type"]), (5, "type.googleapis.com/google.rpc.ErrorInfo"))
        same((await closed(socket))[0], 4005)


async def raw(url):
    """Texts and bytes of a raw body, fragments and pings among them."""
    async with connect(url + "/v1/probe:mirror") as socket:
        for message in ("grüße", b"\x00\xff", "", "x" * 100_000):
            await socket.send(message)
            same(await socket.recv(), message)
        await socket.send(["in ", "three ", "parts"])
        await (await socket.ping())
        same(await socket.recv(), "in three parts")


async def refused(url):
    """What is wrong with a handshake is an HTTP status."""
    for path, options, status in (
        ("/v1/nothing", {}, 404),
        ("/library.v1.Probe/Echo", {"subprotocols": ["nobody.v9"]}, 400),
        ("/library.v1.Probe/Echo", {"origin": "https://elsewhere.example"}, 403),
    ):
        try:
            async with connect(url + path, **options):
                raise AssertionError(f"{path} was opened")
        except InvalidStatus as error:
            same(error.response.status_code, status)


async def main(address):
    print("websockets", websockets.__version__)
    for conversation in (plain, bidirectional, upload, failure, raw, refused):
        await asyncio.wait_for(conversation(f"ws://{address}"), PATIENCE)
        print(f"  ok: {conversation.__doc__.splitlines()[0]}", flush=True)


asyncio.run(main(sys.argv[1]))
