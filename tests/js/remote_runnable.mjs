// LangServe's client for JavaScript, which langchain-core has up to 0.3.
import { HumanMessage } from "langchain-core-0/messages";
import { RunnableLambda } from "langchain-core-0/runnables";
import { RemoteRunnable } from "langchain-core-0/runnables/remote";
import { collect } from "./common.mjs";

const [url] = process.argv.slice(2);
const echo = new RemoteRunnable({ url: `${url}/echo` });
const broken = new RemoteRunnable({ url: `${url}/broken` });
const input = (text) => ({ messages: [new HumanMessage(text)] });
const last = (answer) => answer.messages.at(-1).content;

async function error(run) {
  try {
    await run();
  } catch (caught) {
    return String(caught.message);
  }
  throw new Error("it did not fail");
}

const invoked = last(await echo.invoke(input("hello"), { tags: ["js"], metadata: { from: "node" } }));
const batch = await echo.batch([input("a"), input("b"), input("c")], { maxConcurrency: 2 });
const batched = batch.map((answer, at) => last(answer).includes("abc"[at]));
const chunks = (await collect(await echo.stream(input("hello")))).map((chunk) => Object.keys(chunk));

let log;
for await (const patch of echo.streamLog(input("hello"))) log = log === undefined ? patch : log.concat(patch);
const state = log.ops.reduce((known, op) => (op.path === "" ? op.value : known), {});
const ended = log.ops.some((op) => op.path.startsWith("/final_output"));

const events = (await collect(echo.streamEvents(input("hello"), { version: "v2" }))).map((e) => [e.event, e.name]);
const chain = RunnableLambda.from((text) => input(text)).pipe(echo).pipe(RunnableLambda.from(last));
const chained = (await chain.invoke("linked")).includes("linked");

const unknown = await error(() => new RemoteRunnable({ url: `${url}/nobody` }).invoke(input("x")));
const failed = await error(() => broken.invoke({ text: "luck" }));
const failedStream = await error(async () => collect(await broken.stream({ text: "luck" })));

const found = { invoked, batched, chunks, log: { name: state.name, ended }, events, chained, unknown, failed, failedStream };
process.stdout.write(`${JSON.stringify(found)}\n`, () => process.exit(0));
