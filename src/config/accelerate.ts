import { readFileSync } from "node:fs";
import * as z from "zod";
import { ConfigError } from "../errors.js";
import { explain } from "./explain.js";
import { readings } from "./readings.js";
import type { Config } from "./schema.js";
import { parseYamlMap } from "./yaml.js";

const automatic = z.union([z.number(), z.literal("auto")]).nullish();

/** The keys of a file of `accelerate config` that are read; loose, since it has many more. */
const fileSchema = z.looseObject({
  num_processes: z.int().positive().default(1),
  mixed_precision: z.enum(["no", "bf16", "fp16", "fp8"]).nullish(),
  distributed_type: z.string().nullish(),
  deepspeed_config: z
    .looseObject({
      zero_stage: z.int().min(0).max(3).nullish(),
      gradient_clipping: automatic,
      gradient_accumulation_steps: automatic,
      offload_optimizer_device: z.enum(["none", "cpu", "nvme"]).nullish(),
      deepspeed_config_file: z.string().nullish(),
    })
    .nullish(),
});

/** What a file of `accelerate config` asks for. */
export interface AccelerateConfig {
  readonly path: string;
  /** Processes on all machines together. */
  readonly processes: number;
  /** Stage of ZeRO; null without DeepSpeed. */
  readonly zeroStage: number | null;
  /** Where DeepSpeed is to keep the optimizer's state; null where it does not say. */
  readonly offload: "none" | "cpu" | null;
  /** `bf16` and `fp16` are asked for; null leaves the precision to the recipe. */
  readonly precision: "bf16" | "fp16" | "fp8" | null;
  /** Settings of DeepSpeed that a recipe has too: numbers that have to agree with it. */
  readonly agree: readonly {
    readonly key: string;
    readonly name: SharedName;
    readonly value: number;
  }[];
  /** Keys with values that ask for something and are not read. */
  readonly unread: readonly string[];
  /** `file:line:column  key`, as problems begin. */
  label(...path: string[]): string;
}

type SharedName = "maxGradNorm" | "gradientAccumulationSteps";

/** Values that ask for nothing beyond a plain run on this machine. */
const IDLE: readonly unknown[] = [
  null,
  false,
  "no",
  "none",
  "",
  "LOCAL_MACHINE",
  "main",
  "NO",
  "all",
];
const idleNumbers: Readonly<Record<string, number>> = { machine_rank: 0, num_machines: 1 };
const READ = ["num_processes", "mixed_precision", "deepspeed_config", "distributed_type"];
const DEEPSPEED_READ = [
  "zero_stage",
  "offload_optimizer_device",
  "gradient_clipping",
  "gradient_accumulation_steps",
];

/**
 * Reads a YAML file of `accelerate config`: process count, ZeRO stage and precision.
 *
 * @throws ConfigError `<file>:<line>:<column>  …` for a file that cannot be read, a value that does not fit,
 *   and a DeepSpeed file inside, which would bring settings of its own.
 */
export function readAccelerateConfig(path: string): AccelerateConfig {
  const yaml = parseYamlMap(readText(path), path);
  const label = (...inner: string[]): string => {
    const { line, column } = yaml.place(inner, "value");
    return `${path}:${line}:${column}  ${inner.join(".")}`;
  };
  const raw: Record<string, unknown> = Object.fromEntries(yaml.values);
  const parsed = fileSchema.safeParse(raw);
  if (!parsed.success) {
    const lines = parsed.error.issues.map((issue) => {
      const reason = explain(issue, raw);
      return `${label(...reason.path.map(String))}: ${reason.message}`;
    });
    throw new ConfigError(lines.join("\n"));
  }
  const { num_processes, mixed_precision, deepspeed_config: deepspeed } = parsed.data;
  if (deepspeed?.offload_optimizer_device === "nvme") {
    throw new ConfigError(
      `${label("deepspeed_config", "offload_optimizer_device")}: nvme is not supported: expected none or cpu`,
    );
  }
  if (deepspeed?.deepspeed_config_file) {
    throw new ConfigError(
      `${label("deepspeed_config", "deepspeed_config_file")}: a DeepSpeed file may name another optimizer, ` +
        "schedule or clipping; write those as recipe keys and leave it out",
    );
  }
  const shared = [
    ["gradient_clipping", "maxGradNorm"],
    ["gradient_accumulation_steps", "gradientAccumulationSteps"],
  ] as const;
  const agree = shared.flatMap(([key, name]) => {
    const value = deepspeed?.[key];
    return typeof value === "number" ? [{ key: `deepspeed_config.${key}`, name, value }] : [];
  });
  return {
    path,
    processes: num_processes,
    zeroStage: deepspeed?.zero_stage ?? null,
    offload: deepspeed?.offload_optimizer_device ?? null,
    precision: mixed_precision === "no" ? null : (mixed_precision ?? null),
    agree,
    unread: [
      ...asking(raw, READ, ""),
      ...asking((deepspeed ?? {}) as Record<string, unknown>, DEEPSPEED_READ, "deepspeed_config."),
    ],
    label,
  };
}

function asking(map: Record<string, unknown>, read: readonly string[], prefix: string): string[] {
  return Object.entries(map)
    .filter(([key, value]) => !read.includes(key) && idleNumbers[key] !== value)
    .filter(([, value]) => !(Array.isArray(value) && value.length === 0))
    .filter(([, value]) => ![value, ...readings(value)].some((meant) => IDLE.includes(meant)))
    .map(([key]) => prefix + key);
}

/** What the user should know of a file when `running` processes run the recipe. */
export function accelerateNotices(
  file: AccelerateConfig,
  config: Config,
  running: number,
): string[] {
  const notices: string[] = [];
  const { perDeviceTrainBatchSize: batch, gradientAccumulationSteps: steps } = config;
  const { processes, zeroStage, unread } = file;
  if (processes !== running) {
    const run = running === 1 ? "one runs" : `${running} run`;
    notices.push(
      `${file.path} asks for ${processes} process${processes === 1 ? "" : "es"} and ${run}: a step is a mean ` +
        `over ${batch * steps * running} examples, not ${batch * steps * processes}; for the same steps: ` +
        `--nproc ${processes}${sameSteps(steps * processes, running)}`,
    );
  }
  const alone = running === 1 && processes === 1 && zeroStage;
  const named = [...(alone ? ["deepspeed_config.zero_stage"] : []), ...unread];
  if (named.length > 0) notices.push(`${file.path}: no effect: ${named.join(", ")}`);
  return notices;
}

/** The other way to the same steps, where there is one. */
function sameSteps(accumulation: number, running: number): string {
  const each = accumulation / running;
  return Number.isInteger(each) ? ` or --gradient_accumulation_steps ${each}` : "";
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    const why = code === "ENOENT" ? "there is no such file" : String(code);
    throw new ConfigError(`${path}: cannot read the accelerate configuration: ${why}`, {
      cause: error,
      hint: "Give the path of a YAML file as `accelerate config` writes it.",
    });
  }
}
