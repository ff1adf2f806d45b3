import { readFile } from "node:fs/promises";
import path from "node:path";
import { DataError } from "../errors.js";
import { readJsonObject, type Tokenizer } from "./tokenizer.js";

/** The text of a chat template, and where it came from, for error messages. */
export interface TemplateSource {
  readonly source: string;
  readonly origin: string;
  /** The names in a list of named templates of which this is one. */
  readonly names?: readonly string[];
}

/**
 * Stands in for a missing template: a header line, the text, the end-of-sequence token and a newline for
 * each user, system and assistant message, as the reference's recipes assume for base models.
 */
export const DEFAULT_TEMPLATE: TemplateSource = {
  source: [
    "{%- for message in messages -%}",
    "{%- if message['role'] in ['user', 'system', 'assistant'] -%}",
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + eos_token + '\\n' }}",
    "{%- endif -%}",
    "{%- endfor -%}",
    "{%- if messages and add_generation_prompt -%}{{ '<|assistant|>\\n' }}{%- endif -%}",
  ].join(""),
  origin: "the default template",
};

/**
 * What the reference uses for models whose path speaks of Mistral: no BOS, a system message before the text of the
 * turn that follows it, stripped texts, a space before each EOS. It accepts a lone assistant message, which Mistral's
 * own template refuses. [seed.md A.4]
 */
export const MISTRAL_TEMPLATE: TemplateSource = {
  source: [
    "{%- set system = messages[0].role == 'system' -%}",
    "{%- for turn in (messages[1:] if system else messages) -%}",
    "{%- set lead = messages[0].content.strip() ~ '\\n\\n' if system and loop.first else '' -%}",
    "{%- set text = (lead ~ turn.content).strip() -%}",
    "{%- if turn.role == 'user' -%}{{ '[INST] ' ~ text ~ ' [/INST]' }}",
    "{%- elif turn.role == 'assistant' -%}{{ ' ' ~ text ~ ' ' ~ eos_token }}{%- endif -%}",
    "{%- endfor -%}",
  ].join(""),
  origin: "the reference's template for Mistral",
};

/**
 * The template for Mistral with what the trainer puts before a prompt: BOS, and the space that some tokenizers put before
 * a text but not behind a special token. In generation nobody else would write them.
 */
export function mistralTemplateToSave(tokenizer: Tokenizer): string {
  const { bos } = tokenizer;
  if (bos === null) return MISTRAL_TEMPLATE.source;
  const encode = (text: string): string =>
    tokenizer.encode(text, { addSpecialTokens: false }).join(" ");
  const trained = `${bos.id} ${encode("[INST]")}`;
  const needsSpace =
    encode(`${bos.text}[INST]`) !== trained && encode(`${bos.text} [INST]`) === trained;
  return `{{ bos_token${needsSpace ? " ~ ' '" : ""} }}${MISTRAL_TEMPLATE.source}`;
}

/** True for a `model_name_or_path` that the reference gives its Mistral template. */
export function isMistralPath(name: string): boolean {
  return name.toLowerCase().includes("mistral");
}

/** `chat_template` in tokenizer_config.json: a string, or a list of named templates. */
function fromConfig(value: unknown, file: string): TemplateSource | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value === "string") return { source: value, origin: file };
  if (Array.isArray(value)) {
    const named = new Map<string, string>();
    for (const entry of value as unknown[]) {
      if (typeof entry !== "object" || entry === null) continue;
      const { name, template } = entry as { name?: unknown; template?: unknown };
      if (typeof name === "string" && typeof template === "string") named.set(name, template);
    }
    const found = named.get("default");
    if (found !== undefined) return { source: found, origin: file, names: [...named.keys()] };
    throw new DataError(
      `${file}: expected a chat template named "default", found ${[...named.keys()].map((n) => `"${n}"`).join(", ") || "none"}`,
      { hint: "set chat_template in the recipe to the template to use" },
    );
  }
  throw new DataError(`${file}: chat_template: expected text or a list of named templates`, {
    hint: "copy the file from the model again, or set chat_template in the recipe",
  });
}

/** The template of a model directory: `chat_template.jinja`, else `chat_template` in tokenizer_config.json. */
export async function modelTemplate(modelDir: string): Promise<TemplateSource | undefined> {
  const file = path.join(modelDir, "chat_template.jinja");
  try {
    return { source: await readFile(file, "utf8"), origin: file };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") {
      throw new DataError(`${file}: cannot be read: ${(error as Error).message}`, { cause: error });
    }
  }
  const configFile = path.join(modelDir, "tokenizer_config.json");
  const config = await readJsonObject(configFile);
  return fromConfig(config?.chat_template, configFile);
}

/**
 * The recipe's `chat_template`: a template where it has Jinja's `{{` or `{%`, else the path of a file with one, from
 * the current directory or from `baseDir`, the recipe's folder. Throws `DataError` when there is no such file.
 */
export async function recipeTemplate(value: string, baseDir: string): Promise<TemplateSource> {
  if (/\{[{%]/.test(value)) return { source: value, origin: "chat_template of the recipe" };
  const files = [...new Set([path.resolve(value), path.resolve(baseDir, value)])];
  for (const file of files) {
    try {
      return { source: await readFile(file, "utf8"), origin: file };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") continue;
      throw new DataError(`chat_template: ${file}: cannot be read: ${(error as Error).message}`, {
        hint: "give the path of a text file with a Jinja template",
        cause: error,
      });
    }
  }
  throw new DataError(
    `chat_template: expected a Jinja template (text with {{ or {%) or the path of a file with one, found ` +
      `${JSON.stringify(value.slice(0, 80))} and no file at ${files.join(" or ")}`,
    { hint: "correct the path; leave chat_template out to use the model's own template" },
  );
}
