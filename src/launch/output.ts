import { StringDecoder } from "node:string_decoder";

/** Where the lines of all ranks end up. */
export interface OutputOptions {
  /** Writes to the terminal or file of the launcher. */
  readonly write: (text: string) => void;
  /** Rank 0 redraws a line of progress there; otherwise only whole lines are written. */
  readonly live: boolean;
}

/** The output of all ranks on one stream, told apart and put together again. */
export interface RankOutput {
  /** @param bytes what the rank wrote; a piece may end within a line or a character */
  feed(rank: number, bytes: Uint8Array): void;
  /** A line of the launcher itself, or of mpirun. */
  line(text: string): void;
  /** Whether a rank has written a message of ours. */
  readonly told: boolean;
  /** Writes what ranks left without a line end. */
  end(): void;
}

/** What an error of ours begins with; further lines of it are indented. */
const OURS = "simper-native: ";
/** Clears a line of the terminal from the cursor on. */
const CLEAR = "\x1b[K";

/**
 * Puts the lines of many ranks into one stream: rank 0's as they are, the others' after `[rank 2] `. An error
 * that several ranks found is written once, for the first that told it. Rank 0's line of progress stays the last
 * one of a terminal.
 */
export function createRankOutput({ write, live }: OutputOptions): RankOutput {
  const ranks = new Map<number, RankLines>();
  const told = new Map<string, number>();
  let drawn = ""; // rank 0's unfinished line, as it stands on the terminal

  const above = (text: string): void =>
    write(drawn === "" ? `${text}\n` : `\r${CLEAR}${text}\n${drawn}`);

  /** Whether another rank has written the same error. */
  const isTold = (rank: number, state: RankLines, line: string): boolean => {
    const ours = line.startsWith(OURS);
    if (ours) {
      const first = told.get(line);
      if (first === undefined) told.set(line, rank);
      state.dropping = first !== undefined && first !== rank;
    } else if (!line.startsWith("  ")) state.dropping = false;
    return state.dropping;
  };

  const finish = (rank: number, state: RankLines, line: string): void => {
    if (isTold(rank, state, line)) return;
    above(rank === 0 ? line : `[rank ${rank}] ${line}`);
  };

  const feedLines = (rank: number, text: string): void => {
    let state = ranks.get(rank);
    if (state === undefined) {
      state = { pending: "", dropping: false };
      ranks.set(rank, state);
    }
    const lines = (state.pending + text).split(/\r?\n/); // stdout is a pty where mpirun starts ranks
    state.pending = lines.pop()!;
    if (!(live && rank === 0)) {
      for (const line of lines) finish(rank, state, line);
      return;
    }
    for (const line of lines) {
      // The line on the terminal is this one's beginning, and it is cleared before it is written whole.
      if (drawn !== "") write(`\r${CLEAR}`);
      drawn = "";
      finish(rank, state, visible(line));
    }
    state.pending = visible(state.pending);
    if (state.pending === drawn) return;
    write(drawn === "" ? state.pending : `\r${CLEAR}${state.pending}`);
    drawn = state.pending;
  };

  const decoders = new Map<number, StringDecoder>();
  return {
    feed(rank, bytes) {
      let decoder = decoders.get(rank);
      if (decoder === undefined) {
        decoder = new StringDecoder("utf8");
        decoders.set(rank, decoder);
      }
      feedLines(rank, decoder.write(Buffer.from(bytes)));
    },
    line: above,
    get told() {
      return told.size > 0;
    },
    end() {
      for (const [rank, state] of ranks) {
        if (state.pending === "") continue;
        if (live && rank === 0) write("\n");
        else finish(rank, state, state.pending);
        state.pending = "";
        if (rank === 0) drawn = "";
      }
    },
  };
}

interface RankLines {
  /** What follows the last line end. */
  pending: string;
  /** Its latest error is one that another rank has written. */
  dropping: boolean;
}

/** A redrawn line as it looks in the end: what follows its last return to the first column. */
function visible(line: string): string {
  let text = line.slice(line.lastIndexOf("\r") + 1);
  while (text.startsWith(CLEAR)) text = text.slice(CLEAR.length);
  return text;
}
