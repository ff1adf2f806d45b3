import { styleText } from "node:util";
import { type Command, Option } from "commander";
import {
  type InspectedPair,
  type InspectedSequence,
  type InspectedTokens,
  inspectPreferenceData,
  inspectSftData,
} from "../data/inspect.js";
import { losses } from "../loss/index.js";
import { resolveTokenizerDir } from "../train/model-source.js";
import { openLines, wholeNumber } from "./output.js";
import { inform, recipeCommand } from "./shared.js";

type Row = InspectedPair | InspectedSequence;

/** `simper-native inspect`: the rows of a split as the model sees them, in file order. */
export function inspectCommand(): Command {
  return recipeCommand("inspect", async ({ config, baseDir }, options) => {
    const modelDir = resolveTokenizerDir(config, baseDir);
    const source = {
      modelDir,
      modelName: config.modelNameOrPath,
      baseDir,
      split: options.split as "train" | "test",
      both: options.both === true,
      onNotice: inform,
    };
    const sequences = losses[config.lossType].examples === "sequences";
    const rows: AsyncGenerator<Row> = sequences
      ? inspectSftData(config, source)
      : inspectPreferenceData(config, source);
    const limit = (options.limit as number | undefined) ?? Number.POSITIVE_INFINITY;
    const out = options.out as string | undefined;
    const lines = out === undefined ? undefined : openLines(out);
    let count = 0;
    while (count < limit) {
      const next = await rows.next();
      if (next.done) break;
      if (lines) await lines.write(next.value);
      else process.stdout.write(rowText(next.value, count));
      count++;
    }
    await lines?.close();
    if (out !== undefined) inform(`${count} rows written to ${out}`);
    if (count === 0) inform(`the ${source.split} split has no rows`);
  })
    .description(
      "Show what the model sees of a recipe's data: rendered text, token ids and labels.",
    )
    .addOption(
      new Option("--split <name>", "which split").choices(["train", "test"]).default("train"),
    )
    .option("--both", "show pairs under both data semantics, reference and corrected")
    .option("--limit <n>", "stop after n rows", wholeNumber)
    .option("--out <rows.jsonl>", "write JSON lines that can be trained on as they are")
    .addHelpText("after", "\nExample:\n  simper-native inspect configs/quickstart.yaml --limit 2");
}

type Style = Parameters<typeof styleText>[0];

function paint(style: Style, text: string): string {
  const plain = !process.stdout.isTTY || Boolean(process.env.NO_COLOR);
  return plain ? text : styleText(style, text);
}

/** What happened to a row, for its head line. */
function remarks({ truncated, dropped }: Pick<InspectedTokens, "truncated" | "dropped">): string[] {
  return [
    ...(truncated.length > 0 ? [`cut: ${truncated.join(", ")}`] : []),
    ...(dropped ? ["left out: nothing to score"] : []),
  ];
}

function section(
  name: string,
  style: Style,
  text: string | null,
  ids: readonly number[],
  labels: readonly number[],
): string {
  const scored = labels.filter((label) => label !== -100).length;
  return `${paint(style, name)} ${ids.length} tokens, ${scored} scored\n${text ?? "(tokenized row)"}\n`;
}

function pairText(pair: InspectedTokens): string {
  return (
    `${paint("cyan", "prompt")}\n${pair.prompt ?? "(tokenized row)"}\n` +
    section("chosen", "green", pair.chosen, pair.chosen_input_ids, pair.chosen_labels) +
    section("rejected", "red", pair.rejected, pair.rejected_input_ids, pair.rejected_labels)
  );
}

function headLine(title: string, notes: readonly string[]): string {
  return paint("bold", `${title}${notes.length > 0 ? ` (${notes.join("; ")})` : ""}`);
}

function rowText(row: Row, index: number): string {
  const id = row.id === undefined ? [] : [`id ${String(row.id)}`];
  const semantics = "data_semantics" in row ? [row.data_semantics ?? "reference"] : [];
  const head = headLine(`row ${index}`, [...id, ...semantics, ...remarks(row)]);
  if ("input_ids" in row) {
    return `${head}\n${section("text", "cyan", row.text, row.input_ids, row.labels)}\n`;
  }
  const others = (["reference", "corrected"] as const).flatMap((name) => {
    const view = row[name];
    if (view === undefined) return [];
    if ("error" in view) return [`${headLine(`row ${index}`, [name, "refused"])}\n${view.error}\n`];
    return [`${headLine(`row ${index}`, [name, ...remarks(view)])}\n${pairText(view)}`];
  });
  return `${[`${head}\n${pairText(row)}`, ...others].join("")}\n`;
}
