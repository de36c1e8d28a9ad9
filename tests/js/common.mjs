// What every script shares: its arguments, its one line of JSON, and a deadline.
import { Client } from "@langchain/langgraph-sdk";

export const [url, scenario, ...rest] = process.argv.slice(2);

export function client(options = {}) {
  return new Client({ apiUrl: url, callerOptions: { maxRetries: 0 }, ...options });
}

/** A state with one message of a person. */
export function said(text) {
  return { messages: [{ role: "user", content: text }] };
}

/** Run the named scenario and print what it gives; where it throws, say why and end with status 1. */
export async function main(scenarios) {
  const wanted = scenarios[scenario];
  if (wanted === undefined) throw new Error(`there is no scenario '${scenario}'`);
  let result;
  try {
    result = await wanted(...rest);
  } catch (error) {
    process.stderr.write(`${error.stack}\n${error.text ?? ""}\n`, () => process.exit(1));
    await new Promise(() => {});
  }
  process.stdout.write(`${JSON.stringify(result ?? null)}\n`, () => process.exit(0));
}

export async function collect(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return parts;
}

/** What a call was refused with. */
export async function refusal(promise) {
  try {
    await promise;
  } catch (error) {
    return { status: error.status ?? null, message: String(error.message) };
  }
  throw new Error("it was not refused");
}

/** The first answer that is true. */
export async function eventually(ask, withinMs = 15_000) {
  const ends = Date.now() + withinMs;
  for (;;) {
    const found = await ask();
    if (found) return found;
    if (Date.now() > ends) throw new Error(`not within ${withinMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
