// The browser's own WebSocket, in headless Chromium. The page runs the conversations and reports what it saw to the
// server that it came from. CHROMIUM names another browser.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { gateway } from "./service.js";

const PATIENCE = 90_000;
const chromium = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** Serves the page; resolves to what it reports. */
async function serve() {
  const page = await readFile(new URL("browser.html", import.meta.url));
  let report;
  const reported = new Promise((resolve) => (report = resolve));
  const server = createServer(async (request, response) => {
    if (request.method === "POST") {
      const chunks = [];
      for await (const chunk of request) {
        chunks.push(chunk);
      }
      response.writeHead(204).end();
      report(JSON.parse(Buffer.concat(chunks).toString()));
      return;
    }
    if (new URL(request.url, "http://localhost").pathname !== "/") {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, { "content-type": "text/html; charset=utf-8" }).end(page);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { server, reported };
}

test("a browser's WebSocket", { timeout: PATIENCE }, async (context) => {
  const { server, reported } = await serve();
  const profile = await mkdtemp(join(tmpdir(), "sabir-browser-"));
  const page = `http://127.0.0.1:${server.address().port}/?gateway=${new URL(gateway).host}`;
  const browser = spawn(
    chromium,
    [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      "--disable-dev-shm-usage",
      `--user-data-dir=${profile}`,
      "--remote-debugging-port=0",
      page,
    ],
    { stdio: ["ignore", "ignore", "pipe"] },
  );
  let said = "";
  browser.stderr.on("data", (chunk) => (said = (said + chunk).slice(-4096)));
  try {
    const ended = once(browser, "exit").then(([code]) => assert.fail(`the browser ended with ${code}: ${said}`));
    const failed = once(browser, "error").then(([error]) => assert.fail(`${chromium}: ${error.message}`));
    const late = new Promise((_, reject) => {
      setTimeout(() => reject(new Error(`the page reported nothing: ${said}`)), PATIENCE - 10_000).unref();
    });
    const results = await Promise.race([reported, ended, failed, late]);
    assert.ok(results.length > 0, "the page ran nothing");
    for (const { name, error } of results) {
      await context.test(name, () => assert.equal(error, null, error));
    }
  } finally {
    if (browser.exitCode === null && browser.pid !== undefined) {
      const gone = once(browser, "exit");
      browser.kill("SIGTERM");
      await gone.catch(() => {});
    }
    server.closeAllConnections();
    server.close();
    // Its children write there until they are gone too.
    await rm(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  }
});
