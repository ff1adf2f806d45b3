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
 * Finds the files behind `dataset_mixer` and `dataset_splits`. Relative paths are looked up in the
 * current directory, then in `baseDir` (the recipe's folder). Fractions apply to train splits only;
 * test splits are used whole. Throws `DataError` when a key leads nowhere or no split has a train row.
 */
export async function resolveMix(
  config: Pick<DataConfig, "datasetMixer" | "datasetSplits">,
  baseDir: string,
): Promise<Mix> {
  const mix: Record<Pool, Source[]> = { train: [], test: [] };
  const splits = config.datasetSplits;
  for (const split of splits) poolOf(split);
  for (const [key, fraction] of Object.entries(config.datasetMixer)) {
    if (!(fraction >= 0 && fraction <= 1)) {
      throw new DataError(
        `dataset_mixer: ${JSON.stringify(key)}: expected a fraction from 0 to 1, found ${fraction}`,
        { hint: "1.0 uses every row" },
      );
    }
    const { location, kind } = await locate(key, [process.cwd(), baseDir]);
    let found = 0;
    for (const split of splits) {
      const pool = poolOf(split);
      let files: string[];
      if (kind === "folder") files = await splitFiles(location, split);
      else files = splitOfFile(location, splits) === split ? [location] : [];
      if (files.length === 0) continue;
      for (const file of files) formatOf(file);
      found += 1;
      mix[pool].push({ files, fraction: pool === "train" ? fraction : 1 });
    }
    if (found === 0) {
      const there = kind === "folder" ? (await filesIn(location)).map((f) => path.basename(f)) : [];
      throw new DataError(
        kind === "folder"
          ? `${location}: expected files for the splits ${splits.join(", ")}, found ${there.join(", ") || "no .jsonl or .json file"}`
          : `${location}: this file serves none of the splits ${splits.join(", ")}`,
        {
          hint: "name the files after their splits (train.jsonl, test.jsonl) or set dataset_splits",
        },
      );
    }
  }
  return mix;
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
