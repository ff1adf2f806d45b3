import { createSocket } from "node:dgram";
import { lookup } from "node:dns/promises";
import { once } from "node:events";
import { networkInterfaces } from "node:os";
import { CommError, ConfigError } from "../errors.js";
import type { ProcessGroup } from "../parallel/group.js";
import { Hub } from "../parallel/hub.js";
import { Member } from "../parallel/member.js";
import { rankTimeout } from "../parallel/ranks.js";
import type { LaunchRequest } from "./request.js";

/** The machines of a run. */
export type Machines = NonNullable<LaunchRequest["machines"]>;

/** What a machine brings to a run. */
export interface Offer {
  readonly address: string;
  /** Network of that address in CIDR form. */
  readonly network: string;
  /** Ranks, and what is run in each. */
  readonly nproc: number;
  readonly command: readonly string[];
  readonly cwd: string;
  /** Digest of the recipe. */
  readonly recipe: string;
}

/** The launchers of all machines, met. */
export interface Meeting {
  readonly group: ProcessGroup;
  /** By machine. */
  readonly offers: readonly Offer[];
}

/**
 * Meets the launchers of the other machines: machine 0 listens at `machines.address:port`, and all prove that they
 * have the same secret.
 *
 * @param offer what this machine brings, but for its address
 * @param timeoutSeconds for the others to come
 * @throws CommError when they do not; ConfigError when they were given another recipe
 */
export async function meetMachines(
  machines: Machines,
  offer: Omit<Offer, "address" | "network">,
  timeoutSeconds: number,
): Promise<Meeting> {
  const { index, count, address, port, token } = machines;
  const place = { rank: index, size: count, localRank: 0, localSize: 1 };
  const silence = rankTimeout(process.env);
  // A launcher waits in one call for as long as the run takes.
  const limits = { connect: timeoutSeconds, silence, call: Number.POSITIVE_INFINITY };
  try {
    const own = await ownAddress(address, port);
    const group =
      index === 0
        ? await Hub.open(place, token, port, limits)
        : await Member.join(place, token, { addresses: [address], port }, limits);
    const offers = await group.gather("machines", { ...offer, ...own });
    const problem = problemOf(offers);
    if (problem === undefined) return { group, offers };
    await group.close(); // all have found it and tell their own users
    throw problem;
  } catch (error) {
    throw machineError(error);
  }
}

/** An error of a group whose members are machines. */
export function machineError(error: unknown): unknown {
  if (!(error instanceof CommError)) return error;
  const name = (text: string): string => text.replaceAll(/\brank (?=\d)/g, "machine ");
  const hint = error.hint === undefined ? undefined : name(error.hint);
  return new CommError(name(error.message), { hint, cause: error });
}

/** Why these machines cannot run together, if so. */
function problemOf(offers: readonly Offer[]): ConfigError | undefined {
  const other = offers.findIndex(({ recipe }) => recipe !== offers[0]!.recipe);
  if (other < 0) return undefined;
  return new ConfigError(`machines 0 and ${other} have different recipes or overrides`, {
    hint: "Start all machines with the same command; only --node_rank and --nproc may differ.",
  });
}

/**
 * The address from which this machine reaches a host, and its network.
 * @throws CommError when the name is not known or there is no way
 */
async function ownAddress(host: string, port: number): Promise<Pick<Offer, "address" | "network">> {
  const socket = createSocket("udp4");
  try {
    const master = await lookup(host, { family: 4 });
    socket.connect(port, master.address); // no packet is sent: the system only looks up the way
    await once(socket, "connect");
    const { address } = socket.address();
    const entries = Object.values(networkInterfaces()).flat();
    const mask = entries.find((entry) => entry?.address === address)?.netmask ?? "255.255.255.255";
    return { address, network: networkOf(address, mask) };
  } catch (error) {
    throw new CommError(`--master_addr ${host}: ${(error as Error).message}`, {
      cause: error,
      hint: "Give the IPv4 address of machine 0, or a name that all machines know.",
    });
  } finally {
    socket.close();
  }
}

/** `10.1.2.0/24` of 10.1.2.3 and 255.255.255.0. */
export function networkOf(address: string, netmask: string): string {
  const bytes = (text: string): number[] => text.split(".").map(Number);
  const mask = bytes(netmask);
  const base = bytes(address).map((byte, i) => byte & mask[i]!);
  const ones = mask.flatMap((byte) => [...byte.toString(2)]).filter((bit) => bit === "1").length;
  return `${base.join(".")}/${ones}`;
}
