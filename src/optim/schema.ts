import * as z from "zod";

/** Recipe keys of AdamW and its schedule, with the defaults of Hugging Face's TrainingArguments. */
export const optimFields = {
  learningRate: z
    .number()
    .nonnegative()
    .default(5e-5)
    .describe("Peak learning rate, reached after warm-up. The reference recipes use 3e-7 to 1e-6."),
  lrSchedulerType: z
    .enum(["linear", "cosine", "cosine_with_min_lr", "constant", "constant_with_warmup"])
    .default("linear")
    .describe("How the rate falls after warm-up; the reference recipes use cosine.")
    .meta({
      later: [
        "cosine_with_restarts",
        "cosine_warmup_with_min_lr",
        "greedy",
        "inverse_sqrt",
        "polynomial",
        "reduce_lr_on_plateau",
        "warmup_stable_decay",
      ],
    }),
  lrSchedulerKwargs: z
    .strictObject({
      min_lr: z.number().nonnegative().nullish(),
      min_lr_rate: z.number().min(0).max(1).nullish(),
      num_cycles: z.number().positive().nullish(),
    })
    .nullish()
    .describe(
      "For cosine_with_min_lr: min_lr, the rate at the end, or min_lr_rate, its fraction of learning_rate. " +
        "For both cosines: num_cycles (0.5: half a wave).",
    ),
  warmupRatio: z
    .number()
    .min(0)
    .max(1)
    .default(0)
    .describe("Warm-up as a fraction of all optimizer steps, rounded up."),
  warmupSteps: z
    .number()
    .nonnegative()
    .refine(
      (steps) => steps < 1 || Number.isInteger(steps),
      "expected a whole number, or a fraction below 1",
    )
    .default(0)
    .describe(
      "Warm-up in optimizer steps; above 0 it replaces warmup_ratio, below 1 it is such a ratio itself.",
    ),
  maxGradNorm: z
    .number()
    .nonnegative()
    .default(1)
    .describe("Global gradient norm above which gradients are scaled down; 0 never clips."),
  weightDecay: z
    .number()
    .nonnegative()
    .default(0)
    .describe("Decoupled weight decay of the matrices; norms and biases have none."),
  adamBeta1: z.number().min(0).lt(1).default(0.9).describe("Decay of the first moment."),
  adamBeta2: z.number().min(0).lt(1).default(0.999).describe("Decay of the second moment."),
  adamEpsilon: z
    .number()
    .positive()
    .default(1e-8)
    .describe("Added to the root of the second moment."),
  optim: z
    .enum(["adamw_torch", "adamw_torch_fused", "adamw_torch_xla", "adamw_torch_npu_fused"])
    .default("adamw_torch")
    .describe("The optimizer: AdamW in f32, whichever of its names is used.")
    .meta({
      later: [
        ...[
          "adafactor",
          "adagrad",
          "adalomo",
          "adamw_8bit",
          "adamw_anyprecision",
          "adamw_apex_fused",
        ],
        ...["adamw_bnb_8bit", "adamw_hf", "adamw_torch_4bit", "adamw_torch_8bit", "ademamix"],
        ...["ademamix_8bit", "apollo_adamw", "apollo_adamw_layerwise", "galore_adafactor"],
        ...["galore_adafactor_layerwise", "galore_adamw", "galore_adamw_8bit"],
        ...[
          "galore_adamw_8bit_layerwise",
          "galore_adamw_layerwise",
          "grokadamw",
          "lion",
          "lion_32bit",
        ],
        ...["lion_8bit", "lomo", "paged_adamw", "paged_adamw_32bit", "paged_adamw_8bit"],
        ...["paged_ademamix_32bit", "paged_ademamix_8bit", "paged_lion_32bit", "paged_lion_8bit"],
        ...[
          "rmsprop",
          "rmsprop_bnb",
          "rmsprop_bnb_32bit",
          "rmsprop_bnb_8bit",
          "schedule_free_adamw",
        ],
        ...["schedule_free_radam", "schedule_free_sgd", "sgd", "stable_adamw"],
      ],
    }),
};

/** What a recipe says of its schedule beyond its keys' own rules: problems, by key. */
export function checkSchedule(
  config: z.output<typeof scheduleSchema>,
): { key: "lrSchedulerKwargs"; message: string }[] {
  const { lrSchedulerType: type, lrSchedulerKwargs } = config;
  const { min_lr, min_lr_rate, num_cycles } = lrSchedulerKwargs ?? {};
  const minimums = [min_lr, min_lr_rate].filter((value) => (value ?? null) !== null).length;
  const problem = (message: string) => [{ key: "lrSchedulerKwargs" as const, message }];
  if (type === "cosine_with_min_lr" && minimums !== 1) {
    const received = minimums === 0 ? "neither" : "both";
    return problem(`cosine_with_min_lr needs min_lr or min_lr_rate, received ${received}`);
  }
  if (type === "cosine_with_min_lr" && (min_lr ?? 0) > config.learningRate) {
    return problem(`min_lr ${min_lr} is above learning_rate ${config.learningRate}`);
  }
  if (type !== "cosine_with_min_lr" && minimums > 0) {
    return problem(`${type} has no least rate; use lr_scheduler_type: cosine_with_min_lr`);
  }
  if (!type.startsWith("cosine") && (num_cycles ?? null) !== null) {
    return problem(`${type} has no num_cycles; cosine and cosine_with_min_lr have`);
  }
  return [];
}

const scheduleSchema = z.object({
  lrSchedulerType: optimFields.lrSchedulerType,
  lrSchedulerKwargs: optimFields.lrSchedulerKwargs,
  learningRate: optimFields.learningRate,
});
