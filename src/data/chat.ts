import { readFile } from "node:fs/promises";
import path from "node:path";
import { DataError } from "../errors.js";
import { compileTemplate } from "./jinja-shim.js";
import { readJsonObject } from "./tokenizer.js";
import type { Message } from "./types.js";

/** A chat template: messages in, the text that the model is trained on out. */
export interface ChatTemplate {
  /** The template's text. */
  readonly source: string;
  /** Where it came from, for error messages. */
  readonly origin: string;
  /** True for the stand-in used when the model has no template of its own. */
  readonly isDefault: boolean;
  /**
   * The conversation as text. `where` names the row in a `DataError` when the template refuses it.
   * `addGenerationPrompt` opens an assistant turn at the end (for generation, never for training data).
   */
  render(
    messages: readonly Message[],
    where: string,
    options?: { addGenerationPrompt?: boolean },
  ): string;
}

/**
 * Stands in for a missing template: a header line, the text, the end-of-sequence token and a newline for
 * each user, system and assistant message, as the reference's recipes assume for base models.
 */
const DEFAULT_TEMPLATE = [
  "{%- for message in messages -%}",
  "{%- if message['role'] in ['user', 'system', 'assistant'] -%}",
  "{{ '<|' + message['role'] + '|>\\n' + message['content'] + eos_token + '\\n' }}",
  "{%- endif -%}",
  "{%- endfor -%}",
  "{%- if messages and add_generation_prompt -%}{{ '<|assistant|>\\n' }}{%- endif -%}",
].join("");

/** The text of `chat_template` in tokenizer_config.json: a string, or a list of named templates. */
function fromConfig(value: unknown, file: string): string | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value === "string") return value;
  if (Array.isArray(value)) {
    const named = new Map<string, string>();
    for (const entry of value as unknown[]) {
      if (typeof entry !== "object" || entry === null) continue;
      const { name, template } = entry as { name?: unknown; template?: unknown };
      if (typeof name === "string" && typeof template === "string") named.set(name, template);
    }
    const found = named.get("default");
    if (found !== undefined) return found;
    throw new DataError(
      `${file}: expected a chat template named "default", found ${[...named.keys()].map((n) => `"${n}"`).join(", ") || "none"}`,
      { hint: "set chat_template in the recipe to the template to use" },
    );
  }
  throw new DataError(`${file}: chat_template: expected text or a list of named templates`, {
    hint: "copy the file from the model again, or set chat_template in the recipe",
  });
}

async function findSource(
  modelDir: string,
): Promise<{ source: string; origin: string } | undefined> {
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
  const source = fromConfig(config?.chat_template, configFile);
  return source === undefined ? undefined : { source, origin: configFile };
}

/**
 * Loads the chat template of a model directory: `override` (the recipe's `chat_template`), else
 * `chat_template.jinja`, else `chat_template` in tokenizer_config.json, else a plain stand-in.
 * `specialTokens` (`bos_token` …) are variables of the template.
 */
export async function loadChatTemplate(
  modelDir: string,
  specialTokens: Readonly<Record<string, string>>,
  override?: string | null,
): Promise<ChatTemplate> {
  const found =
    typeof override === "string"
      ? { source: override, origin: "chat_template of the recipe" }
      : await findSource(modelDir);
  const { source, origin } = found ?? { source: DEFAULT_TEMPLATE, origin: "the default template" };
  let run: (variables: Record<string, unknown>) => string;
  try {
    run = compileTemplate(source);
  } catch (cause) {
    throw new DataError(
      `${origin}: the chat template cannot be read: ${(cause as Error).message}`,
      {
        hint: "set chat_template in the recipe to a template that works",
        cause,
      },
    );
  }
  return {
    source,
    origin,
    isDefault: found === undefined,
    render(messages, where, options = {}) {
      try {
        return run({
          messages,
          tools: null,
          documents: null,
          add_generation_prompt: options.addGenerationPrompt ?? false,
          ...specialTokens,
        });
      } catch (cause) {
        const roles = messages.map((message) => message.role).join(", ");
        throw new DataError(
          `${where}: the chat template (${origin}) refuses the messages (${roles}): ${(cause as Error).message}`,
          { hint: "change the row, or set chat_template in the recipe", cause },
        );
      }
    },
  };
}

/**
 * True when the reference would start this conversation with an empty system message: it has none, and
 * the template's text speaks of system messages. [alignment-handbook, `maybe_insert_system_message`]
 */
export function wantsEmptySystemMessage(
  template: ChatTemplate,
  messages: readonly Message[],
): boolean {
  if (messages[0]?.role === "system") return false;
  return template.source.includes("system") || template.source.includes("<|im_start|>");
}
