/** Numbers of a benchmark run, and the Markdown that shows them. */
import { stepFlops } from "./flops.mjs";
import { countTokens } from "./pairs.mjs";
import { pairsPerSecond } from "./side.mjs";
import { median, showSpread, spread } from "./statistics.mjs";

/** @typedef {import("./models.mjs").BenchModel} BenchModel */
/** @typedef {import("./side.mjs").OwnRun} OwnRun */
/** @typedef {import("./side.mjs").PeerRun} PeerRun */
/** @typedef {import("./statistics.mjs").Spread} Spread */

/**
 * Ratios of a round compare medians of runs that were made one after the other.
 * @param {BenchModel} model
 * @param {readonly import("./pairs.mjs").Pair[]} pairs of a step
 * @param {readonly OwnRun[]} own one per round
 * @param {Readonly<Record<string, readonly PeerRun[]>>} peers
 */
export function summarize(model, pairs, own, peers) {
  const tokens = countTokens(pairs);
  const speed = (/** @type {import("./side.mjs").Run} */ run) =>
    pairsPerSecond(model, median(run.stepSeconds));
  const side = (/** @type {readonly import("./side.mjs").Run[]} */ runs) => {
    const step = spread(runs.flatMap((run) => run.stepSeconds));
    return {
      stepSeconds: step,
      pairsPerSecond: pairsPerSecond(model, step.median),
      realTokensPerSecond: tokens.real / step.median,
      computedTokensPerSecond: tokens.computed / step.median,
      peakRssMiB: Math.max(...runs.map((run) => run.peakRss)) / 2 ** 20,
      others: Math.max(...runs.map((run) => run.others)),
      load: Math.max(...runs.flatMap((run) => [run.loadBefore, run.loadAfter])),
      chosenLogp: median(runs.map((run) => run.chosenLogp)),
    };
  };
  const flops = stepFlops(model, pairs);
  const ours = side(own);
  return {
    own: { ...ours, ...gemm(own, flops.total, ours.stepSeconds.median), flopsPerStep: flops },
    profile: meanProfile(own),
    peers: Object.entries(peers).map(([variant, runs]) => ({
      variant,
      ...side(runs),
      versions: runs[0]?.versions ?? {},
      ratio: spread(runs.map((run, i) => speed(/** @type {OwnRun} */ (own[i])) / speed(run))),
    })),
  };
}

/**
 * Where the step stands against the GEMM roof.
 * @param {readonly OwnRun[]} own @param {number} flops @param {number} stepSeconds
 */
function gemm(own, flops, stepSeconds) {
  const matmulSeconds = (/** @type {OwnRun} */ run) =>
    run.profile.reduce((sum, op) => sum + (isMatmul(op.op) ? op.secondsPerStep : 0), 0);
  const mean = (/** @type {(run: OwnRun) => number} */ of) =>
    own.reduce((sum, run) => sum + of(run), 0) / own.length;
  const stepMean = mean(
    (run) => run.stepSeconds.reduce((a, b) => a + b, 0) / run.stepSeconds.length,
  );
  const inMatmul = mean(matmulSeconds);
  const roof = Math.min(...own.map((run) => run.matmulRoofSecondsPerStep));
  const ran = mean((run) => run.matmulFlopsPerStep);
  return {
    gflops: flops / stepSeconds / 1e9,
    /** Share of the step spent in oneDNN. */
    matmulShare: inMatmul / stepMean,
    matmulGflops: ran / inMatmul / 1e9,
    /** Rate of the step's own products when each runs at its best. */
    matmulRoofGflops: ran / roof / 1e9,
    matmulOfRoof: roof / inMatmul,
    stepOfRoof: flops / stepSeconds / (ran / roof),
  };
}

/** @param {string} op */
function isMatmul(op) {
  return op === "matmul" || op === "matmul_add";
}

/** Share of step time by op, mean of the runs, largest first. @param {readonly OwnRun[]} own */
function meanProfile(own) {
  /** @type {Map<string, { callsPerStep: number, secondsPerStep: number }>} */
  const ops = new Map();
  for (const { profile } of own) {
    for (const { op, callsPerStep, secondsPerStep } of profile) {
      const known = ops.get(op) ?? { callsPerStep: 0, secondsPerStep: 0 };
      known.callsPerStep += callsPerStep / own.length;
      known.secondsPerStep += secondsPerStep / own.length;
      ops.set(op, known);
    }
  }
  const total = [...ops.values()].reduce((sum, { secondsPerStep }) => sum + secondsPerStep, 0);
  return [...ops]
    .map(([op, times]) => ({ op, ...times, share: times.secondsPerStep / total }))
    .sort((a, b) => b.secondsPerStep - a.secondsPerStep);
}

/**
 * @param {{
 *   date: string, commit: string, machine: ReturnType<typeof import("./machine.mjs").machine>,
 *   note?: string, setting: Record<string, string | number | boolean>,
 *   tokens: ReturnType<typeof countTokens>, summary: ReturnType<typeof summarize>,
 * }} result
 */
export function markdown({ date, commit, machine, note, setting, tokens, summary }) {
  const { own, peers, profile } = summary;
  const percent = (/** @type {number} */ x) => `${(100 * x).toFixed(0)}%`;
  const row = (/** @type {string} */ name, /** @type {Omit<typeof own, "gflops">} */ s) =>
    `| ${name} | ${showSpread(s.stepSeconds, 3)} | ${s.pairsPerSecond.toFixed(2)} | ` +
    `${s.realTokensPerSecond.toFixed(0)} | ${s.computedTokensPerSecond.toFixed(0)} | ` +
    `${s.peakRssMiB.toFixed(0)} | ${s.load.toFixed(1)} | ${percent(s.others)} |`;
  const lines = [
    `${setting.title}, ${setting.batch} × ${setting.accumulation} pairs per step (${tokens.real} tokens, ` +
      `${tokens.computed} with each prompt once, ${tokens.scored} scored), ${setting.dtype}, ` +
      `${setting.threads} threads, ${setting.rounds} × ${setting.steps} steps after ${setting.warmup} to warm up` +
      `${setting.checkpointing ? ", with gradient checkpointing" : ""}.`,
    `${machine.cpu}${machine.amx ? " with AMX" : ""}, ${machine.cores} cores, ${machine.memoryGiB} GiB; ` +
      `commit ${commit}, ${date.slice(0, 10)}, Node ${machine.node}.`,
    ...(note ? [note] : []),
    "",
    "| | step s, median (min-max) | pairs/s | real tokens/s | computed tokens/s | peak RSS MiB | load average | cores taken by others |",
    "|---|---|---|---|---|---|---|---|",
    row("simper-native", own),
    ...peers.map((peer) => row(peer.variant, /** @type {any} */ (peer))),
    "",
  ];
  if (peers.length > 0) {
    lines.push(
      "| against | pairs/s, ratio by round: median (min-max) | chosen log-prob there, here |",
      "|---|---|---|",
      ...peers.map(
        (p) =>
          `| ${p.variant} (${Object.entries(p.versions)
            .map(([name, version]) => `${name} ${version}`)
            .join(", ")}) | ` +
          `${showSpread(p.ratio)} | ${p.chosenLogp.toFixed(3)}, ${own.chosenLogp.toFixed(3)} |`,
      ),
      "",
    );
  }
  lines.push(
    `${own.gflops.toFixed(0)} GFLOP/s over the step; ${percent(own.matmulShare)} of it in oneDNN, at ` +
      `${own.matmulGflops.toFixed(0)} GFLOP/s = ${percent(own.matmulOfRoof)} of the ` +
      `${own.matmulRoofGflops.toFixed(0)} GFLOP/s that the same products reach on their own. ` +
      `The step as a whole: ${percent(own.stepOfRoof)} of that.`,
    "",
    "| op | calls per step | ms per step | share |",
    "|---|---|---|---|",
    ...profile
      .filter(({ share }) => share >= 0.002)
      .map(
        ({ op, callsPerStep, secondsPerStep, share }) =>
          `| ${op} | ${callsPerStep.toFixed(0)} | ${(1e3 * secondsPerStep).toFixed(1)} | ${(100 * share).toFixed(1)}% |`,
      ),
  );
  return lines.join("\n");
}
