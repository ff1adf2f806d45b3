import * as z from "zod";

/** Recipe keys of AdamW and its schedule, with the defaults of Hugging Face's TrainingArguments. */
export const optimFields = {
  learningRate: z
    .number()
    .nonnegative()
    .default(5e-5)
    .describe("Peak learning rate, reached after warm-up. The reference recipes use 3e-7 to 1e-6."),
  lrSchedulerType: z
    .enum(["linear", "cosine", "constant", "constant_with_warmup"])
    .default("linear")
    .describe("How the rate falls after warm-up; the reference recipes use cosine.")
    .meta({ later: ["cosine_with_restarts", "cosine_with_min_lr", "polynomial", "inverse_sqrt"] }),
  warmupRatio: z
    .number()
    .min(0)
    .max(1)
    .default(0)
    .describe("Warm-up as a fraction of all optimizer steps, rounded up."),
  warmupSteps: z
    .int()
    .nonnegative()
    .default(0)
    .describe("Warm-up in optimizer steps; above 0 it replaces warmup_ratio."),
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
    .enum(["adamw_torch", "adamw_torch_fused"])
    .default("adamw_torch")
    .describe("The optimizer: AdamW in f32, whichever of its two names is used.")
    .meta({
      later: [
        "adamw_hf",
        "adamw_8bit",
        "adamw_bnb_8bit",
        "paged_adamw_32bit",
        "paged_adamw_8bit",
      ].concat(["adafactor", "sgd", "lion_32bit", "rmsprop"]),
    }),
};
