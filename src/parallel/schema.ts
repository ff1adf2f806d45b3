import * as z from "zod";

/** Recipe keys of runs with several processes. */
export const parallelFields = {
  zeroStage: z
    .union([z.literal(0), z.literal(1), z.literal(2), z.literal(3)])
    .default(1)
    .describe(
      "What the ranks share among them: 0 nothing, 1 master weights and Adam moments, 2 gradients too, 3 weights " +
        "too. Without effect in one process.",
    ),
  offloadOptimizer: z
    .enum(["none", "cpu"])
    .default("none")
    .describe(
      "cpu: master weights, Adam moments and the update live in host memory. Without effect on the CPU device.",
    ),
  ddpTimeout: z
    .number()
    .positive()
    .default(1800)
    .describe("Seconds that a rank waits for the others in one exchange before the run fails."),
};
