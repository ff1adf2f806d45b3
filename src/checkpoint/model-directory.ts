import { copyFile, readdir, readFile, rm } from "node:fs/promises";
import path from "node:path";
import { CheckpointError } from "../errors.js";
import { writeFileAtomic } from "./files.js";

/** What a model directory holds besides its weights and its config. */
const GENERATION_CONFIG = "generation_config.json";
const TOKENIZER_FILES = [
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "chat_template.jinja",
  "vocab.json",
  "merges.txt",
  "tokenizer.model",
];

const DAMAGED = "the file is damaged; download or save the model again";

/** A `config.json` with the path it was read from. */
export interface ConfigFile {
  readonly path: string;
  readonly fields: Readonly<Record<string, unknown>>;
  /** Where the tokenizer and its chat template lie, if not beside it. */
  readonly tokenizerDir?: string;
  /** The chat template that the run's rows were rendered by, if not the tokenizer's own. */
  readonly chatTemplate?: string | undefined;
}

/** @throws CheckpointError when the folder or its config.json is missing or is not a JSON object. */
export async function readConfigFile(modelDir: string): Promise<ConfigFile> {
  const file = path.join(modelDir, "config.json");
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    throw new CheckpointError(`${file}: cannot be read: ${(error as Error).message}`, {
      hint: "model_name_or_path must be a local folder in Hugging Face format (config.json, *.safetensors)",
      cause: error,
    });
  }
  let fields: unknown;
  try {
    fields = JSON.parse(text);
  } catch (error) {
    throw new CheckpointError(`${file}: not valid JSON: ${(error as Error).message}`, {
      hint: DAMAGED,
      cause: error,
    });
  }
  if (typeof fields !== "object" || fields === null || Array.isArray(fields)) {
    throw new CheckpointError(
      `${file}: expected a JSON object, received ${text.trim().slice(0, 20)}`,
      { hint: DAMAGED },
    );
  }
  return { path: file, fields: fields as Record<string, unknown> };
}

/**
 * Writes everything of a model directory except its weights: config.json naming the dtype the weights are
 * saved in, with `use_cache: true`, tokenizer files, chat template, generation config.
 */
export async function writeModelFiles(
  folder: string,
  source: ConfigFile,
  dtype: "float32" | "bfloat16",
): Promise<void> {
  const { chatTemplate } = source;
  const modelDir = path.dirname(source.path);
  await copySideFiles([GENERATION_CONFIG], modelDir, folder);
  await copySideFiles(TOKENIZER_FILES, source.tokenizerDir ?? modelDir, folder);
  if (chatTemplate) await writeChatTemplate(folder, chatTemplate);
  // A trained model is for generation, whatever its config said while it was trained. [reference, run_simper.py]
  const fields: Record<string, unknown> = { ...source.fields, use_cache: true };
  // transformers 5 writes `dtype`, 4 wrote `torch_dtype`: keep the spelling that is there.
  const spellings = ["dtype", "torch_dtype"].filter((name) => name in fields);
  for (const name of spellings.length > 0 ? spellings : ["torch_dtype"]) fields[name] = dtype;
  await writeFileAtomic(path.join(folder, "config.json"), `${JSON.stringify(fields, null, 2)}\n`);
}

async function copySideFiles(names: readonly string[], from: string, to: string): Promise<void> {
  if (path.resolve(from) === path.resolve(to)) return;
  const present = new Set(await readdir(from));
  for (const name of names) {
    if (present.has(name)) await copyFile(path.join(from, name), path.join(to, name));
  }
}

/** Where tokenizer_config.json has a template, too, it becomes the same: old readers know no other place. */
async function writeChatTemplate(folder: string, chatTemplate: string): Promise<void> {
  await writeFileAtomic(path.join(folder, "chat_template.jinja"), chatTemplate);
  const file = path.join(folder, "tokenizer_config.json");
  const text = await readFile(file, "utf8").catch(() => "{}");
  const config = JSON.parse(text) as Record<string, unknown>;
  if (config.chat_template === undefined || config.chat_template === null) return;
  config.chat_template = chatTemplate;
  await writeFileAtomic(file, `${JSON.stringify(config, null, 2)}\n`);
}

/** Removes weights of an earlier save that the one just written does not name. */
export async function removeOtherWeights(
  folder: string,
  written: readonly string[],
): Promise<void> {
  const keep = new Set(written.map((file) => path.basename(file)));
  for (const name of await readdir(folder)) {
    const weights = /^model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?$/.test(name);
    if (weights && !keep.has(name)) await rm(path.join(folder, name));
  }
}
