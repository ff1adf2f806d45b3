import { readdir, stat } from "node:fs/promises";
import path from "node:path";
import { DataError } from "../errors.js";
import { formatOf, isDataFile, type RawRow } from "./formats/index.js";
import type { DataConfig } from "./schema.js";

/** One data set's part of a pool: files in order, and how many of their rows to use. */
export interface Source {
  readonly files: readonly string[];
  /** The first ⌊fraction · rows⌋ rows are used. */
  readonly fraction: number;
}

/** The files of a recipe's data sets. */
export interface Mix {
  readonly train: readonly Source[];
  readonly test: readonly Source[];
  /** What the user should know. */
  readonly notices: readonly string[];
}

type Pool = "train" | "test";

/** Which pool a split feeds: by its name, "train" first, as in the reference. [seed.md A.3] */
function poolOf(split: string): Pool {
  if (split.includes("train")) return "train";
  if (split.includes("test")) return "test";
  throw new DataError(
    `dataset_splits: expected names with "train" or "test" in them, found ${JSON.stringify(split)}`,
    { hint: "rename the file so that its name says what it is for" },
  );
}

function stem(file: string): string {
  return path.basename(file, path.extname(file));
}

/** True when `name` holds `word` between separators: `ultra-train-00000-of-00002` holds `train`. */
function holdsWord(name: string, word: string): boolean {
  const escaped = word.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");
  return new RegExp(`(?:^|[-._ 0-9])${escaped}(?:$|[-._ 0-9])`, "i").test(name);
}

async function kindOf(location: string): Promise<"file" | "folder" | undefined> {
  try {
    const info = await stat(location);
    return info.isDirectory() ? "folder" : "file";
  } catch {
    return undefined;
  }
}

async function filesIn(folder: string): Promise<string[]> {
  const names = await readdir(folder);
  return names
    .filter(isDataFile)
    .sort()
    .map((name) => path.join(folder, name));
}

/** Names that differ in more than their shard numbers are different data. */
function requireOneName(files: readonly string[], split: string, folder: string): void {
  const names = new Set(files.map((file) => path.basename(file).replace(/\d+/g, "#")));
  if (names.size > 1) {
    const list = files.map((file) => path.basename(file)).join(", ");
    throw new DataError(`${folder}: several files could be the split "${split}": ${list}`, {
      hint: "name one of them exactly in dataset_splits, or give its path in dataset_mixer",
    });
  }
}

/**
 * The files of one split in a folder. In this order: a file named for the split (`train_prefs.jsonl`),
 * its shards (`train_prefs-00000-of-00002.jsonl`), a folder of that name, a file whose name holds the
 * split between separators (`my-train-1.json`); in the folder itself, then in its folder `data`.
 */
async function splitFiles(folder: string, split: string): Promise<string[]> {
  for (const place of [folder, path.join(folder, "data")]) {
    if ((await kindOf(place)) !== "folder") continue;
    const files = await filesIn(place);
    const named = files.filter((file) => stem(file) === split);
    const shards = files.filter(
      (file) => stem(file).startsWith(split) && /^[-._]\d+/.test(stem(file).slice(split.length)),
    );
    const inner = path.join(place, split);
    const nested = (await kindOf(inner)) === "folder" ? await filesIn(inner) : [];
    const holding = files.filter((file) => holdsWord(stem(file), split));
    for (const found of [named, shards, nested, holding]) {
      if (found.length === 0) continue;
      if (found !== nested) requireOneName(found, split, place);
      return found;
    }
  }
  return [];
}

/** Names that a folder's data could be asked for by: its files without shard numbers, its folders of files. */
async function splitNames(folder: string): Promise<string[]> {
  const names = new Set<string>();
  for (const place of [folder, path.join(folder, "data")]) {
    if ((await kindOf(place)) !== "folder") continue;
    for (const entry of await readdir(place, { withFileTypes: true })) {
      const name = entry.name;
      if (entry.isDirectory()) {
        if ((await filesIn(path.join(place, name))).length > 0) names.add(name);
      } else if (isDataFile(name)) names.add(stem(name).replace(/[-._]\d+(-of-\d+)?$/, ""));
    }
  }
  names.delete("data");
  return [...names].sort();
}

/**
 * The split that a single file serves: the longest of `splits` in its name; else "train" or "test" in
 * its name picks the first split of that pool; else the first train split.
 */
function splitOfFile(file: string, splits: readonly string[]): string | undefined {
  const name = stem(file);
  const named = splits
    .filter((split) => holdsWord(name, split))
    .sort((a, b) => b.length - a.length)[0];
  if (named !== undefined) return named;
  const pool: Pool = !holdsWord(name, "train") && holdsWord(name, "test") ? "test" : "train";
  return splits.find((split) => poolOf(split) === pool);
}

async function locate(
  key: string,
  folders: readonly string[],
): Promise<{ location: string; kind: "file" | "folder" }> {
  const candidates = [...new Set(folders.map((folder) => path.resolve(folder, key)))];
  for (const location of candidates) {
    const kind = await kindOf(location);
    if (kind !== undefined) return { location, kind };
  }
  throw new DataError(
    `dataset_mixer: ${JSON.stringify(key)}: expected a file or folder, found nothing at ${candidates.join(" or ")}`,
    {
      hint:
        "give the path of a .jsonl or .json file, or of a folder with train.jsonl and test.jsonl; " +
        "data sets of the Hugging Face Hub must be downloaded first",
    },
  );
}

/**
 * The configuration of each data set, in the order of the mixer, as the reference takes them: one for each.
 * [seed.md A.3]
 */
function configsOf(
  names: readonly string[],
  configs: readonly string[] | null | undefined,
): (string | undefined)[] {
  if (configs === undefined || configs === null || configs.length === 0) {
    return names.map(() => undefined);
  }
  if (configs.length !== names.length) {
    throw new DataError(
      `dataset_configs: expected one for each of the ${names.length} data sets of dataset_mixer ` +
        `(${names.join(", ")}), found ${configs.length}: ${configs.join(", ")}`,
      { hint: "give as many as there are data sets, in their order, or leave dataset_configs out" },
    );
  }
  return [...configs];
}

/** The sub-folder of a configuration, or the folder itself where there is none of that name. */
async function configFolder(
  folder: string,
  config: string,
): Promise<{ folder: string; found: boolean }> {
  for (const place of [path.join(folder, config), path.join(folder, "data", config)]) {
    if ((await kindOf(place)) === "folder") return { folder: place, found: true };
  }
  return { folder, found: false };
}

/** A folder of the mixer, and the splits of the recipe that it has no files for. */
interface Folder {
  readonly key: string;
  readonly folder: string;
  readonly missing: readonly string[];
}

/**
 * Refuses a split that no folder of the mixer has, and names those that only some have. A single file has no splits
 * to miss: it serves one, whatever it is called. `train` and `test` are looked for without being asked, so either
 * may be nowhere where it is all of its pool; what an empty pool means is said when the rows are read.
 */
async function checkSplits(
  splits: readonly string[],
  folders: readonly Folder[],
  served: ReadonlySet<string>,
): Promise<string[]> {
  const notices: string[] = [];
  for (const split of new Set(splits)) {
    const without = folders.filter(({ missing }) => missing.includes(split));
    if (without.length === 0) continue;
    const alone = splits.every((other) => other === split || poolOf(other) !== poolOf(split));
    if (served.has(split)) {
      const names = without.map(({ key }) => JSON.stringify(key)).join(", ");
      notices.push(`dataset_splits: ${JSON.stringify(split)} is not in ${names}`);
    } else if (!(alone && (split === "train" || split === "test"))) {
      const there: string[] = [];
      for (const { folder } of without) {
        there.push(`${folder} has ${(await splitNames(folder)).join(", ")}`);
      }
      throw new DataError(
        `dataset_splits: ${JSON.stringify(split)}: no data set of dataset_mixer has this split; ${there.join("; ")}`,
        { hint: "correct the name, or leave it out of dataset_splits" },
      );
    }
  }
  return notices;
}

/**
 * Finds the files behind `dataset_mixer`, `dataset_splits` and `dataset_configs`. Relative paths are looked up in the
 * current directory, then in `baseDir` (the recipe's folder). A configuration is a sub-folder of its data set. Each
 * train split of a data set has that data set's fraction; test splits are used whole. Throws `DataError` when a key
 * leads nowhere, a data set has none of the splits, or a split is in no data set.
 */
export async function resolveMix(
  config: Pick<DataConfig, "datasetMixer" | "datasetSplits"> &
    Partial<Pick<DataConfig, "datasetConfigs">>,
  baseDir: string,
): Promise<Mix> {
  const mix: Record<Pool, Source[]> = { train: [], test: [] };
  const notices: string[] = [];
  const folders: Folder[] = [];
  const served = new Set<string>();
  const splits = config.datasetSplits;
  for (const split of splits) poolOf(split);
  const entries = Object.entries(config.datasetMixer);
  const configs = configsOf(Object.keys(config.datasetMixer), config.datasetConfigs);
  for (const [i, [key, fraction]] of entries.entries()) {
    if (!(fraction >= 0 && fraction <= 1)) {
      throw new DataError(
        `dataset_mixer: ${JSON.stringify(key)}: expected a fraction from 0 to 1, found ${fraction}`,
        { hint: "1.0 uses every row" },
      );
    }
    const { location, kind } = await locate(key, [process.cwd(), baseDir]);
    const name = configs[i];
    let folder = location;
    if (name !== undefined) {
      const place =
        kind === "folder" ? await configFolder(location, name) : { folder, found: false };
      folder = place.folder;
      if (!place.found) {
        notices.push(
          `dataset_configs: ${JSON.stringify(name)}: ${location} has no folder of that name, so it is taken for the ` +
            "configuration itself",
        );
      }
    }
    const train: string[] = [];
    const missing: string[] = [];
    for (const split of splits) {
      const pool = poolOf(split);
      let files: string[];
      if (kind === "folder") files = await splitFiles(folder, split);
      else files = splitOfFile(location, splits) === split ? [location] : [];
      if (files.length === 0) {
        missing.push(split);
        continue;
      }
      for (const file of files) formatOf(file);
      served.add(split);
      if (pool === "train") train.push(split);
      mix[pool].push({ files, fraction: pool === "train" ? fraction : 1 });
    }
    if (train.length > 1 && fraction < 1) {
      notices.push(
        `dataset_mixer: ${JSON.stringify(key)}: the fraction ${fraction} is taken of each of its train splits ` +
          `(${train.join(", ")}); the reference pairs fractions and splits wrongly here`,
      );
    }
    if (missing.length === splits.length) {
      const there = kind === "folder" ? (await filesIn(folder)).map((f) => path.basename(f)) : [];
      throw new DataError(
        kind === "folder"
          ? `${folder}: expected files for the splits ${splits.join(", ")}, found ${there.join(", ") || "no .jsonl or .json file"}`
          : `${location}: this file serves none of the splits ${splits.join(", ")}`,
        {
          hint: "name the files after their splits (train.jsonl, test.jsonl) or set dataset_splits",
        },
      );
    }
    if (kind === "folder") folders.push({ key, folder, missing });
  }
  notices.push(...(await checkSplits(splits, folders, served)));
  return { ...mix, notices };
}

async function countRows({ files }: Source): Promise<number> {
  let count = 0;
  for (const file of files) count += await formatOf(file).count(file);
  return count;
}

/** The rows of a pool in file order, each source cut to its fraction. */
export async function* rowsOf(sources: readonly Source[]): AsyncGenerator<RawRow> {
  for (const source of sources) {
    let left =
      source.fraction === 1 ? Infinity : Math.floor(source.fraction * (await countRows(source)));
    for (const file of source.files) {
      if (left <= 0) break;
      for await (const row of formatOf(file).read(file)) {
        yield row;
        left -= 1;
        if (left <= 0) break;
      }
    }
  }
}
