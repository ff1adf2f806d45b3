import { toRecipeKey } from "./names.js";
import { recipeSchema } from "./schema.js";

/** One key of a recipe as the documentation lists it. */
export interface RecipeKey {
  readonly key: string;
  readonly description: string;
  /** Undefined when the key is required; null when the description says what happens. */
  readonly defaultValue: unknown;
}

/** Every recipe key with its description and default, in the order of the schema. */
export function recipeKeys(): RecipeKey[] {
  return Object.entries(recipeSchema.shape).map(([name, field]) => {
    const absent = field.safeParse(undefined);
    return {
      key: toRecipeKey(name),
      description: field.description ?? "",
      defaultValue: absent.success ? (absent.data ?? null) : undefined,
    };
  });
}

/** The recipe keys as text for `--help`. */
export function recipeKeyHelp(): string {
  const keys = recipeKeys();
  const width = Math.max(...keys.map(({ key }) => key.length));
  const lines = keys.map(({ key, description, defaultValue }) => {
    const shown =
      defaultValue === undefined
        ? " [required]"
        : defaultValue === null
          ? ""
          : ` [${JSON.stringify(defaultValue)}]`;
    return `  ${key.padEnd(width)}  ${description}${shown}`;
  });
  return `Recipe keys, each also an option (--key value):\n${lines.join("\n")}`;
}
