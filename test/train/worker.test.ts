import assert from "node:assert/strict";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import type { RecipeInput } from "#src/config/schema.js";
import { runRecipe, temporaryFolder, trajectory, weightBytes } from "./support.js";

// What a worker thread runs: the public API, by address, because a data: module belongs to no package.
const CODE = `
  import { parentPort, workerData } from "node:worker_threads";
  const { defineConfig, train } = await import(workerData.api);
  const { config } = defineConfig(workerData.recipe);
  const summary = await train({
    config,
    threads: 1,
    onStep: ({ step }) => parentPort.postMessage({ step }),
  });
  parentPort.postMessage({ summary });
`;

/** Trains in a worker thread; `watch` is told of every message and may terminate it. */
function trainInWorker(
  recipe: RecipeInput,
  watch: (message: { step?: number; summary?: unknown }, worker: Worker) => void = () => {},
): Promise<number> {
  const api = new URL("../../dist/index.js", import.meta.url).href;
  const url = new URL(`data:text/javascript,${encodeURIComponent(CODE)}`);
  const worker = new Worker(url, { workerData: { api, recipe } });
  return new Promise((resolve, reject) => {
    worker.on("message", (message) => watch(message, worker));
    worker.on("error", reject);
    worker.on("exit", resolve);
  });
}

test("worker: a run in a worker thread writes the bits of a run in the main thread", async (t) => {
  const folder = temporaryFolder(t);
  const recipe = (name: string) => trajectory({ maxSteps: 3, outputDir: `${folder}/${name}` });
  const messages: unknown[] = [];
  const code = await trainInWorker(recipe("worker"), (message) => messages.push(message));
  assert.equal(code, 0);
  assert.deepEqual(messages.slice(0, 3), [{ step: 1 }, { step: 2 }, { step: 3 }]);
  const main = { ...recipe("main"), outputDir: `${folder}/main` };
  await runRecipe(main, { threads: 1 });
  assert.deepEqual(weightBytes(`${folder}/worker`), weightBytes(`${folder}/main`));
});

test("worker: of three runs at once one is terminated in the middle, the others finish", async (t) => {
  const folder = temporaryFolder(t);
  const recipe = (name: string, maxSteps: number) =>
    trajectory({ maxSteps, outputDir: `${folder}/${name}` });
  const [first, killed, third] = await Promise.all([
    trainInWorker(recipe("first", 12)),
    trainInWorker(recipe("killed", 2000), ({ step }, worker) => {
      if (step === 4) void worker.terminate();
    }),
    trainInWorker(recipe("third", 12)),
  ]);
  assert.deepEqual([first, killed, third], [0, 1, 0]);
  assert.deepEqual(weightBytes(`${folder}/first`), weightBytes(`${folder}/third`));
});
