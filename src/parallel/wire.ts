import type { Socket } from "node:net";

/** One JSON value of the protocol; its type is checked where it is read. */
export type Message = Readonly<Record<string, unknown>>;

/** Longest message of a peer that has not yet proved who it is. */
const STRANGER_BYTES = 1024;
/** Longest message of a peer: values that ranks exchange are settings and tables of contents. */
const PEER_BYTES = 256 << 20;

/** Bytes that are no message of this protocol. */
export class WireError extends Error {}

/**
 * Messages over a socket: four bytes of length, then JSON. Numbers that JSON does not know (NaN, Infinity) arrive as
 * they were.
 */
export class Wire {
  readonly socket: Socket;
  /** When something arrived last, by `performance.now()`. */
  lastSeen = performance.now();
  #limit = STRANGER_BYTES;
  #chunks: Buffer[] = [];
  #bytes = 0;
  #queue: Message[] = [];
  #closed: string | undefined;
  #onMessage: ((message: Message) => void) | undefined;
  #onClose: ((why: string) => void) | undefined;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.setNoDelay(true);
    let why = "its connection closed";
    socket.on("data", (chunk: Buffer) => {
      try {
        this.#take(chunk);
      } catch (error) {
        why = error instanceof WireError ? error.message : String(error);
        socket.destroy();
      }
    });
    socket.on("error", (error) => {
      why = `its connection failed: ${error.message}`;
    });
    socket.on("close", () => {
      this.#closed = why;
      if (this.#queue.length === 0) this.#onClose?.(why);
    });
  }

  /** From now on messages may be long: the peer has proved who it is. */
  trust(): void {
    this.#limit = PEER_BYTES;
  }

  /** Hands over every message, and why the connection closed, once; replaces who was told before. */
  listen(onMessage: (message: Message) => void, onClose: (why: string) => void): void {
    this.#onMessage = onMessage;
    this.#onClose = onClose;
    this.#drain();
    if (this.#closed !== undefined && this.#queue.length === 0) onClose(this.#closed);
  }

  /** The next message. @throws WireError when the connection closes before. */
  next(): Promise<Message> {
    return new Promise((resolve, reject) => {
      this.listen(
        (message) => {
          this.#onMessage = undefined;
          this.#onClose = undefined;
          resolve(message);
        },
        (why) => reject(new WireError(why)),
      );
    });
  }

  send(message: Message): void {
    if (this.socket.writable) this.socket.write(encode(message));
  }

  /** Sends what is under way and closes; a peer that does not take it is left after a second. */
  async end(): Promise<void> {
    const { socket } = this;
    if (socket.destroyed) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => socket.destroy(), 1000);
      socket.once("close", () => {
        clearTimeout(timer);
        resolve();
      });
      socket.resume();
      socket.end();
    });
  }

  #take(chunk: Buffer): void {
    this.lastSeen = performance.now();
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    while (this.#bytes >= 4) {
      if (this.#chunks[0]!.length < 4) this.#chunks = [Buffer.concat(this.#chunks)];
      const length = this.#chunks[0]!.readUInt32BE(0);
      if (length > this.#limit)
        throw new WireError(`it sent what is no message of simper-native (${length} bytes)`);
      if (this.#bytes < 4 + length) return;
      const all = this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks);
      this.#chunks = [all.subarray(4 + length)];
      this.#bytes -= 4 + length;
      this.#queue.push(decode(all.subarray(4, 4 + length)));
      this.#drain();
    }
  }

  #drain(): void {
    while (this.#onMessage !== undefined && this.#queue.length > 0)
      this.#onMessage(this.#queue.shift()!);
  }
}

const NUMBER = "$number";

function encode(message: Message): Buffer {
  const text = JSON.stringify(message, (_key, value: unknown) =>
    typeof value === "number" && !Number.isFinite(value) ? { [NUMBER]: String(value) } : value,
  );
  const body = Buffer.from(text);
  if (body.length > PEER_BYTES)
    throw new RangeError(`a message of ${body.length} bytes: expected at most ${PEER_BYTES}`);
  const head = Buffer.alloc(4);
  head.writeUInt32BE(body.length);
  return Buffer.concat([head, body]);
}

function decode(bytes: Buffer): Message {
  let message: unknown;
  try {
    message = JSON.parse(bytes.toString(), (_key, value: unknown) =>
      isObject(value) && typeof value[NUMBER] === "string" ? Number(value[NUMBER]) : value,
    );
  } catch {
    throw new WireError("it sent what is no message of simper-native");
  }
  if (!isObject(message)) throw new WireError("it sent what is no message of simper-native");
  return message;
}

/** A value as it arrives at other ranks. */
export function overTheWire<T>(value: T): T {
  return decode(encode({ value }).subarray(4)).value as T;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
