// Every op at the sizes of a training step: time, bandwidth, rate, and how far that is from what the machine
// can do, measured in the same run.
//
//   npm run bench:ops -- [--model 135m|m15|tiny] [--dtype bf16|f32] [--threads n] [--only part-of-a-name] [--save]
//                        [--device cpu|cuda]     with cuda also: --model 1b|8b
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { root } from "../scripts/quickstart/paths.mjs";
import { commit, cudaDetail, gpuSlug, loadAverage, machine, machineSlug } from "./lib/machine.mjs";
import { gpuModels, models, pairsPerStep } from "./lib/models.mjs";
import { makePairs } from "./lib/pairs.mjs";
import { median } from "./lib/statistics.mjs";

/** @param {string} message @returns {never} */
function fail(message) {
  console.error(`bench:ops: ${message}`);
  process.exit(2);
}

function readOptions() {
  const text = /** @type {const} */ ({ type: "string" });
  const options = { model: text, dtype: text, threads: text, only: text, device: text };
  try {
    const { values } = parseArgs({
      options: { ...options, save: /** @type {const} */ ({ type: "boolean" }) },
    });
    const { device = "cpu" } = values;
    if (device !== "cpu" && device !== "cuda") {
      return fail(`--device: expected cpu or cuda, received ${device}`);
    }
    const known = device === "cuda" ? { ...models, ...gpuModels } : models;
    const shape = known[values.model ?? "135m"];
    if (!shape) {
      return fail(`--model: expected ${Object.keys(known).join(", ")}, received ${values.model}`);
    }
    const { dtype = shape.dtype, only = "", save = false } = values;
    if (dtype !== "bf16" && dtype !== "f32") {
      return fail(`--dtype: expected bf16 or f32, received ${dtype}`);
    }
    const threads = values.threads === undefined ? machine().cores : Number(values.threads);
    if (!Number.isInteger(threads) || threads < 1) {
      return fail(`--threads: expected a whole number from 1 on, received ${values.threads}`);
    }
    return {
      model: { ...shape, dtype: /** @type {"bf16" | "f32"} */ (dtype) },
      ...{ device, threads, only, save },
    };
  } catch (error) {
    return fail(/** @type {Error} */ (error).message);
  }
}

async function main() {
  const { model, device: deviceName, threads, only, save } = readOptions();
  if (!existsSync(path.join(root, "dist", "native", "index.js"))) {
    fail("dist/native/index.js not found, expected the compiled package; run: npm run build");
  }
  const { addonInfo, openDevice } = await import("../dist/native/index.js");
  const { opBenches } = await import("./lib/op-cases.mjs");
  const { createRoofs, timeBench } = await import("./lib/time-ops.mjs");

  const benches = opBenches(model, makePairs(model, pairsPerStep(model), 1234)).filter(({ op }) =>
    op.includes(only),
  );
  if (benches.length === 0) fail(`--only: expected part of an op's name, received ${only}`);

  const facts = { date: new Date().toISOString(), commit: commit(), machine: machine() };
  const load = loadAverage();
  const device = openDevice(deviceName, { threads });
  const footprints = benches.map(({ bytes }) => bytes);
  const roofs = createRoofs(device, model.dtype, footprints);
  await roofs.measure();
  const timed = [];
  for (const bench of benches) {
    const seconds = await timeBench(device, bench);
    console.error(`${bench.op} (${bench.sizes}): ${(1e6 * median(seconds)).toFixed(0)} µs`);
    timed.push({ bench, seconds });
    if (bench.op.startsWith("matmul")) roofs.raiseFlops((bench.flops ?? 0) / Math.min(...seconds));
  }
  await roofs.measure();
  device.dispose();

  const peak = roofs.flops;
  const memory = roofs.bytesPerSecond(2 ** 30);
  const rows = timed.map(({ bench: { op, sizes, bytes, flops = 0 }, seconds }) => {
    const best = Math.min(...seconds);
    const memorySeconds = bytes / roofs.bytesPerSecond(bytes);
    const computeSeconds = flops / peak;
    return {
      ...{ op, sizes, calls: seconds.length },
      ...{ medianMicroseconds: 1e6 * median(seconds), bestMicroseconds: 1e6 * best },
      ...{ gigabytesPerSecond: bytes / best / 1e9, gflops: flops / best / 1e9 },
      roof: computeSeconds > memorySeconds ? "GEMM" : "memory",
      ofRoof: Math.max(memorySeconds, computeSeconds) / best,
    };
  });
  const gpu = deviceName === "cuda" ? cudaDetail(addonInfo()) : undefined;
  const where =
    gpu ?? `${threads} threads, ${facts.machine.cpu}${facts.machine.amx ? " with AMX" : ""}`;
  console.log(
    `${model.title}, ${model.dtype}, ${where}; ` +
      `commit ${facts.commit}, load average ${load.toFixed(1)}.\n` +
      `GEMM peak ${(peak / 1e9).toFixed(0)} GFLOP/s, memory bandwidth ${(memory / 1e9).toFixed(1)} GB/s over 1 GiB.\n\n` +
      "| op | sizes | µs, median | µs, best | GB/s | GFLOP/s | roof | of roof |\n|---|---|---|---|---|---|---|---|",
  );
  for (const row of rows) {
    console.log(
      `| ${row.op} | ${row.sizes} | ${row.medianMicroseconds.toFixed(0)} | ${row.bestMicroseconds.toFixed(0)} | ` +
        `${row.gigabytesPerSecond.toFixed(1)} | ${row.gflops ? row.gflops.toFixed(0) : ""} | ${row.roof} | ` +
        `${(100 * row.ofRoof).toFixed(0)}% |`,
    );
  }
  if (save) {
    const slug = gpu ? gpuSlug(gpu) : machineSlug(facts.machine);
    const file = `${facts.date.slice(0, 10)}-${facts.commit}-${slug}-ops-${model.name}.json`;
    const setting = { model: model.name, dtype: model.dtype, threads, device: gpu ?? "cpu" };
    const roof = { gemmFlops: peak, memoryBytesPerSecond: memory };
    const result = { format: 1, ...facts, load: [load, loadAverage()], setting, roof, ops: rows };
    mkdirSync(path.join(root, "bench", "results"), { recursive: true });
    writeFileSync(
      path.join(root, "bench", "results", file),
      `${JSON.stringify(result, null, 1)}\n`,
    );
    console.error(`wrote bench/results/${file}`);
  }
}

await main().catch((/** @type {Error} */ error) => {
  console.error(`bench:ops: ${error.message}`);
  process.exitCode = 1;
});
