import * as z from "zod";

/** Where metrics can go besides the console and `metrics.jsonl`. */
export const REPORTER_NAMES = ["tensorboard", "wandb"] as const;

/** One of {@link REPORTER_NAMES}. */
export type ReporterName = (typeof REPORTER_NAMES)[number];

/** Those that transformers knows besides: a recipe may name them, and nothing is written for them. */
const otherReporters = [
  ...["azure_ml", "clearml", "codecarbon", "comet_ml", "dagshub", "dvclive", "flyte", "kubeflow"],
  ...["mlflow", "neptune", "swanlab", "trackio"],
] as const;

const word = z.enum([...REPORTER_NAMES, "all", "none", ...otherReporters]);

/** Recipe keys of reports. Names are those of Hugging Face's TrainingArguments. */
export const reportFields = {
  reportTo: z
    .union([word, z.array(word)])
    .nullable()
    .default(null)
    .describe(
      "Where metrics go besides metrics.jsonl: tensorboard (event files), wandb, a list, all or none; other names that transformers knows are without effect. Default: none.",
    ),
  loggingDir: z
    .string()
    .min(1)
    .nullable()
    .default(null)
    .describe("Folder of event files. Default: runs/<time>_<host> in output_dir."),
  project: z
    .string()
    .min(1)
    .default("huggingface")
    .describe("Project of W&B that runs are listed under; WANDB_PROJECT wins."),
};

type ReportTo = z.output<typeof reportFields.reportTo>;

function wordsOf(reportTo: ReportTo): readonly z.output<typeof word>[] {
  return Array.isArray(reportTo) ? reportTo : [reportTo ?? "none"];
}

/** The names in `report_to` that nothing is written for. */
export function reportersWithoutEffect(reportTo: ReportTo): string[] {
  const others: readonly string[] = otherReporters;
  return wordsOf(reportTo).filter((name) => others.includes(name));
}

/** `report_to` as a list; `all` is what this machine has, so whether wandb is installed is asked for it only. */
export function namedReporters(reportTo: ReportTo, wandbInstalled: () => boolean): ReporterName[] {
  const words = wordsOf(reportTo);
  const all = words.includes("all");
  return REPORTER_NAMES.filter(
    (name) => words.includes(name) || (all && (name !== "wandb" || wandbInstalled())),
  );
}
