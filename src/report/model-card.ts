import * as yaml from "js-yaml";

/** Numbers by name; what is no number is shown as a dash. */
type Metrics = Readonly<Record<string, number | null>>;

/** What became of the rows of a split. */
export interface CardSplit {
  readonly split: string;
  readonly rows: number;
  /** Examples that are left. */
  readonly used: number;
  readonly dropped: number;
  readonly truncated: number;
}

/** What a model card says; all of it is known when a run ends. */
export interface ModelCard {
  readonly title: string;
  /** Name of the model that was trained, without the path of this machine. */
  readonly baseModel: string;
  /** `license`, `license_name`, `license_link` of the base model's own card, as far as it has them. */
  readonly license: Readonly<Record<string, string>>;
  readonly loss: string;
  /** The data sets, without paths of this machine, and the share of each train split. */
  readonly datasets: readonly { readonly name: string; readonly fraction: number }[];
  readonly data: readonly CardSplit[];
  /** Every key of the recipe that has a value. */
  readonly recipe: Readonly<Record<string, unknown>>;
  /** What `train_results.json` and `eval_results.json` hold. */
  readonly train: Metrics;
  readonly eval: Metrics | undefined;
  /** The log history of `trainer_state.json`. */
  readonly history: readonly Metrics[];
  /** Which weights these are: `the last of 10 steps`. */
  readonly weights: string;
  /** Versions and machine, by name. */
  readonly environment: Readonly<Record<string, string>>;
}

/** By this line a later run knows that a card is ours. */
const MARK =
  "# Written by simper-native; the next run into this folder replaces the file, unless this line is gone.";

/** Whether a file was written by {@link modelCardText} and may be replaced. */
export function isOwnCard(text: string): boolean {
  return text.startsWith(`---\n${MARK}\n`);
}

/** A README.md in the form of the Hugging Face hub: YAML about the model, then text for a person. */
export function modelCardText(card: ModelCard): string {
  const { title, baseModel, loss } = card;
  const about = {
    base_model: baseModel,
    ...card.license,
    library_name: "transformers",
    pipeline_tag: "text-generation",
    datasets: card.datasets.map(({ name }) => name),
    tags: ["simper-native", loss === "sft" ? "sft" : "preference-optimization", loss.toLowerCase()],
    model_name: title,
  };
  const sections = [
    ["---", MARK, yaml.dump(about, { lineWidth: -1 }).trimEnd(), "---"].join("\n"),
    `# ${title}`,
    `\`${baseModel}\`, fine-tuned with ${describeLoss(loss)}. The weights are ${card.weights}.`,
    "## Results",
    table(
      ["", "train", "test"],
      resultRows(card).map(([name, train, test]) => [name, number(train), number(test)]),
    ),
    "`train_loss` is the mean over all steps; other numbers of training are means over the last logged steps.",
    ...evaluationTable(card.history),
    "## Data",
    table(
      ["data set", "share of the train split"],
      card.datasets.map(({ name, fraction }) => [`\`${name}\``, String(fraction)]),
    ),
    table(
      ["split", "rows", "used", "left out", "cut to the length limits"],
      card.data.map((split) => [
        split.split,
        ...[split.rows, split.used, split.dropped, split.truncated].map(String),
      ]),
    ),
    "## Recipe",
    fenced("yaml", yaml.dump(card.recipe, { lineWidth: -1 })),
    "## Environment",
    table(["", ""], Object.entries(card.environment)),
    "## Use",
    fenced(
      "python",
      [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        `model = AutoModelForCausalLM.from_pretrained(${JSON.stringify(title)})  # the path of this folder`,
        `tokenizer = AutoTokenizer.from_pretrained(${JSON.stringify(title)})`,
      ].join("\n"),
    ),
    fenced("bash", "npx simper-native generate --model <this folder> --prompts prompts.jsonl"),
  ];
  return `${sections.join("\n\n")}\n`;
}

function describeLoss(loss: string): string {
  const known: Readonly<Record<string, string>> = {
    SimPER: "SimPER ([arXiv 2502.00883](https://arxiv.org/abs/2502.00883))",
    sigmoid: "SimPO, sigmoid loss ([arXiv 2405.14734](https://arxiv.org/abs/2405.14734))",
    hinge: "SimPO, hinge loss ([arXiv 2405.14734](https://arxiv.org/abs/2405.14734))",
    sft: "next-token cross-entropy (`sft`)",
  };
  return known[loss] ?? `a loss of its own, \`${loss}\``;
}

/** Metrics by name: of the last logged steps and of the evaluation of these weights. */
function resultRows({ train, eval: evaluation = {}, history }: ModelCard) {
  const logged = history.findLast((entry) => "loss" in entry) ?? {};
  const evaluated = Object.keys(evaluation)
    .filter((name) => name.startsWith("eval_") && !/_(runtime|samples|.*per_second)$/.test(name))
    .map((name) => name.slice("eval_".length));
  const names = new Set(["loss", ...evaluated]);
  const rows = [...names].map((name) => [name, logged[name], evaluation[`eval_${name}`]] as const);
  return [["train_loss", train.train_loss, undefined] as const, ...rows];
}

/** One line for each evaluation, with the training loss logged before it. */
function evaluationTable(history: readonly Metrics[]): string[] {
  const columns = ["eval_loss", "eval_rewards/accuracies", "eval_rewards/margins"];
  const evaluations = history.filter((entry) => "eval_loss" in entry);
  if (evaluations.length < 2) return [];
  const shown = columns.filter((name) => evaluations.some((entry) => name in entry));
  const rows = evaluations.map((entry) => {
    const before = history.slice(0, history.indexOf(entry)).findLast((found) => "loss" in found);
    const values = [entry.epoch, before?.loss, ...shown.map((name) => entry[name])];
    return [String(entry.step), ...values.map(number)];
  });
  return ["### Evaluations", table(["step", "epoch", "training loss", ...shown], rows)];
}

function number(value: number | null | undefined): string {
  if (typeof value !== "number" || !Number.isFinite(value)) return "–";
  return String(Number(value.toPrecision(5)));
}

function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell) => cell.replaceAll("|", "\\|").replaceAll("\n", " ")).join(" | ")} |`;
  return [line(header), `|${"---|".repeat(header.length)}`, ...rows.map(line)].join("\n");
}

/** A block of code, behind more backticks than it holds in a row. */
function fenced(language: string, code: string): string {
  const longest = Math.max(2, ...(code.match(/`+/g) ?? []).map((run) => run.length));
  const fence = "`".repeat(longest + 1);
  return `${fence}${language}\n${code.trimEnd()}\n${fence}`;
}
