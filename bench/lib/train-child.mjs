// Trains the benchmark's model with the real trainer and writes what it measured: a process of its own, so
// that peak memory is that of training. Started by cpu.mjs:
//
//   node bench/lib/train-child.mjs <job.json>      {recipe, warmup, threads?, result}
import { readFileSync, writeFileSync } from "node:fs";
import { loadRecipe, train } from "../../dist/index.js";
import { addonInfo, Device, openDevice } from "../../dist/native/index.js";
import { cpuClock, loadAverage, peakMemory, takenByOthers } from "./machine.mjs";
import { matmulFlops, recordMatmuls } from "./record-matmuls.mjs";
import { matmulRoof } from "./roof.mjs";

/** @typedef {import("../../dist/native/index.js").Stream} Stream */

/** @type {{ recipe: string, warmup: number, threads?: number, result: string }} */
const job = JSON.parse(readFileSync(/** @type {string} */ (process.argv[2]), "utf8"));
const { config, baseDir } = loadRecipe(job.recipe);

// The trainer opens the stream; its profile is read from here.
/** @type {Stream | undefined} */
let stream;
let endRecording = () => /** @type {import("./record-matmuls.mjs").Matmul[]} */ ([]);
const open = Device.prototype.stream;
Device.prototype.stream = function () {
  stream = open.call(this);
  endRecording = recordMatmuls(stream);
  return stream;
};

const loadBefore = loadAverage();
/** @type {import("../../dist/index.js").StepRecord[]} */
const records = [];
/** @type {Record<string, { calls: number, seconds: number }>} */
const profile = {};
let clock = cpuClock();
let others = 0;
let peakRss = 0;
await train({
  config,
  baseDir,
  device: "cpu",
  ...(job.threads ? { threads: job.threads } : {}),
  reporters: [
    {
      // Called as soon as a step's results are there, when the next one has hardly begun: the profile
      // since the call before is that of the step.
      step(record) {
        const times = stream?.takeProfile() ?? [];
        records.push(record);
        if (records.length <= job.warmup) {
          clock = cpuClock();
          return;
        }
        for (const { op, calls, seconds } of times) {
          profile[op] ??= { calls: 0, seconds: 0 };
          profile[op].calls += calls;
          profile[op].seconds += seconds;
        }
        others = takenByOthers(clock, cpuClock());
        peakRss = peakMemory();
      },
      start() {},
      eval() {},
      notice: (text) => console.error(`  ${text}`),
      end() {},
    },
  ],
});
// Recorded over the whole run; every step has the same pairs, hence the same products.
const matmuls = endRecording().map((product) => ({
  ...product,
  count: product.count / records.length,
}));
const peakRssWithSave = peakMemory();

Device.prototype.stream = open;
const device = openDevice("cpu", job.threads ? { threads: job.threads } : {});
const roof = await matmulRoof(device, matmuls);
device.dispose();

const measured = records.slice(job.warmup);
/** @type {import("./side.mjs").OwnRun} */
const run = {
  stepSeconds: measured.map((record) => record.step_time),
  chosenLogp: records[0]?.["logps/chosen"] ?? Number.NaN,
  realTokens: measured[0]?.num_tokens ?? 0,
  computedTokens: measured[0]?.num_computed_tokens ?? 0,
  peakRss,
  peakRssWithSave,
  loadBefore,
  loadAfter: loadAverage(),
  others,
  profile: Object.entries(profile)
    .map(([op, { calls, seconds }]) => ({
      op,
      callsPerStep: calls / measured.length,
      secondsPerStep: seconds / measured.length,
    }))
    .sort((a, b) => b.secondsPerStep - a.secondsPerStep),
  matmulFlopsPerStep: matmulFlops(matmuls),
  matmulRoofSecondsPerStep: matmuls.reduce((sum, { count }, i) => sum + count * (roof[i] ?? 0), 0),
  matmuls: matmuls.map((product, i) => ({ ...product, roofSeconds: roof[i] ?? 0 })),
  addon: addonInfo().cpu,
};
writeFileSync(job.result, JSON.stringify(run));
