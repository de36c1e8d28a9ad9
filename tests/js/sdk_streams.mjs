// Streams of the SDK: every mode, the headers, cuts at every event, joining.
import assert from "node:assert/strict";
import { client, collect, eventually, main, said } from "./common.mjs";

const api = client();
const { threads, runs, store } = api;
const names = (parts) => [...new Set(parts.map((part) => part.event))].sort();

async function open(...gates) {
  for (const gate of gates) await store.putItem(["gates"], gate, { open: true });
}

/** Breaks the connection of the first stream when so many events have arrived: none, or all before its end is said. */
function cutting(afterEvents, arrived) {
  let cut = false;
  const requests = [];
  const fetchCut = async (input, init) => {
    requests.push(`${init?.method ?? "GET"} ${new URL(input).pathname}`);
    const response = await fetch(input, init);
    if (cut || !response.headers.get("content-type")?.startsWith("text/event-stream")) return response;
    cut = true;
    const whole = response.body.getReader();
    let left = afterEvents;
    const body = new ReadableStream({
      async pull(controller) {
        const { done, value } = left > 0 ? await whole.read() : { done: true };
        if (done) {
          await whole.cancel().catch(() => null);
          await eventually(() => arrived() >= afterEvents);
          controller.error(new TypeError("terminated"));
          return;
        }
        let end = 0; // of the last event that is let through
        while (left > 0 && end < value.length) {
          const next = value.findIndex((byte, at) => at >= end && byte === 10 && value[at + 1] === 10);
          if (next === -1) break;
          left -= 1;
          end = next + 2;
        }
        controller.enqueue(left > 0 ? value : value.slice(0, end));
      },
    });
    return new Response(body, { status: response.status, headers: response.headers });
  };
  return { fetchCut, requests };
}

await main({
  async modes() {
    const { thread_id: thread } = await threads.create();
    const streamMode = ["values", "updates", "custom", "debug", "tasks", "checkpoints", "messages-tuple", "events"];
    let created;
    const parts = await collect(runs.stream(thread, "steps", {
      input: {}, streamMode, onRunCreated: (about) => (created = about),
    }));
    assert.equal(parts[0].event, "metadata");
    assert.equal(parts[0].data.run_id, created.run_id);
    assert.equal(created.thread_id, thread);
    assert.deepEqual(names(parts), ["checkpoints", "custom", "debug", "events", "metadata", "tasks", "updates", "values"]);
    assert.deepEqual(parts.filter((part) => part.event === "custom").map((part) => part.data), [{ step: "first" }]);
    assert.ok(parts.filter((part) => part.event === "events").some((part) => part.data.event === "on_chain_end"));
    const updates = parts.filter((part) => part.event === "updates").map((part) => Object.keys(part.data)[0]);
    assert.deepEqual(updates, ["first", "inner", "last"]);
    const ids = parts.map((part) => part.id).filter((id) => id !== undefined);
    assert.equal(new Set(ids).size, ids.length);
    for (const mode of streamMode) {
      const alone = await collect(runs.stream(null, "steps", { input: {}, streamMode: mode }));
      const allowed = mode === "messages-tuple" ? ["metadata"] : ["metadata", mode].sort();
      assert.deepEqual(names(alone), allowed, mode);
    }
    assert.deepEqual(names(await collect(runs.stream(null, "steps", { input: {} }))), ["metadata", "values"]);
  },

  async messages() {
    const tuples = await collect(runs.stream(null, "echo", { input: said("hi"), streamMode: "messages-tuple" }));
    const chunks = tuples.filter((part) => part.event === "messages");
    assert.ok(chunks.length > 3);
    assert.equal(chunks[0].data[0].type, "AIMessageChunk");
    assert.equal(chunks[0].data[1].langgraph_node, "model");
    const grown = await collect(runs.stream(null, "echo", { input: said("hi"), streamMode: "messages" }));
    const kinds = names(grown);
    assert.ok(kinds.includes("messages/partial") && kinds.includes("messages/metadata"), String(kinds));
    const last = grown.filter((part) => part.event === "messages/partial").at(-1).data[0];
    assert.equal(last.content, chunks.map((part) => part.data[0].content).join(""));
  },

  async subgraphs() {
    const parts = await collect(runs.stream(null, "steps", {
      input: {}, streamMode: ["updates", "values"], streamSubgraphs: true,
    }));
    assert.ok(parts.some((part) => /^updates\|inner:/.test(part.event)), String(names(parts)));
    const without = await collect(runs.stream(null, "steps", { input: {}, streamMode: ["updates"] }));
    assert.ok(!without.some((part) => part.event.includes("|")));
  },

  async failure() {
    const parts = await collect(runs.stream(null, "broken", { input: { text: "luck" }, streamMode: "values" }));
    const { event, data } = parts.at(-1);
    assert.deepEqual([event, data.error, data.message], ["error", "ValueError", "no luck"]);
  },

  async tokens() {
    const { thread_id: thread } = await threads.create();
    const stream = runs.stream(thread, "steps", { input: { gates: ["t1", "t2"] }, streamMode: "custom" });
    const next = async () => (await stream.next()).value;
    assert.equal((await next()).event, "metadata");
    assert.deepEqual((await next()).data, { step: "first" });
    await open("t1"); // nothing of the next part exists before
    assert.deepEqual((await next()).data, { gate: "t1" });
    await open("t2");
    assert.deepEqual((await next()).data, { gate: "t2" });
    assert.equal((await stream.next()).done, true);
  },

  async cuts(from = "0") {
    const input = { gates: ["g1", "g2"] };
    const seenBy = (parts) => parts.map((part) => part.id);
    await open("g1", "g2");
    const streamMode = ["values", "updates", "custom"];
    const plain = (parts) => parts.map((part) => [part.event, part.event === "metadata" ? null : part.data]);
    const whole = plain(await collect(runs.stream((await threads.create()).thread_id, "steps", { input, streamMode })));
    const cutAfter = async (after, resumable) => {
      const parts = [];
      const { fetchCut, requests } = cutting(after, () => parts.length);
      const cut = client({ callerOptions: { maxRetries: 0, fetch: fetchCut } });
      const thread = (await threads.create()).thread_id;
      const stream = cut.runs.stream(thread, "steps", {
        input, streamMode, streamResumable: resumable, onDisconnect: "continue",
      });
      for await (const part of stream) parts.push(part);
      assert.deepEqual(plain(parts), whole, `resumable ${resumable}, cut after event ${after}: ${requests}`);
      assert.equal(new Set(seenBy(parts)).size, parts.length);
      assert.ok(requests.some((request) => /^GET .*\/stream$/.test(request)), String(requests));
    };
    const places = whole.map((_, index) => index + 1).concat(0).filter((after) => after >= Number(from));
    for (const resumable of [true, false]) { // side by side: the SDK waits before it asks again
      await Promise.all(places.map((after) => cutAfter(after, resumable)));
    }
  },

  async joining() {
    const { thread_id: thread } = await threads.create();
    const run = await runs.create(thread, "steps", {
      input: { gates: ["j1", "j2"] }, streamMode: ["values", "updates", "custom"], streamResumable: true,
    });
    const controller = new AbortController();
    const first = [];
    const whole = runs.joinStream(thread, run.run_id, { lastEventId: "-1", signal: controller.signal });
    for await (const part of whole) {
      first.push(part);
      if (part.event === "custom") break;
    }
    controller.abort();
    await open("j1", "j2");
    const rest = await collect(runs.joinStream(thread, run.run_id, { lastEventId: first.at(-1).id }));
    const all = await collect(runs.joinStream(thread, run.run_id, { lastEventId: "-1" }));
    assert.deepEqual([...first, ...rest].map((part) => [part.id, part.event]), all.map((part) => [part.id, part.event]));
    assert.equal(all[0].event, "metadata");
    const again = await collect(runs.joinStream(thread, run.run_id, { lastEventId: "-1", streamMode: ["custom"] }));
    assert.deepEqual(names(again), ["custom", "metadata"]);
    assert.deepEqual((await runs.join(thread, run.run_id)).seen, ["first", "inner", "last"]);
  },

  async leaving() {
    for (const onDisconnect of ["cancel", "continue"]) {
      const { thread_id: thread } = await threads.create();
      const gate = `l-${onDisconnect}`;
      let created;
      const controller = new AbortController();
      const stream = runs.stream(thread, "steps", {
        input: { gates: [gate] }, streamMode: "custom", onDisconnect, signal: controller.signal,
        onRunCreated: (about) => (created = about.run_id),
      });
      await stream.next();
      await stream.next();
      controller.abort();
      await stream.return?.();
      if (onDisconnect === "continue") await open(gate);
      const wanted = onDisconnect === "cancel" ? "interrupted" : "success";
      await eventually(async () => (await runs.get(thread, created)).status === wanted);
    }
    const { thread_id: thread } = await threads.create();
    const run = await runs.create(thread, "steps", { input: { gates: ["l3"] }, streamMode: "custom" });
    const controller = new AbortController();
    const joined = runs.joinStream(thread, run.run_id, { cancelOnDisconnect: true, signal: controller.signal });
    await eventually(async () => (await runs.get(thread, run.run_id)).status === "running");
    const waiting = joined.next().catch(() => null);
    await new Promise((resolve) => setTimeout(resolve, 100)); // the request is on its way; nothing tells when it is there
    controller.abort();
    await waiting;
    await eventually(async () => (await runs.get(thread, run.run_id)).status === "interrupted");
  },

  async thread() {
    const { thread_id: thread } = await threads.create();
    const controller = new AbortController();
    const stream = threads.joinStream(thread, { streamMode: ["run_modes"], signal: controller.signal });
    const parts = [];
    const reading = (async () => {
      for await (const part of stream) {
        parts.push(part);
        if (part.event === "values" && part.data.seen?.includes("last")) break;
      }
    })();
    reading.catch(() => null);
    await eventually(async () => {
      await runs.wait(thread, "steps", { input: {}, streamMode: ["values"] }).catch(() => null);
      return parts.some((part) => part.event === "values" && part.data.seen?.includes("last"));
    });
    controller.abort();
    await reading.catch(() => null);
  },

  async resuming() {
    const { thread_id: thread } = await threads.create();
    const asked = await collect(runs.stream(thread, "steps", { input: { ask: "Go?" }, streamMode: ["values", "updates"] }));
    assert.ok(asked.some((part) => part.event === "updates" && part.data.__interrupt__?.[0].value.question === "Go?"));
    const done = await collect(runs.stream(thread, "steps", { command: { resume: "go" }, streamMode: "values" }));
    assert.ok(done.at(-1).data.seen.includes("go"));
  },
});
