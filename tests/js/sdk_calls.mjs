// Every method of the SDK's five clients that is no stream. The graphs are those of test_javascript_sdk.py.
import assert from "node:assert/strict";
import { client, eventually, main, refusal } from "./common.mjs";

const api = client();
const { assistants, threads, runs, store, crons } = api;
const nobody = "00000000-0000-4000-8000-000000000000";

const seen = async (thread) => (await threads.getState(thread)).values.seen;

async function open(gate) {
  await store.putItem(["gates"], gate, { open: true });
}

/** A run that stands at a gate, known to run. */
async function held(gate, options = {}) {
  const { thread_id: thread } = await threads.create();
  const run = await runs.create(thread, "steps", { input: { gates: [gate] }, ...options });
  await eventually(async () => (await runs.get(thread, run.run_id)).status === "running");
  return { thread, run: run.run_id };
}

await main({
  async assistants() {
    const found = await assistants.search({ limit: 100 });
    const steps = found.find((assistant) => assistant.graph_id === "steps");
    assert.equal((await assistants.get(steps.assistant_id)).graph_id, "steps");
    const graph = await assistants.getGraph(steps.assistant_id, { xray: true });
    assert.ok(graph.nodes.length > 3 && graph.edges.length > 2);
    assert.ok("seen" in (await assistants.getSchemas(steps.assistant_id)).state_schema.properties);
    assert.deepEqual(Object.keys(await assistants.getSubgraphs(steps.assistant_id)), ["inner"]);
    assert.deepEqual(Object.keys(await assistants.getSubgraphs(steps.assistant_id, { namespace: "inner" })), ["inner"]);

    const made = await assistants.create({
      graphId: "steps", name: "acme", description: "for acme", context: { tenant: "acme" }, metadata: { team: "a" },
      config: { tags: ["acme"] },
    });
    assert.equal(made.version, 1);
    assert.equal((await runs.wait(null, made.assistant_id, { input: {} })).tenant, "acme");
    const changed = await assistants.update(made.assistant_id, { graphId: "steps", context: { tenant: "globex" } });
    assert.equal(changed.version, 2);
    assert.equal((await runs.wait(null, made.assistant_id, { input: {} })).tenant, "globex");
    assert.deepEqual((await assistants.getVersions(made.assistant_id)).map((one) => one.version), [2, 1]);
    await assistants.setLatest(made.assistant_id, 1);
    assert.equal((await runs.wait(null, made.assistant_id, { input: {} })).tenant, "acme");
    assert.equal(await assistants.count({ metadata: { team: "a" } }), 1);
    assert.equal(await assistants.count({ name: "acme", graphId: "steps" }), 1);
    const page = await assistants.search({ limit: 1, sortBy: "name", sortOrder: "asc", includePagination: true });
    assert.equal(page.assistants.length, 1);
    assert.equal(page.next, "1");
    assert.equal((await refusal(assistants.create({ graphId: "steps", assistantId: made.assistant_id }))).status, 409);
    const same = await assistants.create({ graphId: "steps", assistantId: made.assistant_id, ifExists: "do_nothing" });
    assert.equal(same.name, "acme");
    await assistants.delete(made.assistant_id);
    assert.equal((await refusal(assistants.get(made.assistant_id))).status, 404);
    assert.equal((await refusal(assistants.get(nobody))).status, 404);
  },

  async threads() {
    const made = await threads.create({ metadata: { user: "ada" }, graphId: "steps" });
    assert.equal(made.metadata.user, "ada");
    assert.equal(made.metadata.graph_id, "steps");
    assert.equal((await refusal(threads.create({ threadId: made.thread_id }))).status, 409);
    assert.equal((await threads.create({ threadId: made.thread_id, ifExists: "do_nothing" })).thread_id, made.thread_id);
    assert.equal((await threads.update(made.thread_id, { metadata: { level: 2 } })).metadata.level, 2);
    assert.equal(await threads.update(made.thread_id, { metadata: { level: 3 }, returnMinimal: true }), undefined);
    assert.equal((await threads.get(made.thread_id)).metadata.level, 3);

    await runs.wait(made.thread_id, "steps", { input: { seen: ["given"] } });
    assert.deepEqual(await seen(made.thread_id), ["given", "first", "inner", "last"]);
    const history = await threads.getHistory(made.thread_id, { limit: 10 });
    assert.ok(history.length >= 4);
    assert.equal((await threads.getHistory(made.thread_id, { limit: 2 })).length, 2);
    const before = await threads.getHistory(made.thread_id, { before: history[1].checkpoint });
    assert.equal(before[0].checkpoint.checkpoint_id, history[2].checkpoint.checkpoint_id);
    const [{ checkpoint }] = history.filter((state) => state.next.includes("inner"));
    for (const given of [checkpoint, checkpoint.checkpoint_id]) {
      const state = await threads.getState(made.thread_id, given, { subgraphs: true });
      assert.deepEqual(state.next, ["inner"]);
      assert.deepEqual(state.values.seen, ["given", "first"]);
    }
    assert.equal((await threads.search({ metadata: { user: "ada" }, status: "idle", sortBy: "created_at" })).length, 1);
    await threads.updateState(made.thread_id, { values: { seen: ["by hand"] }, asNode: "last" });
    assert.equal((await seen(made.thread_id)).at(-1), "by hand");
    const fork = await threads.updateState(made.thread_id, { values: { seen: ["fork"] }, checkpoint, asNode: "inner" });
    assert.ok(fork.checkpoint.checkpoint_id);
    assert.deepEqual((await threads.getState(made.thread_id)).next, ["last"]);

    const copy = await threads.copy(made.thread_id);
    assert.notEqual(copy.thread_id, made.thread_id);
    assert.deepEqual(await seen(copy.thread_id), await seen(made.thread_id));
    const whose = { metadata: { user: "ada" } };
    assert.equal(await threads.count(whose), 2);
    assert.equal((await threads.search({ ...whose, limit: 1, sortOrder: "asc" })).length, 1);
    assert.equal((await threads.search({ ids: [copy.thread_id] }))[0].thread_id, copy.thread_id);
    assert.deepEqual(Object.keys((await threads.search({ ...whose, select: ["thread_id"] }))[0]), ["thread_id"]);

    const stepped = await threads.create({
      graphId: "steps",
      supersteps: [{ updates: [{ values: { seen: ["x"] }, asNode: "__start__" }] },
        { updates: [{ values: { seen: ["y"] }, asNode: "first" }] }],
    });
    assert.deepEqual(await seen(stepped.thread_id), ["x", "y"]);
    assert.equal((await threads.prune([stepped.thread_id])).pruned_count, 1);
    assert.equal((await refusal(threads.get(stepped.thread_id))).status, 404);
    await threads.delete(copy.thread_id);
    assert.equal((await refusal(threads.get(copy.thread_id))).status, 404);
    for (const call of ["getState", "getHistory", "copy", "delete"]) {
      assert.equal((await refusal(threads[call](nobody))).status, 404, call);
    }
  },

  async runs() {
    const { thread_id: thread } = await threads.create();
    let created;
    const run = await runs.create(thread, "steps", {
      input: {}, metadata: { why: "js" }, config: { tags: ["js"] }, context: { tenant: "acme" },
      onRunCreated: (about) => (created = about),
    });
    assert.deepEqual(created, { run_id: run.run_id, thread_id: thread });
    assert.equal((await runs.join(thread, run.run_id)).tenant, "acme");
    const known = await runs.get(thread, run.run_id);
    assert.deepEqual([known.status, known.metadata.why, known.thread_id], ["success", "js", thread]);
    assert.deepEqual((await runs.list(thread, { status: "success" })).map((one) => one.run_id), [run.run_id]);
    assert.deepEqual(await runs.list(thread, { status: "error" }), []);
    await runs.delete(thread, run.run_id);
    assert.equal((await refusal(runs.get(thread, run.run_id))).status, 404);

    await assert.rejects(runs.wait(null, "broken", { input: { text: "luck" } }), /ValueError: no luck/);
    const quiet = await runs.wait(null, "broken", { input: { text: "luck" }, raiseError: false });
    assert.equal(quiet.__error__.error, "ValueError");
    assert.equal((await refusal(runs.wait(thread, "nobody", { input: {} }))).status, 404);
    assert.equal((await refusal(runs.wait(nobody, "steps", { input: {} }))).status, 404);
    assert.ok(await runs.wait(crypto.randomUUID(), "steps", { input: {}, ifNotExists: "create" }));
  },

  async batch() {
    const made = await runs.createBatch([
      { assistantId: "steps", input: { seen: ["a"] } },
      { assistantId: "steps", input: { seen: ["b"] } },
    ]);
    assert.equal(made.length, 2);
    for (const run of made) assert.equal(run.assistant_id.length, 36);
    const alone = await runs.create(null, "steps", { input: {} });
    assert.ok(alone.run_id);
  },

  async interrupts() {
    const { thread_id: thread } = await threads.create();
    const asked = await runs.wait(thread, "steps", { input: { ask: "Really?" } });
    assert.equal(asked.__interrupt__[0].value.question, "Really?");
    const waiting = await threads.get(thread);
    assert.equal(waiting.status, "interrupted");
    assert.equal(Object.values(waiting.interrupts)[0][0].value.question, "Really?");
    assert.deepEqual((await threads.getState(thread)).next, ["last"]);
    const answered = await runs.wait(thread, "steps", { command: { resume: "yes" } });
    assert.ok(answered.seen.includes("yes"));
    assert.equal((await threads.get(thread)).status, "idle");

    const other = (await threads.create()).thread_id;
    await runs.wait(other, "steps", { input: {}, interruptBefore: ["inner"] });
    assert.deepEqual((await threads.getState(other)).next, ["inner"]);
    await runs.wait(other, "steps", { input: null, interruptAfter: ["inner"] });
    assert.deepEqual((await threads.getState(other)).next, ["last"]);
    await runs.wait(other, "steps", { command: { goto: "last", update: { seen: ["jumped"] } } });
    assert.ok((await seen(other)).includes("jumped"));
  },

  async checkpoints() {
    const { thread_id: thread } = await threads.create();
    await runs.wait(thread, "steps", { input: { seen: ["one"] }, durability: "sync" });
    const history = await threads.getHistory(thread);
    const { checkpoint } = history.find((state) => state.next.includes("inner"));
    const again = await runs.wait(thread, "steps", { input: null, checkpoint });
    assert.deepEqual(again.seen, ["one", "first", "inner", "last"]);
    const byId = await runs.wait(thread, "steps", { input: null, checkpointId: checkpoint.checkpoint_id });
    assert.deepEqual(byId.seen, again.seen);
    assert.equal((await refusal(runs.wait(thread, "steps", { input: null, checkpointId: nobody }))).status, 404);
  },

  async multitask() {
    const first = await held("m1");
    const rejected = await refusal(runs.create(first.thread, "steps", { input: {}, multitaskStrategy: "reject" }));
    assert.equal(rejected.status, 409);
    const queued = await runs.create(first.thread, "steps", { input: { seen: ["queued"] }, multitaskStrategy: "enqueue" });
    assert.equal(queued.status, "pending");
    await open("m1");
    await runs.join(first.thread, queued.run_id);
    assert.ok((await seen(first.thread)).includes("queued"));

    const second = await held("m2");
    const instead = await runs.create(second.thread, "steps", { input: { seen: ["instead"], gates: [] }, multitaskStrategy: "interrupt" });
    await runs.join(second.thread, instead.run_id);
    assert.equal((await runs.get(second.thread, second.run)).status, "interrupted");

    const third = await held("m3");
    const over = await runs.create(third.thread, "steps", { input: { seen: ["over"] }, multitaskStrategy: "rollback" });
    await runs.join(third.thread, over.run_id);
    assert.equal((await refusal(runs.get(third.thread, third.run))).status, 404);
    assert.deepEqual(await seen(third.thread), ["over", "first", "inner", "last"]);
  },

  async cancelling() {
    const first = await held("c1");
    await runs.cancel(first.thread, first.run, true);
    assert.equal((await runs.get(first.thread, first.run)).status, "interrupted");
    const second = await held("c2");
    await runs.cancel(second.thread, second.run, true, "rollback");
    assert.equal((await refusal(runs.get(second.thread, second.run))).status, 404);
    const third = await held("c3");
    await runs.cancel(third.thread, third.run);
    await eventually(async () => (await runs.get(third.thread, third.run)).status === "interrupted");
    const fourth = await held("c4");
    await runs.cancelMany({ threadId: fourth.thread, runIds: [fourth.run] });
    await eventually(async () => (await runs.get(fourth.thread, fourth.run)).status === "interrupted");
    const fifth = await held("c5");
    await runs.cancelMany({ status: "running" });
    await eventually(async () => (await runs.get(fifth.thread, fifth.run)).status === "interrupted");
    assert.equal((await refusal(runs.cancel(first.thread, nobody))).status, 404);
  },

  async store() {
    await store.putItem(["users", "ada"], "likes", { fruit: "fig", rank: 2 });
    await store.putItem(["users", "bob"], "likes", { fruit: "plum" }, { index: false });
    const item = await store.getItem(["users", "ada"], "likes");
    assert.deepEqual(item.value, { fruit: "fig", rank: 2 });
    assert.ok(item.createdAt && item.updatedAt);
    const found = await store.searchItems(["users"], { filter: { fruit: "plum" }, limit: 5, offset: 0 });
    assert.deepEqual(found.items.map((one) => one.namespace), [["users", "bob"]]);
    assert.equal((await store.searchItems(["users"], { limit: 1 })).items.length, 1);
    assert.deepEqual((await store.listNamespaces({ prefix: ["users"], maxDepth: 1 })).namespaces, [["users"]]);
    assert.equal((await store.listNamespaces({ suffix: ["bob"] })).namespaces.length, 1);
    await store.deleteItem(["users", "ada"], "likes");
    const gone = await store.getItem(["users", "ada"], "likes").catch((error) => error.status);
    assert.ok(gone === null || gone === 404);
  },

  async crons() {
    const cron = await crons.create("steps", {
      schedule: "0 9 * * 1", timezone: "Europe/Berlin", input: {}, metadata: { kind: "weekly" }, enabled: false,
      onRunCompleted: "keep", endTime: "2099-01-01T00:00:00Z",
    });
    assert.equal(cron.schedule, "0 9 * * 1");
    const { thread_id: thread } = await threads.create();
    const own = await crons.createForThread(thread, "steps", { schedule: "*/5 * * * *", input: {} });
    assert.equal(own.thread_id, thread);
    assert.equal(await crons.count(), 2);
    assert.deepEqual((await crons.search({ threadId: thread })).map((one) => one.cron_id), [own.cron_id]);
    assert.deepEqual((await crons.search({ enabled: false })).map((one) => one.cron_id), [cron.cron_id]);
    assert.equal((await crons.update(cron.cron_id, { schedule: "0 10 * * 1", enabled: true })).schedule, "0 10 * * 1");
    await crons.delete(cron.cron_id);
    assert.equal(await crons.count(), 1);
    assert.equal((await refusal(crons.delete(cron.cron_id))).status, 404);
    const bad = await refusal(crons.create("steps", { schedule: "every now and then", input: {} }));
    assert.equal(bad.status, 422);
  },
});
