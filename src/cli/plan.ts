import type { Command } from "commander";
import { makePlan } from "../train/make-plan.js";
import type { MemoryLine, RunPlan } from "../train/plan.js";
import { accelerateOption, recipeCommand } from "./shared.js";

/** `simper-native plan`: the memory table and step counts of a recipe; reads config and data, touches no device. */
export function planCommand(): Command {
  return recipeCommand("plan", async ({ config, baseDir }, options) => {
    const plan = await makePlan(config, baseDir);
    process.stdout.write(options.json ? `${JSON.stringify(plan, null, 2)}\n` : planText(plan));
  })
    .description("Show the memory and the steps a recipe needs, without touching a device.")
    .addOption(accelerateOption())
    .option("--json", "as one JSON object")
    .addHelpText("after", "\nExample:\n  simper-native plan configs/quickstart.yaml --bf16 true");
}

function planText(plan: RunPlan): string {
  const rows: string[][] = [["memory", "", "dtype", "shape", "MB"]];
  let lifetime = "";
  for (const line of foldSmall(plan.lines)) {
    rows.push([line.lifetime === lifetime ? "" : line.lifetime, ...cells(line)]);
    lifetime = line.lifetime;
  }
  rows.push(["total", "", "", "", megabytes(plan.totalBytes)]);
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const table = rows.map((row) =>
    row
      .map((cell, i) => (i === 4 ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
      .join("  ")
      .trimEnd(),
  );
  const { limits } = plan;
  return [
    ...table,
    "",
    `parameters          ${plan.parameters.toLocaleString("en-US")}`,
    `steps               ${plan.totalSteps} (${plan.stepsPerEpoch} per epoch, ${plan.warmupSteps} of warm-up)`,
    `examples per step   ${plan.examplesPerStep}`,
    `micro-batch         up to ${limits.tokens} tokens; logits of ${limits.groupRows} rows at a time`,
    "",
  ].join("\n");
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
