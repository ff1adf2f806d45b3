import { spawnSync } from "node:child_process";

/** A machine of its own as far as the network is concerned: addresses, ports and host name; files are shared. */
export interface TestMachine {
  readonly address: string;
  /** Words to put before a command that is to run there. */
  readonly inside: readonly string[];
}

/** Two machines with a cable between them, or why they cannot be made here. */
export interface TestNetwork {
  readonly skip: string | undefined;
  readonly machines: readonly [TestMachine, TestMachine];
  /** The network of both addresses. */
  readonly cidr: string;
  remove(): void;
}

/** Makes two network namespaces, each with one address that the other reaches. */
export function createNetwork(): TestNetwork {
  const id = process.pid.toString(36);
  const names = [0, 1].map((i) => `simper-${id}-${i}`) as [string, string];
  const links = [0, 1].map((i) => `sm${id}${i}`) as [string, string];
  const network = `10.${64 + (process.pid % 64)}.${(process.pid >> 6) % 256}`;
  const address = (i: number): string => `${network}.${i + 1}`;
  const machine = (i: 0 | 1): TestMachine => ({
    address: address(i),
    inside: [
      ...["ip", "netns", "exec", names[i], "unshare", "--uts"],
      ...["sh", "-c", `hostname machine${i}; exec "$@"`, "sh"],
    ],
  });
  const remove = (): void => {
    for (const name of names) ip("netns", "del", name);
  };
  const ways = ([0, 1] as const).flatMap((i) => [
    ["netns", "add", names[i]],
    ["-n", names[i], "link", "set", "lo", "up"],
  ]);
  const cable = [
    [
      ...["link", "add", links[0], "netns", names[0]],
      ...["type", "veth", "peer", "name", links[1], "netns", names[1]],
    ],
    ...([0, 1] as const).flatMap((i) => [
      ["-n", names[i], "addr", "add", `${address(i)}/24`, "dev", links[i]],
      ["-n", names[i], "link", "set", links[i], "up"],
    ]),
  ];
  const problem = [...ways, ...cable]
    .map((words) => ip(...words))
    .find((text) => text !== undefined);
  if (problem !== undefined) remove();
  const skip = problem && `skipped: no network namespaces here: ${problem}`;
  return { skip, machines: [machine(0), machine(1)], cidr: `${network}.0/24`, remove };
}

/** Why a call of `ip` failed; undefined when it did not. */
function ip(...words: string[]): string | undefined {
  const { status, stderr, error } = spawnSync("ip", words, { encoding: "utf8" });
  if (error) return error.message;
  return status === 0 ? undefined : `ip ${words.join(" ")}: ${stderr.trim()}`;
}
