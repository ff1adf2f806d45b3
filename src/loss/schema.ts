import * as z from "zod";

/** Recipe keys of the loss, with the defaults of the reference trainer's configuration. */
export const lossFields = {
  lossType: z
    .enum(["SimPER", "sft"])
    .default("SimPER")
    .describe("SimPER on preference pairs, or sft: next-token loss on messages or text.")
    .meta({ later: ["sigmoid", "hinge", "simpo", "dpo", "ipo", "kto", "orpo", "cpo"] }),
  beta: z.number().nonnegative().default(2).describe("Scale of SimPO's margin; SimPER has none."),
  gammaBetaRatio: z
    .number()
    .nonnegative()
    .default(0.25)
    .describe("Target margin of SimPO over beta; SimPER has none."),
  labelSmoothing: z
    .number()
    .min(0)
    .max(0.5)
    .default(0)
    .describe("Label noise assumed by SimPO's sigmoid loss; SimPER has none."),
  sftWeight: z
    .number()
    .nonnegative()
    .default(0)
    .describe("Weight of an extra cross-entropy on the chosen responses; only 0 so far."),
};

/** Keys of this table that only other losses read. */
export const lossFieldsWithoutEffect = ["beta", "gammaBetaRatio", "labelSmoothing"] as const;
