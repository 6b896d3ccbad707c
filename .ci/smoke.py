"""gRPC requests to a running demo, with Google's own client: python smoke.py HOST:PORT

Everything is learned by reflection, as a stranger would. Prints a line a check; the first that fails ends it.
"""

import sys
import threading

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

PATIENCE = 20  # seconds that a call may take on a busy machine


class Client:
    """Calls by name, with requests and answers as Python objects."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address)
        self.reflection = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = DescriptorPool(self.reflection)

    def call(self, name, request):
        """Returns (callable, request message or iterator, reader of an answer)."""
        service, method = name.rsplit("/", 1)
        described = self.pool.FindServiceByName(service).FindMethodByName(method)
        asked = GetMessageClass(described.input_type)

        def message(value):
            return json_format.ParseDict(value, asked(), descriptor_pool=self.pool)

        kind = ("stream" if described.client_streaming else "unary") + (
            "_stream" if described.server_streaming else "_unary"
        )
        start = getattr(self.channel, kind)(
            f"/{name}",
            request_serializer=lambda value: message(value).SerializeToString(),
            response_deserializer=GetMessageClass(described.output_type).FromString,
        )
        return start, request

    def run(self, name, request, **options):
        start, request = self.call(name, request)
        return start(request, timeout=options.pop("timeout", PATIENCE), **options)


def plain(message):
    return json_format.MessageToDict(message)


def check(claim, holds, seen=None):
    if not holds:
        sys.exit(f"FAILED: {claim}: {seen!r}")
    print(f"  ok: {claim}")


def failure(call):
    try:
        result = call()
        if not hasattr(result, "DESCRIPTOR"):
            list(result)
    except grpc.RpcError as error:
        return error
    sys.exit("FAILED: a call that should fail did not")


def main(address):
    client = Client(address)

    services = set(client.reflection.get_services())
    wanted = {"library.v1.Library", "library.v1.ReadingRoom", "library.v1.Probe"}
    check("reflection lists the services", wanted <= services, services)

    book = plain(client.run("library.v1.Library/GetBook", {"name": "shelves/1/books/7"}))
    check("a unary call", book["title"] == "Dune", book)

    events = [plain(e) for e in client.run("library.v1.Library/WatchBooks", {"parent": "shelves/2"})]
    counted = [str(number) for number in range(1, len(events) + 1)]
    check("a server stream", len(events) >= 3 and [e["number"] for e in events] == counted, events)

    books = [{"parent": "shelves/3", "book": {"title": "Kim"}}, {"book": {"title": ""}}]
    reply = plain(client.run("library.v1.Library/ImportBooks", iter(books)))
    check("a client stream", len(reply["names"]) == 1 and reply["refused"][0]["field"] == "books[1].title", reply)

    heard = threading.Semaphore(0)

    def remarks():
        yield {"room": "smoke", "author": "ci", "text": "one"}
        # The second remark waits for the answer to the first: both directions are open at once.
        if not heard.acquire(timeout=PATIENCE):
            sys.exit("FAILED: the answer to the first remark did not come while the call was open")
        yield {"author": "ci", "text": "two"}

    said = []
    for remark in client.run("library.v1.ReadingRoom/Chat", remarks()):
        said.append(plain(remark))
        heard.release()
    check("a call that talks both ways", [r["text"] for r in said] == ["one", "two"], said)

    error = failure(lambda: client.run("library.v1.Library/GetBook", {"name": "shelves/1/books/99"}))
    check("an error's code", error.code() == grpc.StatusCode.NOT_FOUND, error)
    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    info = error_details_pb2.ErrorInfo()
    status_pb2.Status.FromString(details).details[0].Unpack(info)
    check("an error's details", info.reason == "NOT_FOUND" and info.domain == "library.example", info)

    later = {"after": 2, "status": {"code": 14, "message": "gone: ü"}}
    error = failure(lambda: client.run("library.v1.Probe/FailLater", later))
    check("a stream that breaks", (error.code().name, error.details()) == ("UNAVAILABLE", "gone: ü"), error)

    error = failure(lambda: client.run("library.v1.Probe/Wait", {"delay": "5s"}, timeout=0.3))
    check("a deadline", error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error)

    start, request = client.call(
        "library.v1.Probe/Metadata", {"initial": {"x-first": "hello"}, "trailing": {"x-last-bin": "AAEC"}}
    )
    sent = (("x-reader", "ci"), ("x-raw-bin", b"\x00\xff"))
    answer, call = start.with_call(request, timeout=PATIENCE, metadata=sent)
    received = {entry["name"]: entry["value"] for entry in plain(answer)["received"]}
    check("metadata goes in", (received["x-reader"], received["x-raw-bin"]) == ("ci", "AP8="), received)
    initial, trailing = dict(call.initial_metadata()), dict(call.trailing_metadata())
    check("metadata comes out", initial["x-first"] == "hello", initial)
    check("trailers come out", trailing["x-last-bin"] == b"\x00\x01\x02", trailing)

    zipped = client.run(
        "library.v1.Library/GetBook", {"name": "shelves/1/books/1"}, compression=grpc.Compression.Gzip
    )
    check("a compressed call", plain(zipped)["title"] == "Pride and Prejudice", zipped)

    client.channel.close()


if __name__ == "__main__":
    main(sys.argv[1])
