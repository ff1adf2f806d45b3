import { Command } from "commander";
import { readModel } from "../inference/model.js";
import { readTokenRows } from "../inference/rows.js";
import { score } from "../inference/score.js";
import { openLines, trueOrFalse } from "./output.js";

interface Options {
  readonly model: string;
  readonly input: string;
  readonly bf16?: boolean;
  readonly out?: string;
}

/** `simper-native score`: log-probabilities of rows of text or token ids. */
export function scoreCommand(): Command {
  return new Command("score")
    .description("Log-probabilities of texts under a model: one JSON line per row, in order.")
    .requiredOption("--model <dir>", "model directory in Hugging Face format")
    .requiredOption("--input <rows.jsonl>", 'rows with "ids" (they win) or "text"')
    .option("--bf16 [true|false]", "bf16 weights and activations (default: false)", trueOrFalse)
    .option("--out <file>", "write here instead of to standard output")
    .addHelpText(
      "after",
      `
Out: {"logps": [natural log of p(id[t+1] | ids[..t]), n-1 values], "sum", "mean"}

Example:
  simper-native score --model outputs/quickstart --input rows.jsonl --out scores.jsonl`,
    )
    .action(async (options: Options) => {
      const source = await readModel(options.model);
      const { rows } = await readTokenRows(options.input, options.model, { messages: false });
      const settings = { bf16: options.bf16 ?? false, where: (row: number) => rows[row]!.where };
      const out = openLines(options.out);
      for await (const { logps, sum, mean } of score(
        source,
        rows.map(({ ids }) => ids),
        settings,
      )) {
        await out.write({ logps: Array.from(logps), sum, mean });
      }
      await out.close();
    });
}
