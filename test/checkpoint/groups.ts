import { type ProcessGroup, soloGroup } from "#src/parallel/group.js";

/**
 * Groups of `size` ranks that live in this process: what a test of files needs of several processes. A rank that is
 * `lost` makes the exchanges of the others fail from then on.
 */
export function groupsOf(size: number): { groups: ProcessGroup[]; lose: (error: Error) => void } {
  type Exchange = { what: string; values: unknown[]; done: Promise<void>; finish: () => void };
  const exchanges: Exchange[] = [];
  let lost: Error | undefined;
  let tell = (_: Error): void => {};
  const failed = new Promise<never>((_, reject) => {
    tell = reject;
  });
  failed.catch(() => {});
  const exchange = (turn: number, what: string): Exchange => {
    const found = exchanges[turn];
    if (found) return found;
    let finish = (): void => {};
    const done = new Promise<void>((resolve) => {
      finish = resolve;
    });
    const made = { what, values: [], done, finish };
    exchanges[turn] = made;
    return made;
  };
  const groups = Array.from({ length: size }, (_, rank): ProcessGroup => {
    let turn = 0;
    const gather = async <T>(what: string, value: T): Promise<T[]> => {
      if (lost) throw lost;
      const own = exchange(turn++, what);
      if (own.what !== what)
        throw new Error(`rank ${rank} is at "${what}", others at "${own.what}"`);
      // As on the wire: a copy, and nothing that JSON does not carry.
      own.values[rank] = value === undefined ? null : JSON.parse(JSON.stringify(value));
      if (Object.keys(own.values).length === size) own.finish();
      await Promise.race([own.done, failed]);
      return own.values as T[];
    };
    return {
      ...soloGroup(),
      rank,
      size,
      localRank: rank,
      localSize: size,
      gather,
      broadcast: async (what, value) => (await gather(what, value))[0]!,
      barrier: async (what) => void (await gather(what, null)),
    };
  });
  const lose = (error: Error): void => {
    lost = error;
    tell(error);
  };
  return { groups, lose };
}
