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

/** @type {{ recipe: string, warmup: number, threads?: number, result: string }} */
const job = JSON.parse(readFileSync(/** @type {string} */ (process.argv[2]), "utf8"));
const { config, baseDir } = loadRecipe(job.recipe);

// The trainer opens the stream; which products it is given is heard here.
let endRecording = () => /** @type {import("./record-matmuls.mjs").Matmul[]} */ ([]);
const open = Device.prototype.stream;
Device.prototype.stream = function () {
  const stream = open.call(this);
  endRecording = recordMatmuls(stream);
  return stream;
};

const loadBefore = loadAverage();
/** @type {import("../../dist/index.js").StepRecord[]} */
const records = [];
/** @type {import("../../dist/index.js").ProfileRecord | undefined} */
let profile;
let clock = cpuClock();
let others = 0;
let peakRss = 0;
await train({
  config,
  baseDir,
  device: "cpu",
  ...(job.threads ? { threads: job.threads } : {}),
  profile: { first: job.warmup + 1, last: config.maxSteps },
  reporters: [
    {
      // Called as soon as a step's results are there, when the next one has hardly begun.
      step(record) {
        records.push(record);
        if (records.length <= job.warmup) {
          clock = cpuClock();
          return;
        }
        others = takenByOthers(clock, cpuClock());
        peakRss = peakMemory();
      },
      start() {},
      eval() {},
      profile(record) {
        profile = record;
      },
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
  profile: (profile?.ops ?? []).map(({ op, calls_per_step, ms_per_step }) => ({
    op,
    callsPerStep: calls_per_step,
    secondsPerStep: ms_per_step / 1e3,
  })),
  matmulFlopsPerStep: matmulFlops(matmuls),
  matmulRoofSecondsPerStep: matmuls.reduce((sum, { count }, i) => sum + count * (roof[i] ?? 0), 0),
  matmuls: matmuls.map((product, i) => ({ ...product, roofSeconds: roof[i] ?? 0 })),
  addon: addonInfo().cpu,
};
writeFileSync(job.result, JSON.stringify(run));
