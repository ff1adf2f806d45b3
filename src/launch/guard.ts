import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

/** Ends what a launcher started when the launcher itself is gone, whatever ended it. */
export interface Guard {
  /** Watches over one more process and all of its session. */
  watch(pid: number): void;
  /** All of them have ended. */
  dismiss(): void;
}

// A shell waits, since it takes a thousandth of Node's memory. Its input ends when the launcher does, kill -9
// included; then it becomes the program that ends the sessions.
const SCRIPT = `
pids=
while read -r word; do
  [ "$word" = dismiss ] && exit 0
  pids="$pids $word"
done
[ -n "$pids" ] && exec "$0" "$1" $pids
exit 0`;

const program = fileURLToPath(new URL("./guard-main.js", import.meta.url));

/** Starts a guard, which leaves when it is dismissed. */
export function startGuard(): Guard {
  const shell = spawn("/bin/sh", ["-c", SCRIPT, process.execPath, program], {
    stdio: ["pipe", "ignore", "ignore"],
    detached: true, // Ctrl-C on the terminal is for the launcher
    cwd: "/",
  });
  shell.on("error", () => {}); // no shell: the run goes on without a guard
  shell.stdin.on("error", () => {});
  shell.unref();
  return {
    watch: (pid) => void shell.stdin.write(`${pid}\n`),
    dismiss: () => void shell.stdin.end("dismiss\n"),
  };
}
