// Speed and memory of training on this machine's CPU; with --peer against PyTorch on the same pairs and weights.
//
//   npm run bench:cpu -- --help
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { root } from "../scripts/quickstart/paths.mjs";
import { commit, machine, machineSlug } from "./lib/machine.mjs";
import { writeModel } from "./lib/model-files.mjs";
import { models, pairsPerStep } from "./lib/models.mjs";
import { countTokens, makePairs, tokenizedRow } from "./lib/pairs.mjs";
import { markdown, summarize } from "./lib/report.mjs";
import { peerProblem, peerVariants, runOwn, runPeer } from "./lib/side.mjs";

const usage = `npm run bench:cpu -- [options]

  --model 135m|m15|tiny   shape of the model (135m)
  --dtype bf16|f32        of the weights here; default: bf16 for 135m, f32 for the others
  --steps <n>             measured steps of a run (5)
  --warmup <n>            steps before them (1)
  --rounds <n>            runs of each side, alternating (1; with --peer 3)
  --checkpointing         gradient_checkpointing: true on this side
  --threads <n>           compute threads of every side; default: the cores of this process
  --seed <n>              of the pairs (1234)
  --peer <python>         an interpreter with torch and transformers (and trl, accelerate, datasets)
  --variants <a,b>        loops of bench/peer/torch_peer.py: trl-bf16, prefix-bf16, trl-fp32
  --save                  keep every round in bench/results/; with --peer always
  --note <text>           a remark that goes into the result`;

/** @param {string} message @returns {never} */
function fail(message) {
  console.error(`bench:cpu: ${message}`);
  process.exit(2);
}

function readOptions() {
  const strings = ["model", "dtype", "steps", "warmup", "rounds", "threads", "seed"];
  const texts = [...strings, "peer", "variants", "note"];
  const options = Object.fromEntries(texts.map((name) => [name, { type: "string" }]));
  const flags = Object.fromEntries(
    ["checkpointing", "save", "help"].map((name) => [name, { type: "boolean" }]),
  );
  /** @type {Record<string, string | boolean | undefined>} */
  let values = {};
  try {
    const config = /** @type {import("node:util").ParseArgsConfig} */ ({
      options: { ...options, ...flags },
    });
    values = /** @type {typeof values} */ (parseArgs(config).values);
  } catch (error) {
    fail(`${/** @type {Error} */ (error).message}\n\n${usage}`);
  }
  if (values.help) {
    console.log(usage);
    process.exit(0);
  }
  const whole = (/** @type {string} */ name, /** @type {number} */ standard, least = 1) => {
    const value = values[name] === undefined ? standard : Number(values[name]);
    if (Number.isInteger(value) && value >= least) return value;
    return fail(`--${name}: expected a whole number from ${least} on, received ${values[name]}`);
  };
  const shape = models[String(values.model ?? "135m")];
  if (!shape) {
    return fail(`--model: expected ${Object.keys(models).join(", ")}, received ${values.model}`);
  }
  const dtype = values.dtype ?? shape.dtype;
  if (dtype !== "bf16" && dtype !== "f32") {
    return fail(`--dtype: expected bf16 or f32, received ${dtype}`);
  }
  const peer = /** @type {string | undefined} */ (values.peer);
  const named = /** @type {string | undefined} */ (values.variants)?.split(",");
  const variants = peer ? (named ?? shape.peers) : [];
  for (const name of variants) {
    if (peerVariants.includes(name)) continue;
    fail(`--variants: expected ${peerVariants.join(", ")}, received ${name}`);
  }
  const problem = peer && peerProblem(peer, variants);
  if (problem) fail(`--peer: ${problem}`);
  return {
    model: { ...shape, dtype: /** @type {"bf16" | "f32"} */ (dtype) },
    effort: {
      steps: whole("steps", 5),
      warmup: whole("warmup", 1, 0),
      threads: whole("threads", machine().cores),
      checkpointing: Boolean(values.checkpointing),
    },
    rounds: whole("rounds", peer ? 3 : 1),
    seed: whole("seed", 1234, 0),
    peer,
    variants,
    save: Boolean(values.save || peer),
    note: /** @type {string | undefined} */ (values.note),
  };
}

/**
 * A file of its own for every run: the name has its second in it.
 * @param {{ date: string, commit: string, machine: ReturnType<typeof machine> }} facts
 * @param {string} name of the model
 */
function resultFile({ date, commit, machine }, name) {
  const folder = path.join(root, "bench", "results");
  mkdirSync(folder, { recursive: true });
  const second = date.slice(0, 19).replaceAll(":", "");
  return path.join(folder, `${second}-${commit}-${machineSlug(machine)}-${name}.json`);
}

function main() {
  if (!existsSync(path.join(root, "dist", "index.js"))) {
    fail("dist/index.js not found, expected the compiled package; run: npm run build");
  }
  const options = readOptions();
  const { model, effort, rounds, seed, peer, variants } = options;
  const folder = mkdtempSync(path.join(tmpdir(), "simper-bench-"));
  try {
    const pairs = makePairs(model, pairsPerStep(model), seed);
    const work = {
      folder,
      modelDir: path.join(folder, "model"),
      dataFile: path.join(folder, "data", "train.jsonl"),
      pairsFile: path.join(folder, "pairs.jsonl"),
    };
    const jsonl = (/** @type {unknown[]} */ rows) =>
      rows.map((row) => `${JSON.stringify(row)}\n`).join("");
    mkdirSync(path.dirname(work.dataFile));
    writeFileSync(work.dataFile, jsonl(pairs.map(tokenizedRow)));
    writeFileSync(work.pairsFile, jsonl(pairs));
    writeModel(model, work.modelDir);

    /** @type {import("./lib/side.mjs").OwnRun[]} */
    const own = [];
    /** @type {Record<string, import("./lib/side.mjs").PeerRun[]>} */
    const peers = Object.fromEntries(variants.map((name) => [name, []]));
    const tell = (
      /** @type {string} */ name,
      /** @type {number} */ round,
      /** @type {number[]} */ seconds,
    ) =>
      console.error(
        `round ${round + 1}/${rounds}  ${name}: ${seconds.map((s) => s.toFixed(3)).join(" ")} s per step`,
      );
    const facts = { date: new Date().toISOString(), commit: commit(), machine: machine() };
    const { name, title, dtype, batch, accumulation } = model;
    const setting = { model: name, title, dtype, batch, accumulation, seed, rounds, ...effort };
    const note = options.note ? { note: options.note } : {};
    const tokens = countTokens(pairs);
    const file = resultFile(facts, name);
    // Every round is kept: one that is cut short loses nothing of those before it.
    const keep = (/** @type {number} */ done) => {
      const summary = summarize(model, pairs, own, peers);
      const runs = { own, peers };
      const shown = { ...setting, rounds: done };
      const result = { format: 1, ...facts, ...note, setting: shown, tokens, summary, runs };
      if (options.save) writeFileSync(file, `${JSON.stringify(result, null, 1)}\n`);
      return result;
    };
    let result;
    for (let round = 0; round < rounds; round++) {
      const run = runOwn(model, work, effort);
      own.push(run);
      tell("simper-native", round, run.stepSeconds);
      for (const variant of variants) {
        const other = runPeer(/** @type {string} */ (peer), variant, model, work, effort);
        peers[variant]?.push(other);
        tell(variant, round, other.stepSeconds);
      }
      result = keep(round + 1);
    }
    if (result) console.log(markdown(result));
    if (options.save) console.error(`wrote ${path.relative(root, file)}`);
  } catch (error) {
    console.error(`bench:cpu: ${/** @type {Error} */ (error).message}`);
    process.exitCode = 1;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

main();
