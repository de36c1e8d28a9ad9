// What `useStream` does, with the part of it that is under every framework's hook, and what the Agent Chat page calls.
import assert from "node:assert/strict";
import { StreamOrchestrator } from "@langchain/langgraph-sdk/ui";
import { client, collect, eventually, main, said, url } from "./common.mjs";

/** A page's storage, so that the hook keeps the run it follows (`reconnectOnMount`). */
function storage() {
  const kept = new Map();
  return {
    getItem: (key) => kept.get(key) ?? null,
    setItem: (key, value) => kept.set(key, value),
    removeItem: (key) => kept.delete(key),
  };
}

function hook(assistantId, options = {}, api = client()) {
  const errors = [];
  const all = { onError: (error) => errors.push(String(error)), ...options };
  const orchestrator = new StreamOrchestrator(all, {
    getClient: () => api,
    getAssistantId: () => assistantId,
    getMessagesKey: () => "messages",
  });
  return { stream: orchestrator, errors, api };
}

const texts = (stream) => stream.messages.map((message) => [message.type, message.content]);

await main({
  async chat() {
    let created;
    let finished;
    const { stream, errors } = hook("echo", {
      fetchStateHistory: true, onCreated: (about) => (created = about), onFinish: (state) => (finished = state),
    });
    await stream.submit(said("hello"), { streamMode: ["values"], streamSubgraphs: true, streamResumable: true });
    assert.deepEqual(errors, []);
    assert.equal(created.thread_id, stream.threadId);
    assert.equal(texts(stream)[0][1], "hello");
    assert.ok(texts(stream)[1][1].includes("hello"));
    assert.ok(finished.values.messages.length === 2);
    await stream.submit(said("again"), { streamMode: ["values", "messages-tuple"], streamResumable: true });
    assert.deepEqual(errors, []);
    assert.deepEqual(texts(stream).map(([type]) => type), ["human", "ai", "human", "ai"]);
    assert.ok(stream.historyData.data.length > 3);
    assert.ok(stream.flatHistory.length > 3);
    stream.dispose();
  },

  async branching() {
    const { stream, errors } = hook("echo", { fetchStateHistory: true });
    await stream.submit(said("one"));
    const [question] = stream.messages;
    const { firstSeenState } = stream.getMessagesMetadata(question, 0);
    const checkpoint = firstSeenState.parent_checkpoint;
    assert.ok(checkpoint);
    await stream.submit(said("two"), { checkpoint });
    assert.deepEqual(errors, []);
    assert.equal(texts(stream)[0][1], "two");
    assert.equal(texts(stream).length, 2);
    const { branchOptions } = stream.getMessagesMetadata(stream.messages[0], 0);
    assert.equal(branchOptions.length, 2);
    stream.dispose();
  },

  async interrupting() {
    const { stream, errors } = hook("steps", { fetchStateHistory: true });
    await stream.submit({ ask: "Really?" });
    assert.deepEqual(errors, []);
    assert.equal(stream.interrupt.value.question, "Really?");
    await stream.submit(undefined, { command: { resume: "yes" } });
    assert.deepEqual(errors, []);
    assert.equal(stream.interrupt, undefined);
    assert.ok(stream.values.seen.includes("yes"));
    stream.dispose();
  },

  async queueing() {
    const { stream, errors, api } = hook("steps", { fetchStateHistory: true });
    const first = stream.submit({ seen: ["one"], gates: ["q1"] });
    await eventually(() => stream.threadId && stream.values.seen?.length);
    await stream.submit({ seen: ["two"] }); // while the first runs: runs.create, then joined
    await eventually(() => stream.queueSize === 1);
    await api.store.putItem(["gates"], "q1", { open: true });
    await first;
    await eventually(() => !stream.isLoading && stream.queueSize === 0 && stream.values.seen.filter((s) => s === "last").length === 2);
    assert.deepEqual(errors, []);
    assert.ok(stream.values.seen.includes("two"));
    stream.dispose();
  },

  async reconnecting() {
    const { stream: first, api } = hook("steps", {});
    const { thread_id: thread } = await api.threads.create();
    first.initThreadId(thread);
    const run = await api.runs.create(thread, "steps", {
      input: { gates: ["r1"] }, streamMode: ["values", "updates", "custom"], streamResumable: true,
    });
    const custom = [];
    const { stream, errors } = hook("steps", { fetchStateHistory: true, onCustomEvent: (data) => custom.push(data) });
    stream.initThreadId(thread);
    const joined = stream.joinStream(run.run_id); // "-1": from the beginning, as after a reload of the page
    await eventually(() => custom.length === 1);
    await api.store.putItem(["gates"], "r1", { open: true });
    await joined;
    assert.deepEqual(errors, []);
    assert.deepEqual(custom, [{ step: "first" }, { gate: "r1" }]);
    assert.deepEqual(stream.values.seen, ["first", "inner", "last"]);
    stream.dispose();
  },

  async stopping() {
    const kept = storage();
    globalThis.window = { sessionStorage: kept };
    let created;
    const { stream, errors, api } = hook("steps", {
      reconnectOnMount: true, fetchStateHistory: true, onCreated: (about) => (created = about),
    });
    const submitted = stream.submit({ gates: ["s1"] });
    await eventually(() => created);
    await stream.stop(); // the page's button: runs.cancel
    await submitted;
    await eventually(async () => (await api.runs.get(created.thread_id, created.run_id)).status === "interrupted");
    assert.deepEqual(errors, []);
    stream.dispose();
  },

  async failing() {
    const { stream, errors } = hook("broken", { fetchStateHistory: true });
    await stream.submit({ text: "luck" });
    assert.ok(String(stream.error).includes("no luck") || errors.some((error) => error.includes("no luck")));
    stream.dispose();
  },

  async agentChat() {
    const info = await fetch(`${url}/info`, { headers: { "X-Api-Key": "anything" } });
    assert.equal(info.status, 200);
    assert.equal(typeof (await info.json()), "object");
    const api = client({ apiKey: "anything" });
    const { stream, errors } = hook("echo", { fetchStateHistory: true }, api);
    await stream.submit(
      { messages: [{ id: crypto.randomUUID(), type: "human", content: "hello" }] },
      { streamMode: ["values"], streamSubgraphs: true, streamResumable: true,
        optimisticValues: (before) => ({ ...before, messages: [...(before.messages ?? [])] }) },
    );
    assert.deepEqual(errors, []);
    const found = await api.threads.search({ metadata: { graph_id: "echo" }, limit: 100 });
    assert.deepEqual(found.map((thread) => thread.thread_id), [stream.threadId]);
    assert.equal(found[0].values.messages[0].content, "hello");
    const other = hook("echo", { fetchStateHistory: true }, api).stream;
    other.initThreadId(stream.threadId); // another tab
    await eventually(() => other.messages.length === 2);
    stream.dispose();
    other.dispose();
  },
});
