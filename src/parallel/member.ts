import { once } from "node:events";
import { createConnection } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { CommError, markReported } from "../errors.js";
import { presentToHub, RefusedError, StrangerError } from "./handshake.js";
import {
  type CallKind,
  errorMessage,
  type GroupLimits,
  lostError,
  Peer,
  type Place,
  silentError,
  TcpGroup,
} from "./tcp-group.js";
import { type Message, Wire } from "./wire.js";

/** For one connection with its proofs, in milliseconds; then the next address, or the same again. */
const TRY_MS = 10_000;
/** Between two rounds of tries, in milliseconds. */
const PAUSE_MS = 250;
/** How long an error may take to rank 0 and back, in milliseconds. */
const TOLD_MS = 3000;

/** A rank's side of a group, other than rank 0's: one connection, to rank 0. */
export class Member extends TcpGroup {
  readonly #wire: Wire;
  readonly #peer = new Peer();
  readonly #closed: Promise<void>;
  #heardFailure = false;

  private constructor(wire: Wire, place: Place, limits: GroupLimits) {
    super(place, limits);
    this.#wire = wire;
    wire.socket.unref();
    this.#closed = new Promise((resolve) => {
      wire.listen(
        (message) => this.#hear(message),
        (why) => {
          this.#lose(lostError(0, this.#peer, why));
          resolve();
        },
      );
    });
  }

  /**
   * Connects to rank 0, for as long as `limits.connect` says: it may still be starting.
   * @param addresses of one host; the first that leads to rank 0 counts
   * @throws CommError when nobody answers, somebody else does, or rank 0 refuses this process
   */
  static async join(
    place: Place,
    token: string,
    { addresses, port }: { addresses: readonly string[]; port: number },
    limits: GroupLimits,
  ): Promise<Member> {
    const deadline = performance.now() + limits.connect * 1e3;
    const { rank } = place;
    for (;;) {
      let why = "";
      let strangers = 0;
      for (const address of addresses) {
        const where = `${address.includes(":") ? `[${address}]` : address}:${port}`;
        try {
          const left = Math.max(1, Math.min(TRY_MS, deadline - performance.now()));
          return new Member(
            await connect(address, port, token, place, left, limits.silence),
            place,
            limits,
          );
        } catch (error) {
          why = `${where}: ${(error as Error).message}`;
          if (error instanceof RefusedError)
            throw new CommError(`rank ${rank} was refused by rank 0 at ${why}`, {
              rank,
              hint: "it was started with variables of another run, or twice",
            });
          if (error instanceof StrangerError) strangers++;
        }
      }
      if (strangers === addresses.length)
        throw new CommError(`rank ${rank} finds another program in place of rank 0 at ${why}`, {
          rank,
          hint: "give every process of a run the same SIMPER_RUN_TOKEN, and each run of a machine its own MASTER_PORT",
        });
      if (performance.now() + PAUSE_MS > deadline)
        throw new CommError(`rank ${rank} found no rank 0 within ${limits.connect} s; ${why}`, {
          rank,
          hint: "is rank 0 running, and MASTER_ADDR:MASTER_PORT its machine and port? A firewall may be between",
        });
      await sleep(PAUSE_MS);
    }
  }

  protected wires(): Iterable<readonly [number, Wire]> {
    return [[0, this.#wire]];
  }

  protected enter(number: number, kind: CallKind, what: string, value: unknown): void {
    this.#wire.send({ type: "call", number, kind, what, value });
  }

  protected silent(): void {
    this.#lose(silentError(0, this.#peer, this.limits.silence));
  }

  protected async tellFailure(error: unknown, first: boolean): Promise<boolean> {
    if (first) {
      this.#wire.send(errorMessage(error));
      // A timer that keeps the process, unlike the connection: it may have nothing else to do.
      const answered = new AbortController();
      const late = sleep(TOLD_MS, undefined, answered).catch(() => {});
      await Promise.race([this.#closed, late]);
      answered.abort();
      void this.disconnect();
    }
    return this.#heardFailure;
  }

  #hear(message: Message): void {
    const { type, number, value } = message;
    if (type === "doing") this.#peer.doing = String(message.text);
    if (type === "result" && typeof number === "number") this.settle(number, value);
    if (type !== "failed") return;
    this.#heardFailure = true;
    const { message: text, hint, rank } = message;
    const reason = new CommError(String(text), {
      ...(typeof hint === "string" && { hint }),
      ...(typeof rank === "number" && { rank }),
    });
    markReported(reason); // by rank 0
    this.failed(reason);
    void this.disconnect();
  }

  /** Without rank 0 nobody can say who tells the user: rank 1 does, and one process of each machine. */
  #lose(reason: CommError): void {
    if (this.leaving || this.failure.aborted) return;
    if (this.rank !== 1 && this.localRank !== 0) markReported(reason);
    this.failed(reason);
    void this.disconnect();
  }
}

/** @throws what {@link presentToHub} throws, or why there is no connection */
async function connect(
  host: string,
  port: number,
  token: string,
  { rank, size }: Place,
  ms: number,
  silence: number,
): Promise<Wire> {
  const socket = createConnection({ host, port });
  const within = (limit: number) =>
    setTimeout(() => socket.destroy(new Error(`no answer within ${limit / 1e3} s`)), limit);
  let timer = within(ms);
  const wire = new Wire(socket);
  try {
    await once(socket, "connect");
    await presentToHub(wire, token, { rank, size }, () => {
      clearTimeout(timer);
      // Rank 0 may have taken this process already: to leave now would be to be lost.
      timer = within(silence * 1e3);
    });
    return wire;
  } catch (error) {
    socket.destroy();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}
