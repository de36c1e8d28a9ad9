// The controller behind `useStream` of @langchain/react, as the hook makes it: the newest SDK, or the one the hook pins.
import assert from "node:assert/strict";
import { WebSocket } from "ws";
import { eventually, main, said, url } from "./common.mjs";

const [, , , , transport, release] = process.argv;
const sdk = release === "1.11" ? "langgraph-sdk-1-11" : "@langchain/langgraph-sdk";
const { Client } = await import(sdk);
const { StreamController } = await import(`${sdk}/stream`);

const client = new Client({ apiUrl: url, callerOptions: { maxRetries: 0 } });

function mounted(assistantId, options = {}) {
  const told = { created: [], completed: [], threads: [] };
  const controller = new StreamController({
    assistantId,
    client,
    threadId: null,
    transport,
    webSocketFactory: transport === "websocket" ? (address) => new WebSocket(address) : undefined,
    reconnectDelayMs: () => 10,
    onThreadId: (id) => told.threads.push(id),
    onCreated: (run) => told.created.push(run.runId),
    onCompleted: (run) => told.completed.push(run.reason),
    ...options,
  });
  const unmount = controller.activate();
  const now = () => controller.rootStore.getSnapshot();
  return { controller, told, now, settled: () => eventually(() => !now().isLoading), unmount };
}

const texts = (messages) => messages.map((message) => [message.getType(), message.text]);

await main({
  /** A first message on a new thread, then a second. */
  async submit() {
    const { controller, told, now, settled } = mounted("chatting");
    const seen = new Set();
    controller.rootStore.subscribe(() => {
      const last = now().messages.at(-1);
      if (last?.getType() === "ai") seen.add(last.text);
    });
    await controller.submit(said("hi"));
    await settled();
    assert.equal(now().error, undefined);
    await eventually(() => now().messages.length === 2 && now().messages[1].text.endsWith("three"));
    const first = texts(now().messages);
    await controller.submit(said("again"));
    await settled();
    await eventually(() => now().messages.length === 4 && now().messages[3].text.endsWith("three"));
    await eventually(() => told.completed.length === 2);
    const result = { first, then: texts(now().messages), created: told.created.length, completed: told.completed };
    const runs = await client.runs.list(told.threads[0]);
    assert.deepEqual(new Set(runs.map((run) => run.run_id)), new Set(told.created));
    await controller.dispose();
    return { ...result, grew: [...seen] };
  },

  /** A question, shown and answered; then the page is loaded anew while another waits, and that is answered too. */
  async respond() {
    const { controller, told, now, settled } = mounted("asking_within");
    await controller.submit(said("hi"));
    await settled();
    await eventually(() => now().interrupts.length === 1);
    const asked = now().interrupt.value;
    await controller.respond("yes");
    await eventually(async () => (await client.threads.getState(told.threads[0])).values.answers?.length === 1);
    await eventually(() => now().interrupts.length === 0 && !now().isLoading);
    await controller.submit(said("more"));
    await settled();
    await eventually(() => now().interrupts.length === 1);
    // 1.11 shows no question that comes after it was mounted on a thread that was busy then
    await eventually(async () => (await client.threads.get(told.threads[0])).status === "interrupted");
    await controller.dispose();
    const later = mounted("asking_within", { threadId: told.threads[0] });
    await later.controller.hydrationPromise;
    await eventually(() => later.now().interrupts.length === 1);
    await eventually(() => later.controller.getThread()?.interrupts.length > 0); // replayed by the server
    await later.controller.respond("later");
    const answers = await eventually(async () => {
      const found = (await client.threads.getState(told.threads[0])).values.answers;
      return found?.includes("later") && found;
    });
    await eventually(() => later.now().values.answers?.includes("later"));
    const shown = later.now().values.answers;
    await later.controller.dispose();
    return { asked, answers, shown, completed: told.completed };
  },

  /** Several questions of one checkpoint, answered together. */
  async respondAll() {
    const { controller, now, settled } = mounted("asking");
    await controller.submit(said("hi"));
    await settled();
    await eventually(() => now().interrupts.length === 2);
    const answers = Object.fromEntries(now().interrupts.map((one) => [one.id, one.value.question]));
    await controller.respondAll(answers);
    await eventually(() => now().values.answers?.length === 2);
    const values = now().values;
    await controller.dispose();
    return { answers: [...values.answers].sort() };
  },

  /** A run that fails shows why. */
  async fail() {
    const { controller, told, now, settled } = mounted("failing");
    await controller.submit(said("hi"));
    await settled();
    const error = String(now().error?.message);
    await eventually(() => told.completed.length > 0);
    await controller.dispose();
    return { error, completed: told.completed };
  },

  /** A run is stopped: it is cancelled on the server, and the page no longer loads. */
  async stop() {
    const { controller, told, now } = mounted("gated");
    const submitting = controller.submit(said("hi"));
    await eventually(() => told.created.length === 1);
    await controller.stop();
    await submitting;
    assert.equal(now().isLoading, false);
    const run = await eventually(async () => {
      const found = await client.runs.get(told.threads[0], told.created[0]);
      return found.status === "interrupted" && found;
    });
    await controller.dispose();
    return { status: run.status };
  },

  /** Subgraphs and tools are found while they run; a fork goes on from the checkpoint before a message. */
  async discover() {
    const { controller, told, now, settled } = mounted("working");
    await controller.submit(said("hi"));
    await settled();
    const subgraphs = await eventually(() => {
      const found = [...controller.subgraphStore.getSnapshot().values()];
      return found.length > 0 && found;
    });
    const metadata = controller.messageMetadataStore.getSnapshot();
    const parents = now()
      .messages.map((message) => metadata.get(message.id)?.parentCheckpointId)
      .filter((id) => id !== undefined);
    const history = await client.threads.getHistory(told.threads[0], { limit: 100 });
    const known = new Set(history.map((state) => state.checkpoint.checkpoint_id));
    const before = now().messages.length;
    await controller.submit(said("other"), { forkFrom: history.at(-2).checkpoint.checkpoint_id });
    await settled();
    await eventually(() => now().messages.some((message) => message.text === "other"));
    await controller.dispose();
    return {
      subgraphs: subgraphs.map((graph) => [graph.nodeName ?? graph.name ?? graph.graphName, graph.status]),
      parents: parents.length > 0 && parents.every((id) => known.has(id)),
      before,
      error: String(now().error),
    };
  },

  /** What else is at work on the thread is shown, and loading ends when it ends. */
  async watch() {
    const thread = await client.threads.create();
    await client.runs.wait(thread.thread_id, "chatting", { input: said("before") });
    const run = await client.runs.create(thread.thread_id, "gated", { input: said("elsewhere") });
    // the page takes a thread for idle whose newest state has nothing left to do: wait for that of this run
    await eventually(async () => (await client.threads.getState(thread.thread_id)).next.length > 0);
    const { controller, now } = mounted("gated", { threadId: thread.thread_id });
    await controller.hydrationPromise;
    await eventually(() => now().isLoading);
    await client.runs.cancel(thread.thread_id, run.run_id);
    await eventually(() => !now().isLoading);
    const found = texts(now().messages);
    await controller.dispose();
    return found.slice(0, 2);
  },
});
