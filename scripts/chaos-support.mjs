// What chaos.mjs and chaos-ranks.mjs have in common: chance with a seed, and what a run has left in its folder.
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, watch as watchFolder } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { openSafetensors } from "../dist/checkpoint/safetensors.js";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const fixture = path.join(root, "test/fixtures/model/llama-gqa");

/** Numbers in [0, 1) that depend on the seed alone. */
export function createRandom(seed) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** What a command line asks of a chaos: numbers by name, each with its default; the seed is the clock's. */
export function readNumbers(defaults) {
  const all = { ...defaults, seed: Date.now() % 2 ** 31 };
  const options = Object.fromEntries(
    Object.entries(all).map(([name, value]) => [name, { type: "string", default: String(value) }]),
  );
  const { values } = parseArgs({ options });
  return Object.fromEntries(Object.entries(values).map(([name, text]) => [name, Number(text)]));
}

/** Words of a command that trains the small model, saves after every step, and goes on where a run ended. */
export function trainWords(outputDir, settings) {
  const all = {
    model_name_or_path: path.join(fixture, "model"),
    shuffle: true,
    save_strategy: "steps",
    save_steps: 1,
    resume_from_checkpoint: true,
    output_dir: outputDir,
    ...settings,
  };
  const words = Object.entries(all).flatMap(([key, value]) => [`--${key}`, String(value)]);
  return [path.join(root, "dist/cli.js"), "train", path.join(fixture, "trajectory.yaml"), ...words];
}

/** Steps of the checkpoints in a folder. */
export function stepsOf(dir) {
  return (existsSync(dir) ? readdirSync(dir) : [])
    .flatMap((name) => /^checkpoint-(\d+)$/.exec(name)?.[1] ?? [])
    .map(Number)
    .sort((a, b) => a - b);
}

const CLOCK = /"(step_time|train_runtime|\w+_per_second|\w*runtime)":\s*[-\d.e]+,?/g;

/** A digest of every file of a checkpoint, without what a clock decides; safetensors are read as such first. */
export async function digests(dir) {
  const found = {};
  for (const name of readdirSync(dir).sort()) {
    const file = path.join(dir, name);
    if (name.endsWith(".safetensors")) {
      const tensors = await openSafetensors(file);
      for (const tensor of tensors.names()) for await (const _ of tensors.chunks(tensor));
      await tensors.close();
    }
    const bytes = readFileSync(file);
    const text = name.endsWith(".json")
      ? JSON.stringify(JSON.parse(bytes)).replace(CLOCK, "")
      : bytes;
    found[name] = createHash("sha256").update(text).digest("hex");
  }
  return found;
}

/** The records of a run, without what a clock decides. */
export function metrics(dir) {
  return readFileSync(path.join(dir, "metrics.jsonl"), "utf8").replace(CLOCK, "");
}

/** The weights that a run ended with. */
export function weights(dir) {
  return readFileSync(path.join(dir, "model.safetensors"));
}

/** Resolves after so many changes in a folder, or five seconds. */
export function eventsOf(dir, wanted) {
  return new Promise((resolve) => {
    let seen = 0;
    const end = () => {
      watcher.close();
      clearTimeout(timer);
      resolve();
    };
    const watcher = watchFolder(dir, () => {
      if (++seen >= wanted) end();
    });
    const timer = setTimeout(end, 5000);
    watcher.unref();
    timer.unref();
  });
}
