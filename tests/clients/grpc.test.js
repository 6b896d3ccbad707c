// gRPC by its official client for node, from the descriptor set.

import assert from "node:assert/strict";
import { after, describe, test } from "node:test";

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";

import { Library, Probe, ReadingRoom, gateway } from "./service.js";

/** A client of a service, made of what generated code would hold. */
function client(service, options) {
  const methods = service.methods.map((method) => [
    method.localName,
    {
      path: `/${service.typeName}/${method.name}`,
      requestStream: ["client_streaming", "bidi_streaming"].includes(method.methodKind),
      responseStream: ["server_streaming", "bidi_streaming"].includes(method.methodKind),
      requestSerialize: (request) => Buffer.from(toBinary(method.input, create(method.input, request))),
      requestDeserialize: (bytes) => fromBinary(method.input, bytes),
      responseSerialize: (answer) => Buffer.from(toBinary(method.output, answer)),
      responseDeserialize: (bytes) => fromBinary(method.output, bytes),
    },
  ]);
  const Client = grpc.makeGenericClientConstructor(Object.fromEntries(methods), service.typeName);
  return new Client(new URL(gateway).host, grpc.credentials.createInsecure(), options);
}

/** Makes a call with one answer: resolves to the answer and both kinds of metadata. */
function ask(start) {
  return new Promise((resolve, reject) => {
    const heard = {};
    const call = start((error, answer) => (error ? reject(error) : resolve({ ...heard, answer })));
    call.on("metadata", (metadata) => (heard.metadata = metadata));
  });
}

/** Reads a stream to its end: its messages and its status. */
function all(stream) {
  return new Promise((resolve) => {
    const messages = [];
    stream.on("data", (message) => messages.push(message));
    stream.on("error", () => {});
    stream.on("status", (status) => resolve({ messages, status }));
  });
}

function metadata(entries) {
  const made = new grpc.Metadata();
  for (const [name, value] of entries) {
    made.add(name, value);
  }
  return made;
}

const soon = () => ({ deadline: Date.now() + 20_000 });

for (const [name, options] of [
  ["grpc-js", {}],
  ["grpc-js, gzip", { "grpc.default_compression_algorithm": grpc.compressionAlgorithms.gzip }],
]) {
  describe(name, () => {
    const library = client(Library, options);
    const probe = client(Probe, options);
    const room = client(ReadingRoom, options);
    after(() => [library, probe, room].forEach((client) => client.close()));

    test("a unary call", async () => {
      const { answer } = await ask((done) => library.getBook({ name: "shelves/1/books/7" }, soon(), done));
      assert.equal(answer.title, "Dune");
    });

    test("a large message", async () => {
      const stringValue = Array.from({ length: 1 << 17 }, (_, index) => index.toString(36)).join(" ");
      const { answer } = await ask((done) => probe.echo({ stringValue }, soon(), done));
      assert.equal(answer.stringValue, stringValue);
    });

    test("an error with its details", async () => {
      const call = ask((done) => library.getBook({ name: "shelves/1/books/1000" }, soon(), done));
      await assert.rejects(call, (error) => {
        assert.equal(error.code, grpc.status.NOT_FOUND);
        assert.match(error.details, /no book/);
        assert.equal(error.metadata.get("grpc-status-details-bin").length, 1);
        return true;
      });
    });

    test("a method that is not there", async () => {
      const call = new Promise((resolve, reject) => {
        const bytes = (value) => value;
        library.makeUnaryRequest(
          "/library.v1.Library/Nothing",
          bytes,
          bytes,
          Buffer.alloc(0),
          (error, answer) => (error ? reject(error) : resolve(answer)),
        );
      });
      await assert.rejects(call, (error) => error.code === grpc.status.UNIMPLEMENTED);
    });

    test("metadata both ways, text and binary", async () => {
      const sent = metadata([
        ["x-mine", "a"],
        ["x-mine", "b"],
        ["x-mine-bin", Buffer.from([0, 255, 1])],
      ]);
      const { answer } = await ask((done) => probe.metadata({}, sent, soon(), done));
      const received = answer.received.filter(({ name }) => name.startsWith("x-mine"));
      assert.deepEqual(
        received.filter(({ name }) => name === "x-mine").map(({ value }) => value),
        ["a", "b"],
      );
      assert.equal(received.filter(({ name }) => name === "x-mine-bin").length, 1);
    });

    test("a deadline", async () => {
      const call = ask((done) =>
        probe.wait({ delay: { seconds: 30n } }, { deadline: Date.now() + 200 }, done),
      );
      await assert.rejects(call, (error) => error.code === grpc.status.DEADLINE_EXCEEDED);
    });

    test("a stream of answers", async () => {
      const { messages, status } = await all(probe.failLater({ after: 3 }, soon()));
      assert.deepEqual(
        messages.map(({ number }) => number),
        [1n, 2n, 3n],
      );
      assert.equal(status.code, grpc.status.OK);
    });

    test("a stream that fails after its first message", async () => {
      const failing = { status: { code: 14, message: "the shelf fell over" }, after: 1 };
      const { messages, status } = await all(probe.failLater(failing, soon()));
      assert.equal(messages.length, 1);
      assert.equal(status.code, grpc.status.UNAVAILABLE);
      assert.equal(status.details, "the shelf fell over");
    });

    test("a stream of requests", async () => {
      const { answer } = await ask((done) => {
        const call = library.importBooks(soon(), done);
        for (const title of ["Kim", "Ivanhoe", "Emma"]) {
          call.write({ parent: "shelves/3", book: { title } });
        }
        call.end();
        return call;
      });
      assert.equal(answer.names.length, 3);
    });

    test("both streams at once", async () => {
      const call = room.chat(soon());
      const heard = new Promise((resolve) => call.once("data", resolve));
      call.write({ room: `grpc-js-${options["grpc.default_compression_algorithm"] ?? 0}`, text: "hello" });
      // The answer comes while the client is still sending.
      assert.equal((await heard).text, "hello");
      const ended = new Promise((resolve) => call.once("status", resolve));
      call.end();
      assert.equal((await ended).code, grpc.status.OK);
    });

    test("cancelling", async () => {
      const call = library.watchBooks({ parent: "shelves/1" }, soon());
      const ended = all(call);
      call.once("metadata", () => call.cancel());
      setTimeout(() => call.cancel(), 500).unref();
      assert.equal((await ended).status.code, grpc.status.CANCELLED);
    });
  });
}
