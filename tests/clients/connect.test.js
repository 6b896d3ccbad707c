// Connect by its official clients, and gRPC and gRPC-Web by the same ones: every kind of method, errors with details,
// metadata, deadlines, cancelling, compression, GET.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { Code, ConnectError, createClient } from "@connectrpc/connect";
import * as node from "@connectrpc/connect-node";
import * as web from "@connectrpc/connect-web";

import { Library, Probe, ReadingRoom, gateway, registry } from "./service.js";

const baseUrl = gateway;
// For the messages within a google.protobuf.Any.
const jsonOptions = { registry };
const gzip = { acceptCompression: [node.compressionGzip], sendCompression: node.compressionGzip };

/** What is spoken, and what the transport can do. */
const transports = [];
for (const httpVersion of ["1.1", "2"]) {
  for (const useBinaryFormat of [true, false]) {
    const codec = useBinaryFormat ? "proto" : "json";
    transports.push({
      name: `connect ${codec} over HTTP/${httpVersion}`,
      transport: node.createConnectTransport({ baseUrl, httpVersion, useBinaryFormat, jsonOptions }),
      uploads: true,
      duplex: httpVersion === "2",
    });
    transports.push({
      name: `connect ${codec} over HTTP/${httpVersion}, gzip`,
      transport: node.createConnectTransport({
        baseUrl,
        httpVersion,
        useBinaryFormat,
        jsonOptions,
        compressMinBytes: 0,
        ...gzip,
      }),
      uploads: true,
      duplex: httpVersion === "2",
    });
  }
  transports.push({
    name: `grpc-web over HTTP/${httpVersion}`,
    transport: node.createGrpcWebTransport({ baseUrl, httpVersion }),
    uploads: true,
    duplex: httpVersion === "2",
  });
  transports.push({
    name: `grpc-web over HTTP/${httpVersion}, gzip`,
    transport: node.createGrpcWebTransport({ baseUrl, httpVersion, compressMinBytes: 0, ...gzip }),
    uploads: true,
    duplex: httpVersion === "2",
  });
}
transports.push({
  name: "grpc",
  transport: node.createGrpcTransport({ baseUrl }),
  uploads: true,
  duplex: true,
});
for (const useBinaryFormat of [true, false]) {
  transports.push({
    name: `connect-web ${useBinaryFormat ? "proto" : "json"}`,
    transport: web.createConnectTransport({ baseUrl, useBinaryFormat, jsonOptions }),
  });
}
transports.push({ name: "connect-web grpc-web", transport: web.createGrpcWebTransport({ baseUrl }) });

async function all(messages) {
  const got = [];
  for await (const message of messages) {
    got.push(message);
  }
  return got;
}

async function fails(call) {
  try {
    await call;
  } catch (error) {
    return ConnectError.from(error);
  }
  return assert.fail("the call went well");
}

const asked = {
  code: 9,
  message: "not now: 100 % näh",
  details: [
    {
      typeUrl: "type.googleapis.com/google.rpc.ErrorInfo",
      // reason: "ASKED"
      value: new Uint8Array([10, 5, 65, 83, 75, 69, 68]),
    },
  ],
};

/** Checks that an error is the one that was asked for. */
function isAsked(error) {
  assert.equal(error.code, Code.FailedPrecondition, error.message);
  assert.equal(error.rawMessage, asked.message);
  assert.equal(error.details.length, 1);
  assert.equal(error.details[0].type, "google.rpc.ErrorInfo");
  assert.deepEqual(new Uint8Array(error.details[0].value), asked.details[0].value);
}

for (const { name, transport, uploads, duplex } of transports) {
  describe(name, () => {
    const library = createClient(Library, transport);
    const probe = createClient(Probe, transport);
    const room = createClient(ReadingRoom, transport);

    test("a unary call", async () => {
      const book = await library.getBook({ name: "shelves/1/books/1" });
      assert.equal(book.name, "shelves/1/books/1");
      assert.ok(book.title.length > 0);
    });

    test("a large message", async () => {
      const stringValue = Array.from({ length: 1 << 17 }, (_, index) => index.toString(36)).join(" ");
      const sample = await probe.echo({ stringValue });
      assert.equal(sample.stringValue, stringValue);
    });

    test("an error with its details", async () => {
      const error = await fails(probe.fail({ status: asked }));
      isAsked(error);
    });

    test("an error of the backend's own", async () => {
      const error = await fails(library.getBook({ name: "shelves/1/books/1000" }));
      assert.equal(error.code, Code.NotFound);
      assert.equal(error.details[0].type, "google.rpc.ErrorInfo");
    });

    test("an error of the gateway", async () => {
      const nowhere = { ...Library, typeName: "library.v1.Nowhere" };
      const method = { ...Library.method.getBook, parent: nowhere };
      const client = createClient({ ...nowhere, methods: [method] }, transport);
      const error = await fails(client.getBook({}));
      assert.equal(error.code, Code.Unimplemented, error.message);
    });

    test("metadata both ways", async () => {
      let initial;
      let trailing;
      const reply = await probe.metadata(
        { initial: { "x-first": "a", "x-first-bin": "AAEC" }, trailing: { "x-last": "b" } },
        {
          headers: { "x-mine": "c", "x-mine-bin": "AP8" },
          onHeader: (headers) => (initial = headers),
          onTrailer: (trailers) => (trailing = trailers),
        },
      );
      const received = new Map(reply.received.map(({ name, value }) => [name, value]));
      assert.equal(received.get("x-mine"), "c");
      assert.equal(received.get("x-mine-bin"), "AP8=");
      assert.ok(![...received.keys()].some((name) => name.startsWith("connect-")));
      assert.equal(initial.get("x-first"), "a");
      assert.equal(initial.get("x-first-bin").replace(/=/g, ""), "AAEC");
      assert.equal(trailing.get("x-last"), "b");
    });

    test("a deadline", async () => {
      const reply = await probe.wait({}, { timeoutMs: 5000 });
      const { seconds, nanos } = reply.timeLeft;
      const left = Number(seconds) + nanos / 1e9;
      assert.ok(left > 2 && left <= 5, `${left} s`);
      const error = await fails(probe.wait({ delay: { seconds: 30n } }, { timeoutMs: 200 }));
      assert.equal(error.code, Code.DeadlineExceeded);
    });

    test("cancelling", async () => {
      const abort = new AbortController();
      const call = fails(probe.wait({ delay: { seconds: 30n } }, { signal: abort.signal }));
      setTimeout(() => abort.abort(), 50);
      assert.equal((await call).code, Code.Canceled);
    });

    test("a stream of answers", async () => {
      const counts = await all(probe.failLater({ after: 3 }));
      assert.deepEqual(
        counts.map(({ number }) => number),
        [1n, 2n, 3n],
      );
    });

    test("a stream that fails after its first messages", async () => {
      const got = [];
      const error = await fails(
        (async () => {
          for await (const { number } of probe.failLater({ status: asked, after: 2 })) {
            got.push(number);
          }
        })(),
      );
      assert.deepEqual(got, [1n, 2n]);
      isAsked(error);
    });

    test("a stream that fails at once", async () => {
      isAsked(await fails(all(probe.failLater({ status: asked }))));
    });

    if (uploads) {
      test("a stream of requests", async () => {
        const shelf = `shelves/${2 + Math.floor(Math.random() * 1e9)}`;
        async function* books() {
          yield { parent: "shelves/2", book: { title: `A of ${shelf}` } };
          yield { book: { title: `B of ${shelf}` } };
        }
        const reply = await library.importBooks(books());
        assert.equal(reply.names.length + reply.refused.length, 2);
      });
    }

    if (duplex) {
      test("a conversation", async () => {
        const name = `room-${Math.random()}`;
        let hear;
        let heard = new Promise((resolve) => (hear = resolve));
        async function* remarks() {
          yield { room: name, author: "a", text: "one" };
          // The second remark answers what was heard of the first.
          yield { author: "a", text: `two after ${await heard}` };
        }
        const texts = [];
        for await (const { text } of room.chat(remarks())) {
          texts.push(text);
          hear(text);
          if (texts.length === 2) {
            break;
          }
        }
        assert.deepEqual(texts, ["one", "two after one"]);
      });
    }
  });
}

describe("GET", () => {
  for (const useBinaryFormat of [true, false]) {
    const codec = useBinaryFormat ? "proto" : "json";

    test(`${codec} by connect-web`, async () => {
      const seen = [];
      const spy = (url, request) => {
        seen.push(request.method);
        return fetch(url, request);
      };
      const transport = web.createConnectTransport({
        baseUrl,
        useBinaryFormat,
        useHttpGet: true,
        fetch: spy,
      });
      const library = createClient(Library, transport);
      const book = await library.getBook({ name: "shelves/1/books/1" });
      assert.equal(book.name, "shelves/1/books/1");
      const error = await fails(library.getBook({ name: "shelves/1/books/1000" }));
      assert.equal(error.code, Code.NotFound, error.message);
      assert.deepEqual(seen, ["GET", "GET"]);
    });

    test(`${codec} by connect-node, gzip`, async () => {
      const transport = node.createConnectTransport({
        baseUrl,
        httpVersion: "1.1",
        useBinaryFormat,
        useHttpGet: true,
        compressMinBytes: 0,
        ...gzip,
      });
      const book = await createClient(Library, transport).getBook({ name: "shelves/1/books/1" });
      assert.equal(book.name, "shelves/1/books/1");
    });
  }
});
