import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { networkInterfaces } from "node:os";
import { CommError } from "../errors.js";
import { type Claim, receiveMember } from "./handshake.js";
import {
  type CallKind,
  describeCall,
  failureFrom,
  type GroupLimits,
  hold,
  lostError,
  Peer,
  type Place,
  silentError,
  TcpGroup,
} from "./tcp-group.js";
import { type Message, overTheWire, Wire } from "./wire.js";

/** Connections that have not yet proved who they are; one more pushes out the oldest. */
const MAX_STRANGERS = 256;
/** For such a proof, in milliseconds. */
const STRANGER_MS = 10_000;

/** What ranks have said in a call; complete when all have. */
interface Call {
  readonly kind: CallKind;
  readonly what: string;
  /** The rank that came first, and when. */
  readonly first: number;
  readonly since: number;
  readonly values: unknown[];
  readonly arrived: Set<number>;
}

interface Member {
  readonly wire: Wire;
  readonly peer: Peer;
  readonly from: string;
}

/** Rank 0's side of a group: all others are connected to it, and it passes on what they say. */
export class Hub extends TcpGroup {
  /** Where it listens. */
  readonly port: number;
  readonly #server: Server;
  readonly #token: string;
  readonly #members = new Map<number, Member>();
  readonly #calls = new Map<number, Call>();
  readonly #strangers = new Set<Socket>();
  readonly #refused = new Map<string, number>();
  readonly #opened = performance.now();
  #ended: Promise<unknown> = Promise.resolve();

  private constructor(server: Server, token: string, place: Place, limits: GroupLimits) {
    super(place, limits);
    const address = server.address();
    this.port = typeof address === "object" && address !== null ? address.port : 0;
    this.#server = server;
    this.#token = token;
    server.unref();
    server.on("error", () => {}); // of single connections that could not be accepted
    server.on("connection", (socket: Socket) => void this.#receive(socket));
  }

  /**
   * Listens on every interface of the machine. Ranks connect while calls wait for them already.
   * @param port 0: one that is free
   * @throws CommError when the port cannot be used
   */
  static async open(place: Place, token: string, port: number, limits: GroupLimits): Promise<Hub> {
    // Both IP versions; where the machine has no IPv6, the old one.
    const server = await listen(port, "::")
      .catch((error: NodeJS.ErrnoException) => {
        if (error.code === "EAFNOSUPPORT" || error.code === "EADDRNOTAVAIL")
          return listen(port, "0.0.0.0");
        throw error;
      })
      .catch((error: NodeJS.ErrnoException) => {
        throw new CommError(`rank 0 cannot listen on port ${port}: ${error.message}`, {
          rank: 0,
          hint: "choose another port: MASTER_PORT, or --master_port",
          cause: error,
        });
      });
    return new Hub(server, token, place, limits);
  }

  protected wires(): Iterable<readonly [number, Wire]> {
    return [...this.#members].map(([rank, { wire }]) => [rank, wire] as const);
  }

  protected override holdProcess(): void {
    super.holdProcess();
    hold(this.#server, this.waiting);
  }

  protected enter(number: number, kind: CallKind, what: string, value: unknown): void {
    this.#arrive(0, number, kind, what, value);
  }

  protected silent(rank: number): void {
    this.failed(silentError(rank, this.#peer(rank), this.limits.silence));
  }

  protected override failed(reason: CommError): void {
    if (this.failure.aborted || this.leaving) return;
    super.failed(reason);
    const { message, hint, rank } = reason;
    const told = { type: "failed", message, rank, ...(hint !== undefined && { hint }) };
    for (const { wire } of this.#members.values()) wire.send(told);
    this.#ended = this.disconnect();
  }

  protected async tellFailure(): Promise<boolean> {
    await this.#ended;
    return false;
  }

  protected override checkCalls(): void {
    const now = performance.now();
    if (this.#members.size < this.size - 1) {
      const { connect } = this.limits;
      if (now - this.#opened > connect * 1e3) this.failed(this.#absentError(connect));
      return;
    }
    for (const { kind, what, first, since, arrived } of this.#calls.values()) {
      if (now - since <= this.limits.call * 1e3) continue;
      const missing = ranks(this.size, (rank) => !arrived.has(rank));
      this.failed(
        new CommError(
          `${describeCall(kind, what)}, which rank ${first} is in: no answer from ${missing.text} within ${this.limits.call} s`,
          { rank: missing.first, hint: "ddp_timeout in the recipe is this bound" },
        ),
      );
      return;
    }
  }

  protected override stop(): void {
    super.stop();
    this.#server.close();
    for (const socket of this.#strangers) socket.destroy();
  }

  async #receive(socket: Socket): Promise<void> {
    const wire = new Wire(socket);
    this.#strangers.add(socket);
    if (this.#strangers.size > MAX_STRANGERS) {
      const [oldest] = this.#strangers;
      oldest?.destroy();
    }
    const timer = setTimeout(() => socket.destroy(), STRANGER_MS).unref();
    socket.unref();
    try {
      const claim = await receiveMember(wire, this.#token);
      const refused = this.#refusal(claim);
      if (refused === undefined) return this.#join(claim.rank, wire);
      wire.send({ refused });
      void wire.end();
      this.#count(`rank ${claim.rank}: ${refused}`);
    } catch (error) {
      socket.destroy();
      this.#count(error instanceof Error ? error.message : String(error));
    } finally {
      clearTimeout(timer);
      this.#strangers.delete(socket);
    }
  }

  #refusal({ rank, size }: Claim): string | undefined {
    if (size !== this.size)
      return `it is in a run of ${size} processes, and rank 0 in one of ${this.size}`;
    if (rank < 1 || rank >= size) return `there is no other rank ${rank} in a run of ${size}`;
    const known = this.#members.get(rank);
    if (known) return `another process, from ${known.from}, is rank ${rank} already`;
    return undefined;
  }

  #join(rank: number, wire: Wire): void {
    const peer = new Peer();
    this.#members.set(rank, { wire, peer, from: wire.socket.remoteAddress ?? "an unknown host" });
    wire.send({ welcome: true });
    wire.listen(
      (message) => this.#hear(rank, peer, message),
      (why) => {
        if (!this.leaving) this.failed(lostError(rank, peer, why));
      },
    );
    this.holdProcess();
  }

  #hear(rank: number, peer: Peer, message: Message): void {
    if (this.failure.aborted) return;
    const { type, number, kind, what, value } = message;
    if (type === "beat") return;
    if (type === "doing") peer.doing = String(message.text);
    else if (type === "error") this.failed(failureFrom(rank, message));
    else if (type === "call" && typeof number === "number" && typeof what === "string")
      this.#arrive(rank, number, kind as CallKind, what, value);
    else this.failed(lostError(rank, peer, `it sent a message of type ${String(type)}`));
  }

  #arrive(rank: number, number: number, kind: CallKind, what: string, value: unknown): void {
    let call = this.#calls.get(number);
    if (call === undefined) {
      const since = performance.now();
      call = { kind, what, first: rank, since, values: [], arrived: new Set() };
      this.#calls.set(number, call);
    }
    if (call.kind !== kind || call.what !== what) {
      const theirs = describeCall(call.kind, call.what);
      const message = `rank ${rank} is in ${describeCall(kind, what)} and rank ${call.first} in ${theirs}: expected the same on every rank`;
      this.failed(new CommError(message, { rank }));
      return;
    }
    call.values[rank] = value;
    call.arrived.add(rank);
    const member = this.#members.get(rank);
    if (member) member.peer.call = describeCall(kind, what);
    if (call.arrived.size < this.size) return;
    this.#calls.delete(number);
    this.#answer(number, call);
  }

  #answer(number: number, { kind, values }: Call): void {
    const value = overTheWire(kind === "gather" ? values : kind === "broadcast" ? values[0] : null);
    if (kind === "close") this.leaving = true;
    for (const { wire, peer } of this.#members.values()) {
      peer.call = undefined;
      wire.send({ type: "result", number, value });
    }
    this.settle(number, value);
  }

  #peer(rank: number): Peer {
    return this.#members.get(rank)?.peer ?? new Peer();
  }

  #count(reason: string): void {
    // Reasons hold numbers that a peer chose, so there may be any number of them.
    const key = this.#refused.size < 8 || this.#refused.has(reason) ? reason : "other reasons";
    this.#refused.set(key, (this.#refused.get(key) ?? 0) + 1);
  }

  #absentError(seconds: number): CommError {
    const missing = ranks(this.size, (rank) => rank > 0 && !this.#members.has(rank));
    const refused = [...this.#refused].map(([why, times]) => `${times} × ${why}`).join("; ");
    const others = refused === "" ? "" : ` (refused connections: ${refused})`;
    return new CommError(
      `no connection from ${missing.text} to rank 0, port ${this.port}, within ${seconds} s${others}`,
      {
        rank: missing.first,
        hint: "every process needs the same MASTER_ADDR, MASTER_PORT and SIMPER_RUN_TOKEN, and the way there must be open",
      },
    );
  }
}

/** The addresses at which other machines, and at last processes of this one, can find a hub. */
export function ownAddresses(): string[] {
  const all = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  // Addresses that hold on one link only would have to name the interface.
  const usable = all.filter(({ address }) => !address.startsWith("fe80:"));
  const order = (internal: boolean) =>
    usable.filter((entry) => entry.internal === internal).map(({ address }) => address);
  return [...order(false), ...order(true)];
}

async function listen(port: number, host: string): Promise<Server> {
  const server = createServer();
  server.listen({ port, host });
  await once(server, "listening");
  return server;
}

/** The ranks that are meant, in words. */
function ranks(size: number, wanted: (rank: number) => boolean): { text: string; first: number } {
  const list = Array.from({ length: size }, (_, rank) => rank).filter(wanted);
  const shown =
    list.length > 12
      ? `${list.slice(0, 12).join(", ")} and ${list.length - 12} more`
      : list.join(", ");
  return { text: `${list.length === 1 ? "rank" : "ranks"} ${shown}`, first: list[0] ?? 0 };
}
