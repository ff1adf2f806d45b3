import os from "node:os";
import { Command } from "commander";
import { AddonError } from "../errors.js";
import { type AddonInfo, addonInfo } from "../native/load.js";

/** What `env --json` prints. */
interface Environment {
  readonly node: string;
  readonly platform: string;
  readonly cpus: { readonly model: string; readonly available: number };
  readonly memoryGiB: number;
  /** Path of the addon, or why there is none. */
  readonly addon: { readonly path: string } | { readonly error: string; readonly hint?: string };
  readonly cpu?: AddonInfo["cpu"];
  readonly backends: AddonInfo["backends"];
}

/** `simper-native env`: Node, addon, CPU kernels and a line per backend, found or why not. */
export function envCommand(): Command {
  return new Command("env")
    .description("Show what this installation has and what is missing.")
    .option("--json", "as one JSON object")
    .addHelpText("after", "\nExample:\n  simper-native env --json")
    .action((options: { json?: true }) => {
      const environment = readEnvironment();
      const text = options.json ? JSON.stringify(environment, null, 2) : table(environment);
      process.stdout.write(`${text}\n`);
    });
}

function readEnvironment(): Environment {
  const host = {
    node: process.versions.node,
    platform: `${process.platform} ${process.arch}, ${os.release()}`,
    cpus: { model: os.cpus()[0]?.model ?? "unknown", available: os.availableParallelism() },
    memoryGiB: Math.round((os.totalmem() / 2 ** 30) * 10) / 10,
  };
  try {
    const { path, cpu, backends } = addonInfo();
    return { ...host, addon: { path }, cpu, backends };
  } catch (error) {
    if (!(error instanceof AddonError)) throw error;
    const hint = error.hint === undefined ? {} : { hint: error.hint };
    const unknown = { available: false, detail: "not known before the addon is built" };
    return {
      ...host,
      addon: { error: error.message, ...hint },
      backends: ["CUDA", "NCCL", "MPI"].map((name) => ({ name, ...unknown })),
    };
  }
}

function table({ node, platform, cpus, memoryGiB, addon, cpu, backends }: Environment): string {
  const rows: [string, string][] = [
    ["Node", node],
    ["System", platform],
    ["CPU", `${cpus.model}, ${cpus.available} available, ${memoryGiB} GiB memory`],
  ];
  if ("path" in addon) rows.push(["Addon", addon.path]);
  else
    rows.push(["Addon", addon.hint === undefined ? addon.error : `${addon.error}\n${addon.hint}`]);
  if (cpu !== undefined) {
    const bf16 = cpu.bf16 ? `bf16 in hardware (${cpu.bf16Kernel})` : "bf16 computed in f32";
    rows.push(["oneDNN", `${cpu.onednn}, ${cpu.isa}, ${bf16}`], ["Threads", String(cpu.threads)]);
  }
  for (const { name, available, detail } of backends) {
    rows.push([name, available ? detail : `no: ${detail}`]);
  }
  // Later lines of a value stand below its first.
  return rows
    .map(([name, text]) => `${name.padEnd(9)}${text.replaceAll("\n", `\n${" ".repeat(9)}`)}`)
    .join("\n");
}
