// `client.threads.stream` of the SDK, over server-sent events or one WebSocket.
import assert from "node:assert/strict";
import { WebSocket } from "ws";
import { client, collect, main, said } from "./common.mjs";

function opened(assistantId, transport, options = {}, threadId = undefined) {
  const wanted = { assistantId, transport, reconnectDelayMs: () => 10, ...options };
  if (transport === "websocket") wanted.webSocketFactory ??= (address) => new WebSocket(address);
  const streams = client().threads;
  return threadId === undefined ? streams.stream(wanted) : streams.stream(threadId, wanted);
}

async function text(message) {
  return await message.text;
}

await main({
  /** A run with a subgraph, tools, custom events and messages, to its last values. */
  async run(transport) {
    const thread = opened("working", transport);
    const messages = collect(thread.messages);
    const tools = collect(thread.toolCalls);
    const subgraphs = collect(thread.subgraphs);
    const progress = thread.extensions.progress;
    const { run_id: runId } = await thread.run.start({ input: said("hi"), metadata: { user: "ada" } });
    const output = await thread.output;
    const told = await Promise.all((await messages).map(text));
    const used = [...new Map((await tools).map((call) => [call.callId, call])).values()]; // each is told twice
    const found = {
      runId,
      log: output.log,
      types: output.messages.map((message) => message.getType()),
      told,
      tools: await Promise.all(used.map(async (call) => [call.name, call.input, await call.output])),
      subgraphs: (await subgraphs).map((graph) => graph.name),
      progress: await progress,
    };
    await thread.close();
    const run = await client().runs.get(thread.threadId, runId);
    return { ...found, status: run.status, metadata: run.metadata.user };
  },

  /** A question that a subgraph asks, answered; the interrupt is there as long as it waits. */
  async answer(transport) {
    const thread = opened("asking_within", transport);
    await thread.run.start({ input: said("hi") });
    await collect(thread.values);
    assert.equal(thread.interrupted, true);
    const [asked] = thread.interrupts;
    const answered = [];
    thread.onEvent((event) => {
      if (event.method === "input.answered") answered.push(...event.params.data.interrupt_ids);
    });
    const subscription = await thread.subscribe(["lifecycle", "input"]);
    await thread.input.respond({ namespace: asked.namespace, interrupt_id: asked.interruptId, response: "yes" });
    for await (const event of subscription) {
      if (event.method === "lifecycle" && event.params.namespace.length === 0 && event.params.data.event === "completed")
        break;
    }
    const state = await client().threads.getState(thread.threadId);
    await thread.close();
    return { payload: asked.payload, answers: state.values.answers, same: answered.includes(asked.interruptId) };
  },

  /** State, checkpoints, tree, fork, and a command that nobody knows. */
  async commands(transport) {
    const thread = opened("chatting", transport);
    await thread.run.start({ input: said("one") });
    await thread.output;
    const state = await thread.state.get({ namespace: [] });
    const { checkpoints } = await thread.state.listCheckpoints({ limit: 5 });
    const { tree } = await thread.agent.getTree();
    const forked = await thread.state.fork({ checkpoint_id: checkpoints[0].id, input: said("fork") });
    await client().runs.join(thread.threadId, forked.run_id);
    const values = (await client().threads.getState(thread.threadId)).values;
    let refused;
    try {
      await thread.input.inject({ namespace: [], message: { role: "user", content: "x" } });
    } catch (error) {
      refused = [error.name, error.code];
    }
    await thread.close();
    return {
      same: state.checkpoint.id === checkpoints[0].id,
      steps: checkpoints.map((one) => one.step),
      tree: [tree.graph_name, tree.status],
      messages: values.messages.length,
      refused,
    };
  },

  /** A stream that is cut midway is opened again by the client, and no event is lost or given twice. */
  async cut(transport) {
    let sockets = 0;
    let cuts = 0;
    const options = {};
    if (transport === "websocket") {
      options.webSocketFactory = (address) => {
        const socket = new WebSocket(address);
        sockets += 1;
        if (sockets === 1) {
          let frames = 0;
          socket.addEventListener("message", () => {
            frames += 1;
            if (frames === 12) {
              cuts += 1;
              socket.terminate();
            }
          });
        }
        return socket;
      };
    } else {
      options.fetch = async (address, init) => {
        const response = await fetch(address, init);
        if (!String(address).endsWith("/stream/events") || cuts > 2) return response;
        let bytes = 0;
        const cutting = new TransformStream({
          transform(chunk, controller) {
            bytes += chunk.length;
            if (bytes > 4_000 && cuts <= 2) {
              cuts += 1;
              controller.error(new Error("the connection was cut"));
            } else controller.enqueue(chunk);
          },
        });
        return new Response(response.body.pipeThrough(cutting), { status: response.status, headers: response.headers });
      };
    }
    const thread = opened("working", transport, options);
    const messages = collect(thread.messages);
    const values = collect(thread.values);
    const subscription = thread.subscribe({ channels: ["messages", "tools", "lifecycle"] });
    const started = await thread.run.start({ input: said("hi") });
    const events = [];
    for await (const event of await subscription) {
      events.push([event.seq, event.method, event.params.namespace.length]);
      const data = event.params.data;
      if (event.method === "lifecycle" && event.params.namespace.length === 0 && data.event === "completed") break;
    }
    const told = await Promise.all((await messages).map(text));
    const last = (await values).at(-1);
    await thread.close();
    return { runId: started.run_id, cuts, events, told, log: last.log };
  },

  /** Turn by turn on one thread, by the same stream and by a new one each time. */
  async turns(transport) {
    const counts = [];
    const thread = opened("chatting", transport);
    for (const turn of ["one", "two"]) {
      const { run_id: runId } = await thread.run.start({ input: said(turn) });
      await client().runs.join(thread.threadId, runId);
      counts.push((await client().threads.getState(thread.threadId)).values.messages.length);
    }
    await thread.close();
    for (const turn of ["three", "four"]) {
      const again = opened("chatting", transport, {}, thread.threadId);
      const { run_id: runId } = await again.run.start({ input: said(turn) });
      await client().runs.join(thread.threadId, runId);
      counts.push((await client().threads.getState(thread.threadId)).values.messages.length);
      await again.close();
    }
    return counts;
  },
});
