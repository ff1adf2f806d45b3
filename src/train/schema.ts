import * as z from "zod";

const count = z.int().positive();
const every = z
  .number()
  .positive()
  .refine((steps) => steps < 1 || Number.isInteger(steps), "expected a whole number or a fraction");

/**
 * Recipe keys of the training loop, its evaluation and its checkpoints. Names and defaults are those of
 * Hugging Face's TrainingArguments; where this project differs the text says so.
 */
export const trainFields = {
  perDeviceTrainBatchSize: count
    .default(8)
    .describe("Examples per device and accumulation step; packing decides the real micro-batches."),
  perDeviceEvalBatchSize: count
    .default(8)
    .describe(
      "The same for evaluation; changes a result only with sft_weight, as the size of a loss group.",
    ),
  gradientAccumulationSteps: count
    .default(1)
    .describe("An optimizer step is a mean over batch size x accumulation x ranks examples."),
  numTrainEpochs: z.number().positive().default(3).describe("Passes over the training data."),
  maxSteps: z
    .int()
    .refine((steps) => steps === -1 || steps > 0, "expected -1 or a whole number above 0")
    .default(-1)
    .describe("Optimizer steps; overrides num_train_epochs. -1: not set."),
  seed: z.int().nonnegative().default(42).describe("Seed of the data order."),
  bf16: z
    .boolean()
    .default(false)
    .describe("bf16 weights and activations with f32 master weights and moments; false: f32."),
  onNonfinite: z
    .enum(["stop", "skip"])
    .default("stop")
    .describe(
      "A step whose gradient is not finite never changes the weights. stop: the run ends and says which op and " +
        "layer was the first; skip: it goes on. A skipped step counts as a step, in Adam's bias corrections too.",
    ),

  doEval: z
    .boolean()
    .nullable()
    .default(null)
    .describe(
      "Evaluate on the test split, at the end too. Always true with an eval_strategy other than no.",
    ),
  evalStrategy: z
    .enum(["no", "steps", "epoch"])
    .nullable()
    .default(null)
    .describe('When to evaluate during training. Default: "steps" where eval_steps is given.'),
  evalSteps: every
    .nullable()
    .default(null)
    .describe(
      "Optimizer steps between evaluations; below 1: that share of the run. Default: logging_steps.",
    ),
  evalDelay: z
    .number()
    .nonnegative()
    .default(0)
    .describe(
      "No evaluation before this many steps (epochs with eval_strategy: epoch), except with eval_on_start.",
    ),
  evalOnStart: z.boolean().default(false).describe("Evaluate once before the first step."),

  generateDuringEval: z
    .boolean()
    .default(false)
    .describe(
      "Answer some prompts of the test split at each evaluation, into output_dir/samples.jsonl.",
    ),
  generatePrompts: count
    .default(8)
    .describe("How many with generate_during_eval; seed decides which, the same ones every time."),
  generateMaxNewTokens: count
    .default(128)
    .describe(
      "Longest answer of generate_during_eval, in tokens; the most probable token is taken.",
    ),
  loadBestModelAtEnd: z
    .boolean()
    .default(false)
    .describe(
      "output_dir gets the weights of the best evaluated checkpoint instead of the last ones; evaluations and " +
        "checkpoints then have to coincide.",
    ),
  metricForBestModel: z
    .string()
    .min(1)
    .nullable()
    .default(null)
    .describe("What best means, with or without eval_. Default: loss with load_best_model_at_end."),
  greaterIsBetter: z
    .boolean()
    .nullable()
    .default(null)
    .describe('Default: false where metric_for_best_model ends with "loss", else true.'),

  loggingSteps: every
    .default(500)
    .describe("Optimizer steps between two lines on the console; below 1: that share of the run."),
  saveStrategy: z
    .enum(["no", "steps", "epoch"])
    .default("steps")
    .describe("When to write checkpoint-<step>/; output_dir is written at the end in any case."),
  saveSteps: every
    .default(500)
    .describe("Optimizer steps between checkpoints; below 1: that share of the run."),
  saveTotalLimit: count
    .nullable()
    .default(null)
    .describe(
      "Keep this many checkpoints, the newest ones; the best one always stays. Default: all.",
    ),
  saveDtype: z
    .enum(["float32", "bfloat16"])
    .nullable()
    .default(null)
    .describe("Type of the saved weights. Default: bfloat16 with bf16, else float32."),
  outputDir: z.string().min(1).default("trainer_output").describe("Folder of everything written."),
  resumeFromCheckpoint: z
    .union([z.boolean(), z.string().min(1)])
    .nullable()
    .default(null)
    .describe("A checkpoint folder, or true: the newest one in output_dir."),
  runName: z.string().nullable().default(null).describe("Name of the run, shown when it starts."),

  gradientCheckpointing: z
    .boolean()
    .default(false)
    .describe("Keep only the input of each block and compute the rest again in the backward pass."),
};

const trainSchema = z.object(trainFields);
type TrainOptions = Readonly<z.output<typeof trainSchema>>;

/** A rule between the keys that a recipe breaks. */
export interface TrainRemark {
  readonly key: keyof TrainOptions;
  readonly message: string;
}

/** Rules between these keys, with the defaults that depend on others filled in. */
export function checkTrainOptions(
  options: Omit<TrainOptions, "doEval"> & { readonly doEval: boolean; readonly lossType: string },
): TrainRemark[] {
  const { doEval, evalStrategy, evalSteps, saveStrategy, saveSteps } = options;
  const remarks: TrainRemark[] = [];
  if (options.generateDuringEval) {
    const remark = (message: string) => remarks.push({ key: "generateDuringEval", message });
    if (!doEval) remark("there are no evaluations to answer prompts at; set do_eval: true");
    if (options.lossType === "sft") {
      remark(
        "expected a loss on pairs, received loss_type sft: its rows have no prompts to answer",
      );
    }
  }
  if (options.loadBestModelAtEnd) {
    const remark = (message: string) => remarks.push({ key: "loadBestModelAtEnd", message });
    if (!doEval || evalStrategy === "no") {
      remark(
        "the best model is chosen by evaluations during training, and there are none; set eval_strategy to steps or epoch",
      );
    } else if (evalStrategy !== saveStrategy) {
      remark(
        `expected eval_strategy and save_strategy to agree, received ${evalStrategy} and ${saveStrategy}: ` +
          "only an evaluated checkpoint can be the best",
      );
    } else if (evalStrategy === "steps" && saveSteps % (evalSteps ?? 1) !== 0) {
      remark(
        `expected save_steps to be a multiple of eval_steps, received ${saveSteps} and ${evalSteps}: ` +
          "only an evaluated checkpoint can be the best",
      );
    }
  }
  return remarks;
}
