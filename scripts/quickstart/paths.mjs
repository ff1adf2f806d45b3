/** Where the quickstart's files are. */
import path from "node:path";
import { fileURLToPath } from "node:url";

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");

const configs = path.join(root, "configs");
export const recipe = path.join(configs, "quickstart.yaml");
export const dataDir = path.join(configs, "quickstart", "data");
export const modelDir = path.join(configs, "quickstart", "model");

/** What `pretrain.yaml` reads and is not kept in the repository: first weights and corpus. */
export const pretrainDir = path.join(root, "outputs", "quickstart-pretrain");
export const initDir = path.join(pretrainDir, "init");
export const corpusDir = path.join(pretrainDir, "corpus");

/**
 * Whether a script was started itself, rather than imported.
 * @param {string} url the script's `import.meta.url`
 */
export function isMain(url) {
  return process.argv[1] !== undefined && fileURLToPath(url) === path.resolve(process.argv[1]);
}
