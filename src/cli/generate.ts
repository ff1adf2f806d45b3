import { Command } from "commander";
import { ConfigError } from "../errors.js";
import { generate } from "../inference/generate.js";
import { endOfSequence } from "../inference/loaded-model.js";
import { readModel } from "../inference/model.js";
import { readTokenRows } from "../inference/rows.js";
import { greedy, temperatureSampler } from "../inference/sample.js";
import { openLines, positiveNumber, trueOrFalse, wholeNumber } from "./output.js";

interface Options {
  readonly model: string;
  readonly prompts: string;
  readonly max_new_tokens: number;
  readonly greedy?: boolean;
  readonly temperature?: number;
  readonly ignore_eos?: boolean;
  readonly bf16?: boolean;
  readonly seed: number;
  readonly out?: string;
}

/** `simper-native generate`: continues prompts. */
export function generateCommand(): Command {
  return new Command("generate")
    .description("Answers of a model to prompts: one JSON line per row, in order.")
    .requiredOption("--model <dir>", "model directory in Hugging Face format")
    .requiredOption("--prompts <rows.jsonl>", 'rows with "ids", "text" or "messages"')
    .option("--max_new_tokens <n>", "longest answer in tokens", wholeNumber, 128)
    .option("--greedy", "always the most probable token (the default)")
    .option("--temperature <t>", "sample from softmax(logits / t)", positiveNumber)
    .option("--ignore_eos", "go on to --max_new_tokens")
    .option("--bf16 [true|false]", "bf16 weights and activations (default: false)", trueOrFalse)
    .option("--seed <n>", "seed of --temperature", wholeNumber, 42)
    .option("--out <file>", "write here instead of to standard output")
    .addHelpText(
      "after",
      `
Out: {"ids": [new tokens only], "text"}

Example:
  simper-native generate --model outputs/quickstart --prompts prompts.jsonl --max_new_tokens 32`,
    )
    .action(async (options: Options) => {
      if (options.greedy && options.temperature !== undefined) {
        throw new ConfigError("--greedy and --temperature exclude each other; give one of them");
      }
      const source = await readModel(options.model);
      const accept = { messages: true };
      const { rows, tokenizer } = await readTokenRows(options.prompts, options.model, accept);
      // Rows of ids need no tokenizer; where there is one, answers come as text too.
      const decoder = await tokenizer().catch(() => undefined);
      const eosIds = options.ignore_eos
        ? []
        : await endOfSequence(options.model, source.config, decoder);
      const settings = {
        maxNewTokens: options.max_new_tokens,
        sampler: options.temperature
          ? temperatureSampler(options.temperature, options.seed)
          : greedy,
        eosIds,
        bf16: options.bf16 ?? false,
        where: (row: number) => rows[row]!.where,
      };
      const out = openLines(options.out);
      for await (const ids of generate(
        source,
        rows.map((row) => row.ids),
        settings,
      )) {
        await out.write({ ids, text: decoder?.decode(ids, { skipSpecialTokens: true }) ?? null });
      }
      await out.close();
    });
}
