import { createConnection } from "node:net";

// What mpirun calls in place of ssh: agent-main.js <socket> <address> <command line...>. Hands the command line to the
// launcher, which has it run on that machine, and stays until the launcher lets it go.
const [socketPath, address, ...words] = process.argv.slice(2) as [string, string, ...string[]];
const socket = createConnection(socketPath);
socket.on("error", (error) => {
  process.stderr.write(`simper-native: the launcher is gone: ${error.message}\n`);
  process.exitCode = 1;
});
socket.write(`${JSON.stringify({ address, command: words.join(" ") })}\n`);
socket.resume();
