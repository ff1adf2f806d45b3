// The table of README.md from the results that bench:cpu has kept: of each model those of the newest commit
// that was compared with PyTorch, all runs together.
//
//   npm run --silent bench:table
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { root } from "../scripts/quickstart/paths.mjs";
import { median, showSpread, spread } from "./lib/statistics.mjs";

/**
 * @typedef {object} Kept
 * @property {string} date @property {string} commit
 * @property {ReturnType<typeof import("./lib/machine.mjs").machine>} machine
 * @property {{ checkpointing?: boolean, model: string, title: string, dtype: string, batch: number, accumulation: number, threads: number }} setting
 * @property {ReturnType<typeof import("./lib/report.mjs").summarize>} summary
 */

/** Loops of torch_peer.py as readers know them. */
const names = /** @type {Record<string, string>} */ ({
  "trl-bf16": "TRL, bf16 autocast",
  "trl-fp32": "TRL, f32",
  "prefix-bf16": "PyTorch by hand, pure bf16, prompts computed once",
});

/** @returns {Kept[]} runs with a peer, oldest first */
function readResults() {
  const folder = path.join(root, "bench", "results");
  return readdirSync(folder)
    .filter((name) => name.endsWith(".json"))
    .map((name) => JSON.parse(readFileSync(path.join(folder, name), "utf8")))
    .filter(({ summary, setting }) => summary?.peers?.length > 0 && !setting.checkpointing)
    .sort((a, b) => a.date.localeCompare(b.date));
}

/** @param {readonly Kept[]} runs of one model */
function rows(runs) {
  const variants = new Set(runs.flatMap(({ summary }) => summary.peers.map((p) => p.variant)));
  const own = median(runs.map(({ summary }) => summary.own.pairsPerSecond));
  const peak = Math.max(...runs.map(({ summary }) => summary.own.peakRssMiB));
  const gigabytes = (/** @type {number} */ mebibytes) => ((mebibytes * 2 ** 20) / 1e9).toFixed(2);
  const { title, dtype } = /** @type {Kept} */ (runs[0]).setting;
  return [...variants].map((variant) => {
    const peers = runs.flatMap(({ summary }) =>
      summary.peers.filter((peer) => peer.variant === variant),
    );
    const ratio = spread(
      peers.flatMap((peer) => [peer.ratio.min, peer.ratio.median, peer.ratio.max]),
    );
    const there = median(peers.map((peer) => peer.pairsPerSecond));
    const theirPeak = Math.max(...peers.map((peer) => peer.peakRssMiB));
    return (
      `| ${title}, ${dtype} | ${names[variant] ?? variant} | ${own.toFixed(2)}, ${there.toFixed(2)} | ` +
      `**${showSpread(ratio)}** | ${gigabytes(peak)}, ${gigabytes(theirPeak)} |`
    );
  });
}

const all = readResults();
const models = [...new Set(all.map(({ setting }) => setting.model))];
const groups = models.map((model) => {
  const newest = all.findLast(({ setting }) => setting.model === model)?.commit;
  return all.filter(({ setting, commit }) => setting.model === model && commit === newest);
});
console.log("| model | against | pairs/s here, there | ratio (min-max) | peak GB here, there |");
console.log("|---|---|---|---|---|");
for (const runs of groups) for (const row of rows(runs)) console.log(row);
