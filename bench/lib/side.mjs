/** Runs one side of a comparison in a process of its own: this trainer, or a PyTorch loop. */
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { root } from "../../scripts/quickstart/paths.mjs";
import { pairsPerStep } from "./models.mjs";

/**
 * What both sides report. Peak memory is read before anything is saved.
 * @typedef {object} Run
 * @property {number[]} stepSeconds measured steps; warm-up is left out
 * @property {number} chosenLogp mean log-probability of the chosen responses in the first step
 * @property {number} peakRss bytes
 * @property {number} loadBefore @property {number} loadAfter load average
 * @property {number} others share of the cores that other processes took
 *
 * @typedef {object} OwnFacts
 * @property {number} realTokens @property {number} computedTokens per step
 * @property {number} peakRssWithSave
 * @property {{ op: string, callsPerStep: number, secondsPerStep: number }[]} profile
 * @property {number} matmulFlopsPerStep of the products that ran, padding included
 * @property {number} matmulRoofSecondsPerStep the same products, each at its best
 * @property {(import("./record-matmuls.mjs").Matmul & { roofSeconds: number })[]} matmuls
 * @property {import("../../dist/native/index.js").AddonInfo["cpu"]} addon
 *
 * @typedef {Run & OwnFacts} OwnRun
 * @typedef {Run & { versions: Record<string, string> }} PeerRun
 *
 * @typedef {object} Work files of a benchmark run
 * @property {string} folder
 * @property {string} modelDir
 * @property {string} dataFile rows for the trainer
 * @property {string} pairsFile the same pairs for Python
 *
 * @typedef {{ steps: number, warmup: number, threads: number, checkpointing: boolean }} Effort
 */

/** Loops of torch_peer.py. */
export const peerVariants = ["trl-bf16", "prefix-bf16", "trl-fp32"];

const peerScript = fileURLToPath(new URL("../peer/torch_peer.py", import.meta.url));
const trainChild = fileURLToPath(new URL("train-child.mjs", import.meta.url));

/**
 * The recipe that the trainer gets: one epoch is one step, always over the same pairs.
 * @param {import("./models.mjs").BenchModel} model @param {Work} work @param {Effort} effort
 */
export function recipeYaml(model, work, { steps, warmup, checkpointing }) {
  return `model_name_or_path: ${JSON.stringify(work.modelDir)}
dataset_mixer:
  ${JSON.stringify(work.dataFile)}: 1.0
dataset_splits: [train]
output_dir: ${JSON.stringify(path.join(work.folder, "output"))}
loss_type: SimPER
max_length: ${model.maxLength}
max_prompt_length: ${model.prompt.most}
per_device_train_batch_size: ${model.batch}
gradient_accumulation_steps: ${model.accumulation}
max_steps: ${warmup + steps}
shuffle: false
learning_rate: 1.0e-6
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: ${model.dtype === "bf16"}
gradient_checkpointing: ${checkpointing}
save_strategy: "no"
logging_steps: 1
`;
}

/**
 * @param {import("./models.mjs").BenchModel} model @param {Work} work @param {Effort} effort
 * @returns {OwnRun}
 */
export function runOwn(model, work, effort) {
  const recipe = path.join(work.folder, "recipe.yaml");
  const result = path.join(work.folder, "own.json");
  const job = path.join(work.folder, "job.json");
  writeFileSync(recipe, recipeYaml(model, work, effort));
  const { warmup, threads } = effort;
  writeFileSync(job, JSON.stringify({ recipe, warmup, threads, result }));
  start(process.execPath, [trainChild, job]);
  return JSON.parse(readFileSync(result, "utf8"));
}

/**
 * @param {string} python an interpreter with torch and transformers, and trl for the trl loops
 * @param {string} variant a loop of torch_peer.py
 * @param {import("./models.mjs").BenchModel} model @param {Work} work @param {Effort} effort
 * @returns {PeerRun}
 */
export function runPeer(python, variant, model, work, { steps, warmup, threads }) {
  const result = path.join(work.folder, `${variant}.json`);
  const numbers = { batch: model.batch, accumulation: model.accumulation, steps, warmup, threads };
  start(python, [
    ...[peerScript, "--variant", variant, "--model", work.modelDir, "--pairs", work.pairsFile],
    ...["--max-length", String(model.maxLength), "--result", result],
    ...["--scratch", path.join(work.folder, variant)],
    ...Object.entries(numbers).flatMap(([name, value]) => [`--${name}`, String(value)]),
  ]);
  return JSON.parse(readFileSync(result, "utf8"));
}

/**
 * Why an interpreter cannot run these loops, or nothing.
 * @param {string} python @param {readonly string[]} variants
 * @returns {string | undefined}
 */
export function peerProblem(python, variants) {
  const needs = ["torch", "transformers"];
  if (variants.some((name) => name.startsWith("trl"))) needs.push("trl", "accelerate", "datasets");
  const run = spawnSync(python, ["-c", `import ${needs.join(", ")}`], { encoding: "utf8" });
  if (run.error) return `${python} cannot be run: ${run.error.message}`;
  if (run.status === 0) return undefined;
  const why = run.stderr.trim().split("\n").at(-1);
  return `${python}: ${why}; install what is missing: pip install ${needs.join(" ")}`;
}

/**
 * What the process prints is shown only when it fails: its results are in a file.
 * @param {string} program @param {string[]} args
 */
function start(program, args) {
  const env = { ...process.env, HF_HUB_OFFLINE: "1", TOKENIZERS_PARALLELISM: "false" };
  const run = spawnSync(program, args, { cwd: root, env, encoding: "utf8", maxBuffer: 1 << 28 });
  if (run.error) throw new Error(`${program}: cannot be run: ${run.error.message}`);
  if (run.status === 0) return;
  const ended = run.signal ? `by ${run.signal}` : `with exit code ${run.status}`;
  const last = `${run.stdout}${run.stderr}`.trim().split("\n").slice(-20).join("\n");
  throw new Error(`${path.basename(args[0] ?? program)} ended ${ended}:\n${last}`);
}

/**
 * Pairs per second of a run: by the median step.
 * @param {import("./models.mjs").BenchModel} model @param {number} stepSeconds
 */
export function pairsPerSecond(model, stepSeconds) {
  return pairsPerStep(model) / stepSeconds;
}
