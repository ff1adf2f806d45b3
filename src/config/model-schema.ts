import * as z from "zod";

/** Recipe keys that say which model is trained. */
export const modelFields = {
  modelNameOrPath: z
    .string()
    .min(1)
    .describe("Model directory in Hugging Face format: config.json, safetensors, tokenizer."),
  tokenizerNameOrPath: z
    .string()
    .min(1)
    .nullable()
    .default(null)
    .describe(
      "Directory of the tokenizer and its chat template, saved with the model too. Default: the model's.",
    ),
  torchDtype: z
    .enum(["auto", "float32", "bfloat16", "float16"])
    .nullable()
    .default(null)
    .describe("Accepted for old recipes: weights are read as stored and bf16 decides the rest."),
};
