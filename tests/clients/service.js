// The example service, known from its descriptor set alone: no generated code.

import { readFileSync } from "node:fs";

import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";

const set = new URL("../../src/demo/generated/library.binpb", import.meta.url);

/** Every type of the service. */
export const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(set)));

export const Library = registry.getService("library.v1.Library");
export const Probe = registry.getService("library.v1.Probe");
export const ReadingRoom = registry.getService("library.v1.ReadingRoom");

/** Where the gateway is, in front of the example service. */
export const gateway = process.env.SABIR ?? "http://127.0.0.1:8080";
