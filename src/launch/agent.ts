import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

/** Takes from mpirun what it would have run on other machines through ssh. */
export interface AgentDesk {
  /** The program for `plm_rsh_agent`, with its arguments. */
  readonly agent: string;
  /** Command lines by address, once there is one for each of the other machines. */
  readonly commands: Promise<Readonly<Record<string, string>>>;
  /** Lets the agents that still wait end, and removes what was made. */
  close(): void;
}

const program = fileURLToPath(new URL("./agent-main.js", import.meta.url));

/**
 * Waits for mpirun to call its agent, once per machine. The agent brings `<address> <command line>` here and then
 * stays, as ssh would, until the desk closes: mpirun takes its end for that of the machine.
 *
 * @param machines how many there are besides this one
 */
export async function openAgentDesk(machines: number): Promise<AgentDesk> {
  const folder = mkdtempSync(path.join(tmpdir(), "simper-launch-")); // for this user alone
  const socketPath = path.join(folder, "desk");
  const script = path.join(folder, "agent.sh");
  const quote = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`;
  const words = [process.execPath, program, socketPath].map(quote).join(" ");
  writeFileSync(script, `exec ${words} "$@"\n`);
  const commands: Record<string, string> = {};
  const agents = new Set<Socket>();
  const server = createServer();
  const all = new Promise<Readonly<Record<string, string>>>((resolve) => {
    if (machines === 0) resolve(commands);
    server.on("connection", (socket) => {
      agents.add(socket);
      let text = "";
      socket.setEncoding("utf8");
      socket.on("error", () => {}); // mpirun has ended it
      socket.on("data", (more: string) => {
        text += more;
        if (!text.endsWith("\n")) return;
        const { address, command } = JSON.parse(text) as { address: string; command: string };
        commands[address] = command;
        if (Object.keys(commands).length === machines) resolve(commands);
      });
    });
  });
  server.listen(socketPath);
  await once(server, "listening");
  return {
    agent: `/bin/sh ${script}`,
    commands: all,
    close() {
      for (const socket of agents) socket.end();
      server.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
