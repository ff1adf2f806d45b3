import type { AssumedPairs } from "../train/assumed-data.js";
import {
  LINK_SHARE,
  LINKS_BETWEEN,
  LINKS_INSIDE,
  type Link,
  PER_MACHINE,
  type Scaling,
} from "../train/scaling.js";
import { alignRows } from "./table.js";

/** What `plan --scaling` prints. */
export function scalingText({ gpu, rows }: Scaling, assume: AssumedPairs | undefined): string {
  const links = rows[0]!.predictions;
  const heads = [
    ["", "", "pairs", "micro-", "GB of", "GB sent", ...links.map(({ inside }) => inside)],
    [
      "GPUs",
      "zero_stage",
      "a step",
      "batches",
      "a GPU",
      "by a GPU",
      ...links.map(({ between }) => between),
    ],
  ];
  let before = 0;
  const lines = rows.map((row) => {
    const first = row.gpus !== before;
    before = row.gpus;
    return [
      first ? String(row.gpus) : "",
      String(row.stage),
      first ? String(row.pairsPerStep) : "",
      first ? String(row.slots) : "",
      gigabytes(row.bytes),
      gigabytes(row.sentBytes),
      ...row.predictions.map(({ efficiency, inside }, i) => {
        // One machine needs no link between machines.
        const said = row.gpus <= PER_MACHINE && row.predictions[i - 1]?.inside === inside;
        if (said) return "";
        return row.fits ? `${(100 * efficiency).toFixed(1)}%` : "no room";
      }),
    ];
  });
  return [
    "Predicted efficiency: pairs per second and GPU, as a share of those without exchanges.",
    "",
    ...alignRows([...heads, ...lines], () => true),
    "",
    `GPU: ${gpu.title}; steps reach ${percent(gpu.share)} of ${gpu.peakFlops / 1e12} TFLOP/s, and ${gpu.memoryBandwidth / 1e12} TB/s in the update.`,
    `Machines of ${PER_MACHINE}. Inside, per GPU: ${linkText(LINKS_INSIDE)}.`,
    `Between, per machine: ${linkText(LINKS_BETWEEN)}. Exchanges reach ${percent(LINK_SHARE)} of these.`,
    assume
      ? `Pairs of ${assume.prompt} prompt tokens and responses of ${assume.chosen} and ${assume.rejected}.`
      : "Lengths: those of the first step of the recipe's data.",
    "",
  ].join("\n");
}

function linkText(links: readonly Link[]): string {
  return links
    .map(
      ({ title, bytesPerSecond, latencySeconds }) =>
        `${title} ${bytesPerSecond / 1e9} GB/s, ${(latencySeconds * 1e6).toFixed(0)} us a hop`,
    )
    .join("; ");
}

function percent(share: number): string {
  return `${Math.round(100 * share)}%`;
}

function gigabytes(bytes: number): string {
  return (bytes / 1e9).toFixed(1);
}
