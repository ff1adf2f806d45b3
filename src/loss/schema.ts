import * as z from "zod";

/** Recipe keys of the loss, with the defaults of the reference trainer's configuration. */
export const lossFields = {
  lossType: z
    .enum(["SimPER", "sigmoid", "hinge", "sft"])
    .default("SimPER")
    .describe(
      "On preference pairs: SimPER, or SimPO as sigmoid or hinge. sft: next-token loss on messages or text.",
    )
    .meta({
      later: [
        ...["simpo", "dpo", "ipo", "kto", "orpo", "cpo", "apo_zero", "apo_down", "aot", "aot_pair"],
        ...["aot_unpaired", "bco_pair", "discopop", "exo_pair", "kto_pair", "nca_pair", "robust"],
        ...["sigmoid_norm", "sppo_hard", "dft"],
      ],
    }),
  beta: z
    .number()
    .nonnegative()
    .default(2)
    .describe("Scale of the margin under sigmoid and hinge; SimPER has none."),
  gammaBetaRatio: z
    .number()
    .nonnegative()
    .default(0.25)
    .describe("Target margin over beta under sigmoid and hinge; SimPER has none."),
  labelSmoothing: z
    .number()
    .min(0)
    .max(0.5)
    .default(0)
    .describe("Share of pairs assumed to be labelled the wrong way round; sigmoid only."),
  sftWeight: z
    .number()
    .nonnegative()
    .default(0)
    .describe(
      "Weight of the chosen responses' cross-entropy, added to any loss on pairs: a mean over the tokens of " +
        "per_device_train_batch_size consecutive pairs, then over these groups.",
    ),
};

const lossSchema = z.object(lossFields);

/** The part of a recipe that says which loss. */
export type LossOptions = Readonly<z.output<typeof lossSchema>>;

/** Values of `loss_type`. */
export type LossType = LossOptions["lossType"];

/** Keys of this table that a loss does not read. */
export const lossKeysWithoutEffect: Readonly<
  Record<LossType, readonly ("beta" | "gammaBetaRatio" | "labelSmoothing")[]>
> = {
  SimPER: ["beta", "gammaBetaRatio", "labelSmoothing"],
  sigmoid: [],
  hinge: ["labelSmoothing"],
  sft: ["beta", "gammaBetaRatio", "labelSmoothing"],
};

/** A rule between the keys that a recipe breaks. */
export interface LossRemark {
  readonly key: keyof LossOptions;
  readonly message: string;
}

/** Combinations that ask for nothing a loss could do. */
export function checkLossOptions(options: LossOptions): LossRemark[] {
  const { lossType, beta, sftWeight } = options;
  const remarks: LossRemark[] = [];
  if (lossType === "sft" && sftWeight > 0) {
    remarks.push({
      key: "sftWeight",
      message:
        `an SFT term is added to a loss on pairs, and loss_type sft has none, received ${sftWeight}; ` +
        "leave it out, or set loss_type to SimPER, sigmoid or hinge",
    });
  }
  if ((lossType === "sigmoid" || lossType === "hinge") && beta === 0) {
    remarks.push({
      key: "beta",
      message: `expected more than 0 with loss_type ${lossType}, received 0: every pair would have the same loss and no gradient`,
    });
  }
  return remarks;
}
