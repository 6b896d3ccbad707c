// gRPC-Web by its official runtime, text and binary, from the descriptor set.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import grpcWeb from "grpc-web";
import xhr2 from "xhr2";

import { Library, Probe, gateway } from "./service.js";

// The runtime is made for browsers.
globalThis.XMLHttpRequest = xhr2.XMLHttpRequest;

const { GrpcWebClientBase, MethodDescriptor, MethodType, StatusCode } = grpcWeb;

/** What generated code would hold for a method. */
function descriptor(method) {
  return new MethodDescriptor(
    `/${method.parent.typeName}/${method.name}`,
    method.methodKind === "unary" ? MethodType.UNARY : MethodType.SERVER_STREAMING,
    Object,
    Object,
    (request) => toBinary(method.input, create(method.input, request)),
    (bytes) => fromBinary(method.output, bytes),
  );
}

for (const format of ["text", "binary"]) {
  describe(`grpc-web ${format}`, () => {
    const client = new GrpcWebClientBase({ format });
    const call = (method, request, metadata = {}) => {
      const of = descriptor(method);
      return client.unaryCall(gateway + of.getName(), request, metadata, of);
    };
    const stream = (method, request) => {
      const of = descriptor(method);
      const answers = client.serverStreaming(gateway + of.getName(), request, {}, of);
      return new Promise((resolve) => {
        const heard = { messages: [], metadata: {}, status: undefined, error: undefined };
        answers.on("data", (message) => heard.messages.push(message));
        answers.on("metadata", (metadata) => Object.assign(heard.metadata, metadata));
        answers.on("status", (status) => (heard.status = status));
        answers.on("error", (error) => {
          heard.error = error;
          resolve(heard);
        });
        answers.on("end", () => resolve(heard));
      });
    };

    test("a unary call", async () => {
      const book = await call(Library.method.getBook, { name: "shelves/1/books/1" });
      assert.equal(book.name, "shelves/1/books/1");
    });

    test("an error of the backend", async () => {
      await assert.rejects(call(Library.method.getBook, { name: "shelves/1/books/1000" }), (error) => {
        assert.equal(error.code, StatusCode.NOT_FOUND);
        assert.match(error.message, /no book/);
        assert.ok(error.metadata["grpc-status-details-bin"]);
        return true;
      });
    });

    test("a deadline", async () => {
      const deadline = (Date.now() + 200).toString();
      await assert.rejects(
        call(Probe.method.wait, { delay: { seconds: 30n } }, { deadline }),
        (error) => error.code === StatusCode.DEADLINE_EXCEEDED,
      );
    });

    test("metadata of the request", async () => {
      const reply = await call(Probe.method.metadata, {}, { "x-mine": "a" });
      const received = new Map(reply.received.map(({ name, value }) => [name, value]));
      assert.equal(received.get("x-mine"), "a");
      assert.equal(received.get("x-grpc-web"), undefined);
    });

    // The runtime reads streams in text alone.
    if (format === "text") {
      test("a stream", async () => {
        const heard = await stream(Probe.method.failLater, { after: 3 });
        assert.deepEqual(
          heard.messages.map(({ number }) => number),
          [1n, 2n, 3n],
        );
        assert.equal(heard.status.code, StatusCode.OK);
      });

      test("a stream that fails after its first message", async () => {
        const heard = await stream(Probe.method.failLater, {
          status: { code: 14, message: "the shelf fell over" },
          after: 1,
        });
        assert.equal(heard.messages.length, 1);
        assert.equal(heard.error.code, StatusCode.UNAVAILABLE);
        assert.equal(heard.error.message, "the shelf fell over");
      });
    }
  });
}
