/** What a piece of mpirun's output is: a rank's, or a message of mpirun itself. */
export type Piece = { readonly rank: number; readonly text: string } | { readonly mpirun: string };

const TAG = /\[\d+,(\d+)\]<(?:stdout|stderr|stddiag)>:/;
/** mpirun frames its own messages with lines of dashes, wherever a rank's line happens to stand. */
const RULE = /-{74}\n/;
const CHATTER = /mpirun: Forwarding signal \d+ to job\n/;
const BREAK = new RegExp(`${TAG.source}|${RULE.source}|${CHATTER.source}`);

/** The longest text that may still become a tag, a rule or chatter when more arrives. */
const LONGEST_BREAK = 80;

/**
 * Takes the output of `mpirun --tag-output` apart. mpirun puts `[1,2]<stderr>:` before each line of rank 2 and
 * before each piece that it happened to read, so a tag may stand in the middle of a line or of a character:
 * text is bytes here, one char per byte (`latin1`).
 *
 * @param emit called with each piece in order; a piece need not be a whole line
 */
export function createTagReader(emit: (piece: Piece) => void): {
  /** @param text bytes as `latin1` */
  feed(text: string): void;
  /** No more will come. */
  end(): void;
} {
  let rank: number | undefined;
  let framed: string | undefined; // a message of mpirun that has begun
  let waiting = "";

  const give = (text: string): void => {
    if (text === "") return;
    if (framed !== undefined) framed += text;
    else if (rank === undefined) emit({ mpirun: text });
    else emit({ rank, text });
  };

  const scan = (final: boolean): void => {
    for (;;) {
      const found = BREAK.exec(waiting);
      if (found === null) break;
      give(waiting.slice(0, found.index));
      waiting = waiting.slice(found.index + found[0].length);
      if (found[1] !== undefined) {
        // mpirun writes its messages in one go, so these dashes were a rank's.
        const dashes = framed === undefined ? "" : `${"-".repeat(74)}\n${framed}`;
        framed = undefined;
        give(dashes);
        rank = Number(found[1]);
      } else if (found[0].startsWith("-")) {
        if (framed === undefined) framed = "";
        else {
          const message = framed;
          framed = undefined;
          emit({ mpirun: message });
        }
      }
    }
    // What could be the beginning of a break stays until it is one or is not.
    const start = final ? -1 : possibleStart(waiting);
    const ready = start < 0 ? waiting : waiting.slice(0, start);
    waiting = waiting.slice(ready.length);
    give(ready);
  };

  return {
    feed(text) {
      waiting += text;
      scan(false);
    },
    end() {
      scan(true);
      if (framed) emit({ mpirun: framed });
      framed = undefined;
    },
  };
}

const BEGINNINGS = [
  /\[\d*$/,
  /\[\d+,\d*$/,
  /\[\d+,\d+\](?:<\w*>?)?$/,
  /-{1,74}$/,
  /m(?:p(?:i(?:r(?:u(?:n(?::[ \w]*)?)?)?)?)?)?$/,
];

/** Where the end of a text could be the first half of a tag, a rule or chatter; -1: nowhere. */
function possibleStart(text: string): number {
  const tail = text.slice(-LONGEST_BREAK);
  const starts = BEGINNINGS.map((pattern) => tail.search(pattern)).filter((at) => at >= 0);
  return starts.length === 0 ? -1 : text.length - tail.length + Math.min(...starts);
}
