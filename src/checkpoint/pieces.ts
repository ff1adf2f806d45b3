import path from "node:path";
import { CheckpointError } from "../errors.js";
import { brief, isRecord, isSizeList } from "./safetensors-header.js";

/**
 * State that several processes write: each writes the elements it keeps, as one file of flat tensors, and an index
 * says which elements of which tensor are in which file. Any number of processes can read it back.
 *
 *   optimizer-00001-of-00002.safetensors   {"exp_avg.lm_head.weight": F32 [5_000], …}
 *   optimizer-00002-of-00002.safetensors   {"exp_avg.lm_head.weight": F32 [5_128], …}
 *   optimizer.safetensors.index.json       {"metadata": …, "shapes": {"exp_avg.lm_head.weight": [211, 48], …},
 *                                           "pieces": {"exp_avg.lm_head.weight": [{"file": …, "begin": 0, "end": 5_000}, …]}}
 */

/** Elements `[begin, end)`. */
export interface Extent {
  readonly begin: number;
  readonly end: number;
}

/** A tensor under its name in files, and where its elements lie in a flat buffer. */
export interface FlatTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** Its first element in the buffer. */
  readonly offset: number;
}

/** Elements `[begin, end)` of a tensor of that shape; none where the two are equal. */
export interface TensorPiece extends Extent {
  readonly name: string;
  readonly shape: readonly number[];
  /** Where the first of them lies in the memory that holds the piece, in elements. */
  readonly at: number;
}

/** Where a piece is kept. */
export interface FilePiece extends Extent {
  readonly file: string;
}

/** Content of an index of pieces. */
export interface PieceIndex {
  readonly shapes: Readonly<Record<string, readonly number[]>>;
  readonly pieces: Readonly<Record<string, readonly FilePiece[]>>;
}

/**
 * What of each tensor lies in the part `[begin, end)` of the flat buffer: one piece per tensor, in their order,
 * empty ones included. `at` counts from the part's begin.
 */
export function piecesWithin(tensors: readonly FlatTensor[], part: Extent): TensorPiece[] {
  return tensors.map(({ name, shape, offset }) => {
    const elements = elementCount(shape);
    const begin = Math.min(Math.max(part.begin - offset, 0), elements);
    const end = Math.max(begin, Math.min(part.end - offset, elements));
    const at = end > begin ? offset + begin - part.begin : 0;
    return { name, shape, begin, end, at };
  });
}

/** `optimizer-00002-of-00004.safetensors`: what rank 1 of 4 writes. */
export function pieceFile(base: string, rank: number, ranks: number): string {
  return `${base}-${fiveDigits(rank + 1)}-of-${fiveDigits(ranks)}.safetensors`;
}

/** `optimizer.safetensors.index.json` */
export function pieceIndexFile(base: string): string {
  return `${base}.safetensors.index.json`;
}

function fiveDigits(n: number): string {
  return String(n).padStart(5, "0");
}

/** The index of what all ranks write; `piecesOf` gives those of a rank. */
export function pieceIndex(
  base: string,
  ranks: number,
  piecesOf: (rank: number) => readonly TensorPiece[],
): PieceIndex & { readonly metadata: Readonly<Record<string, number>> } {
  const shapes = new Map<string, readonly number[]>();
  const pieces = new Map<string, FilePiece[]>();
  for (let rank = 0; rank < ranks; rank++) {
    const file = pieceFile(base, rank, ranks);
    for (const { name, shape, begin, end } of piecesOf(rank)) {
      shapes.set(name, shape);
      const list = pieces.get(name) ?? [];
      if (end > begin) list.push({ file, begin, end });
      pieces.set(name, list);
    }
  }
  return {
    metadata: { ranks },
    shapes: Object.fromEntries(shapes),
    pieces: Object.fromEntries(pieces),
  };
}

/**
 * Reads an index and checks that its pieces make up every tensor: no gap, no overlap, nothing missing at either
 * end.
 *
 * @param file for messages, and the folder whose files it names.
 * @throws CheckpointError naming the tensor and what is wrong with it.
 */
export function parsePieceIndex(file: string, text: string): PieceIndex {
  const refuse = (message: string): CheckpointError =>
    new CheckpointError(`${file}: ${message}`, {
      hint: "the checkpoint is damaged; resume from another checkpoint-<step> of the run",
    });
  let index: unknown;
  try {
    index = JSON.parse(text);
  } catch (error) {
    throw refuse(`not valid JSON: ${(error as Error).message}`);
  }
  if (!isRecord(index) || !isRecord(index.shapes) || !isRecord(index.pieces)) {
    throw refuse('expected "shapes" and "pieces", maps by tensor name');
  }
  const shapes: [string, number[]][] = [];
  const pieces: [string, FilePiece[]][] = [];
  for (const [name, shape] of Object.entries(index.shapes)) {
    const wrong = (message: string): CheckpointError => refuse(`tensor "${name}" ${message}`);
    if (!isSizeList(shape) || !Number.isSafeInteger(elementCount(shape))) {
      throw wrong("has a shape that is no list of whole numbers");
    }
    const list = Object.hasOwn(index.pieces, name) ? index.pieces[name] : undefined;
    if (!Array.isArray(list)) throw wrong("has no list of pieces");
    const parsed = list.map((value) => parsePiece(value, wrong));
    checkCover(parsed, elementCount(shape), wrong);
    shapes.push([name, shape]);
    pieces.push([name, parsed]);
  }
  const known = new Set(shapes.map(([name]) => name));
  const extra = Object.keys(index.pieces).find((name) => !known.has(name));
  if (extra !== undefined) throw refuse(`tensor "${extra}" has pieces and no shape`);
  return { shapes: Object.fromEntries(shapes), pieces: Object.fromEntries(pieces) };
}

function parsePiece(value: unknown, wrong: (message: string) => CheckpointError): FilePiece {
  const { file, begin, end } = isRecord(value) ? value : {};
  const named = typeof file === "string" && path.basename(file) === file && !/^\.*$/.test(file);
  if (!named || !isSizeList([begin, end]) || (begin as number) >= (end as number)) {
    throw wrong(
      `has the piece ${brief(value)}; expected {file, begin, end}, a file beside the index and begin < end`,
    );
  }
  return { file, begin: begin as number, end: end as number };
}

function checkCover(
  pieces: FilePiece[],
  elements: number,
  wrong: (message: string) => CheckpointError,
): void {
  pieces.sort((a, b) => a.begin - b.begin || a.end - b.end);
  let end = 0;
  const files = new Set<string>();
  for (const piece of pieces) {
    if (piece.begin > end) throw wrong(`lacks its elements [${end}, ${piece.begin})`);
    if (piece.begin < end) {
      throw wrong(`has its elements [${piece.begin}, ${Math.min(end, piece.end)}) twice`);
    }
    if (files.has(piece.file)) throw wrong(`is named twice for ${piece.file}`);
    files.add(piece.file);
    end = piece.end;
  }
  if (end < elements) throw wrong(`lacks its elements [${end}, ${elements})`);
  if (end > elements) throw wrong(`has pieces up to element ${end} of ${elements}`);
}

function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, extent) => product * extent, 1);
}
