import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { type Message, type Wire, WireError } from "./wire.js";

// Each side proves that it has the run's token without showing it: a keyed hash of a number that the other side
// made up for this connection. The word at its front keeps one side's proof from being used as the other's.
//
//   member → hub   { protocol, rank, size, nonce }
//   hub → member   { nonce, proof }
//   member → hub   { proof }
//   hub → member   { welcome } or { refused: why }

const PROTOCOL = 1;
const NONCE = /^[0-9a-f]{64}$/;

/** What a member says that it is. */
export interface Claim {
  readonly rank: number;
  readonly size: number;
}

/** The other side does not have this run's token, or is no process of simper-native at all. */
export class StrangerError extends WireError {}
/** Rank 0 knows this run and does not want this process in it. */
export class RefusedError extends WireError {}

/** The hub's side: returns who has proved to have the token. @throws StrangerError, WireError */
export async function receiveMember(wire: Wire, token: string): Promise<Claim> {
  const hello = await wire.next();
  const { rank, size, nonce } = hello;
  if (hello.protocol !== PROTOCOL || !isCount(rank) || !isCount(size) || !isNonce(nonce))
    throw new StrangerError("it speaks another protocol");
  const own = randomBytes(32).toString("hex");
  const claim = { rank, size };
  wire.send({ nonce: own, proof: proof(token, "hub", claim, nonce, own) });
  const answer = await wire.next();
  if (!equal(answer.proof, proof(token, "member", claim, nonce, own)))
    throw new StrangerError("it has another SIMPER_RUN_TOKEN");
  wire.trust();
  return claim;
}

/**
 * The member's side; resolves once the hub has taken it.
 * @param proven called when the hub has proved that it is the right one
 * @throws StrangerError, RefusedError, WireError
 */
export async function presentToHub(
  wire: Wire,
  token: string,
  claim: Claim,
  proven: () => void,
): Promise<void> {
  const own = randomBytes(32).toString("hex");
  wire.send({ protocol: PROTOCOL, ...claim, nonce: own });
  const answer: Message = await wire.next().catch((error: Error) => {
    // What is no message at all is no rank 0; a connection that only closed may be one that is starting.
    throw /no message/.test(error.message)
      ? new StrangerError("it speaks another protocol")
      : error;
  });
  const { nonce } = answer;
  if (!isNonce(nonce)) throw new StrangerError("it speaks another protocol");
  if (!equal(answer.proof, proof(token, "hub", claim, own, nonce)))
    throw new StrangerError("it has another SIMPER_RUN_TOKEN");
  wire.trust();
  proven();
  wire.send({ proof: proof(token, "member", claim, own, nonce) });
  const verdict = await wire.next();
  if (typeof verdict.refused === "string") throw new RefusedError(verdict.refused);
  if (verdict.welcome !== true) throw new StrangerError("it speaks another protocol");
}

function proof(
  token: string,
  role: "hub" | "member",
  { rank, size }: Claim,
  memberNonce: string,
  hubNonce: string,
): string {
  const text = JSON.stringify(["simper-native", PROTOCOL, role, rank, size, memberNonce, hubNonce]);
  return createHmac("sha256", token).update(text).digest("hex");
}

function equal(given: unknown, expected: string): boolean {
  if (typeof given !== "string") return false;
  const [a, b] = [Buffer.from(given), Buffer.from(expected)];
  return a.length === b.length && timingSafeEqual(a, b);
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isNonce(value: unknown): value is string {
  return typeof value === "string" && NONCE.test(value);
}
