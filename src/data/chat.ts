import { DataError } from "../errors.js";
import { compileTemplate } from "./jinja-shim.js";
import { DEFAULT_TEMPLATE, modelTemplate, type TemplateSource } from "./template-source.js";
import type { Message } from "./types.js";

/** A chat template: messages in, the text that the model is trained on out. */
export interface ChatTemplate extends TemplateSource {
  /** True for the stand-in used when the model has no template of its own. */
  readonly isDefault: boolean;
  /** True for the model directory's own template. */
  readonly isModels: boolean;
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
 * Loads the chat template of a model directory: `override` (the recipe's, or the reference's for Mistral), else
 * `chat_template.jinja`, else `chat_template` in tokenizer_config.json, else a plain stand-in.
 * `specialTokens` (`bos_token` …) are variables of the template.
 */
export async function loadChatTemplate(
  modelDir: string,
  specialTokens: Readonly<Record<string, string>>,
  override?: TemplateSource,
): Promise<ChatTemplate> {
  const own = override === undefined ? await modelTemplate(modelDir) : undefined;
  const chosen = override ?? own ?? DEFAULT_TEMPLATE;
  const { source, origin } = chosen;
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
    ...chosen,
    isDefault: origin === DEFAULT_TEMPLATE.origin,
    isModels: own !== undefined,
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
 * True when this conversation is to start with an empty system message: it has none, and the template's text speaks
 * of system messages. The reference looks for the words in `tokenizer.chat_template`, and where that is a list of
 * named templates it so finds none but their names. [alignment-handbook, `maybe_insert_system_message`]
 */
export function wantsEmptySystemMessage(
  { source, names }: ChatTemplate,
  messages: readonly Message[],
  semantics: "reference" | "corrected",
): boolean {
  if (messages[0]?.role === "system") return false;
  const searched = semantics === "reference" ? (names ?? source) : source;
  return searched.includes("system") || searched.includes("<|im_start|>");
}
