import type { Volume } from "../parallel/volume.js";
import type { MemoryLine, RunPlan } from "../train/plan.js";
import { alignRows } from "./table.js";

/** What `plan` prints. */
export function planText(plan: RunPlan, volume: readonly Volume[]): string {
  const { ranks } = plan;
  const rows: string[][] = [["memory", "", "dtype", "shape", "MB"]];
  let lifetime = "";
  for (const line of foldSmall(plan.lines)) {
    rows.push([line.lifetime === lifetime ? "" : line.lifetime, ...cells(line)]);
    lifetime = line.lifetime;
  }
  const total = ranks.size > 1 ? "total of one rank" : "total";
  rows.push([total, "", "", "", megabytes(plan.totalBytes)]);
  return [
    ...alignRows(rows, (column) => column === 4),
    "",
    ...(ranks.size > 1 ? [...stageTable(plan), ""] : []),
    ...alignRows(facts(plan, volume), () => false),
    "",
  ].join("\n");
}

/** A rank's memory in every stage, side by side. */
function stageTable({ stages, zeroStage, ranks }: RunPlan): string[] {
  const names = new Set(stages.flatMap(({ lines }) => lines.map(({ name }) => name)));
  const rows = [
    [`MB of one of ${ranks.size} ranks`, ...stages.map(({ stage }) => `zero_stage ${stage}`)],
    ...[...names].map((name) => [
      name,
      ...stages.map(({ lines }) => {
        const line = lines.find((one) => one.name === name);
        return line ? megabytes(line.bytes) : "";
      }),
    ]),
    [
      "everything else",
      ...stages.map(({ lines, totalBytes }) =>
        megabytes(totalBytes - lines.reduce((sum, { bytes }) => sum + bytes, 0)),
      ),
    ],
    ["total", ...stages.map(({ totalBytes }) => megabytes(totalBytes))],
    ["", ...stages.map(({ fits }) => (fits ? "fits" : "does not fit"))],
    ["", ...stages.map(({ stage }) => (stage === zeroStage ? "this run" : ""))],
  ];
  return alignRows(rows, (column) => column > 0);
}

function facts(plan: RunPlan, volume: readonly Volume[]): string[][] {
  const { limits, ranks, slots } = plan;
  const machines = ranks.size / ranks.localSize;
  const sent = volume.reduce((sum, { bytes }) => sum + bytes, 0);
  const parts = volume.map(
    ({ op, calls, bytes }) => `${op} ${calls} times, ${megabytes(bytes)} MB`,
  );
  const shared = [
    [
      "ranks",
      `${ranks.size}${machines > 1 ? ` on ${machines} machines` : ""}, zero_stage ${plan.zeroStage}`,
    ],
    ["micro-batches", `${slots.mean.toFixed(1)} of each rank in a step, at most ${slots.most}`],
    ["sent per step", `${megabytes(sent)} MB by each rank, at most: ${parts.join("; ")}`],
  ];
  return [
    ["parameters", plan.parameters.toLocaleString("en-US")],
    [
      "steps",
      `${plan.totalSteps} (${plan.stepsPerEpoch} per epoch, ${plan.warmupSteps} of warm-up)`,
    ],
    ["examples per step", String(plan.examplesPerStep)],
    ["micro-batch", `up to ${limits.tokens} tokens; logits of ${limits.groupRows} rows at a time`],
    ...(ranks.size > 1 ? shared : []),
  ].map(([name, text]) => [name!.padEnd(18), text!]);
}

/** Lines too small to matter become one line per lifetime, so that the table shows what decides. */
function foldSmall(lines: readonly MemoryLine[]): MemoryLine[] {
  const total = lines.reduce((sum, line) => sum + line.bytes, 0);
  const folded: MemoryLine[] = [];
  for (const lifetime of new Set(lines.map((line) => line.lifetime))) {
    const members = lines.filter((line) => line.lifetime === lifetime);
    const small = members.filter((line) => line.bytes < total / 1000);
    folded.push(...members.filter((line) => !small.includes(line)));
    if (small.length === 0) continue;
    const bytes = small.reduce((sum, line) => sum + line.bytes, 0);
    const name = small.length === 1 ? small[0]!.name : `${small.length} small buffers`;
    folded.push({ lifetime, name, dtype: "", shape: [], bytes });
  }
  return folded;
}

function cells({ name, dtype, shape, bytes }: MemoryLine): string[] {
  return [name, dtype, shape.length > 0 ? `(${shape.join(", ")})` : "", megabytes(bytes)];
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}
