import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { requireShared, Together, writeDirectoryTogether } from "#src/checkpoint/together.js";
import { CommError, isReported } from "#src/errors.js";
import type { ProcessGroup } from "#src/parallel/group.js";
import { groupsOf } from "./groups.js";

function folder(t: TestContext): string {
  const dir = mkdtempSync(path.join(os.tmpdir(), "simper-together-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** What each rank ended with: undefined or its error. */
function outcomes(
  groups: readonly ProcessGroup[],
  work: (group: ProcessGroup) => Promise<void>,
): Promise<(Error | undefined)[]> {
  const ended = (group: ProcessGroup) =>
    work(group).then(
      () => undefined,
      (error: Error) => error,
    );
  return Promise.all(groups.map(ended));
}

const full = () => Object.assign(new Error("ENOSPC: write"), { code: "ENOSPC" });

/** Each rank writes a file named after it. */
const ownFile = (temporary: string, { group }: Together) =>
  writeFile(path.join(temporary, `part-${group.rank}`), String(group.rank));

for (const ranks of [1, 2, 5]) {
  test(`a folder of ${ranks} ranks appears with the files of all, in place of an older one`, async (t) => {
    const dir = folder(t);
    const target = path.join(dir, "run", "checkpoint-3");
    for (const round of ["first", "second"]) {
      const { groups } = groupsOf(ranks);
      const errors = await outcomes(groups, (group) =>
        writeDirectoryTogether(group, target, async (temporary, together) => {
          assert.match(path.basename(temporary), /^\.tmp-\d+-\d+-\d+-checkpoint-3$/);
          await together.attempt(() => ownFile(temporary, together));
          const values = await together.agree("parts", group.rank * 10);
          assert.deepEqual(
            values,
            groups.map((_, rank) => rank * 10),
          );
          await together.lead(() => writeFile(path.join(temporary, round), ""));
        }),
      );
      assert.deepEqual(errors, Array(ranks).fill(undefined));
      const parts = groups.map((_, rank) => `part-${rank}`);
      assert.deepEqual(readdirSync(target).sort(), [round, ...parts].sort());
      for (const rank of groups.keys())
        assert.equal(readFileSync(path.join(target, `part-${rank}`), "utf8"), String(rank));
    }
    assert.deepEqual(readdirSync(path.join(dir, "run")), ["checkpoint-3"]);
  });
}

for (const failing of [0, 1, 2]) {
  test(`a full disk on rank ${failing} of 3 fails all, publishes nothing, and is told once`, async (t) => {
    const dir = folder(t);
    const target = path.join(dir, "checkpoint-3");
    const { groups } = groupsOf(3);
    let later = 0;
    const errors = await outcomes(groups, (group) =>
      writeDirectoryTogether(group, target, async (temporary, together) => {
        await together.attempt(async () => {
          if (group.rank === failing) throw full();
          await ownFile(temporary, together);
        });
        await together.attempt(async () => {
          later++;
        });
        await together.agree("parts");
        assert.fail("all ranks know by now");
      }),
    );
    assert.equal(later, 2, "a rank that failed writes nothing more");
    assert.deepEqual(readdirSync(dir), []);
    for (const [rank, error] of errors.entries()) {
      const own = rank === failing;
      assert.match(
        error!.message,
        own
          ? /^.*checkpoint-3: cannot be written: no space is left on the device$/
          : new RegExp(`^rank ${failing}: .*checkpoint-3: cannot be written: no space is left`),
      );
      assert.match((error as CommError).hint!, /Free some space/);
      assert.equal(isReported(error), !own);
      if (!own) assert.equal((error as CommError).rank, failing);
    }
  });
}

test("what is wrong alike on several ranks is told by the first of them", async (t) => {
  const { groups } = groupsOf(4);
  const errors = await outcomes(groups, async (group) => {
    const together = new Together(group, path.join(folder(t), "model"));
    await together.attempt(async () => {
      if (group.rank > 0) throw new CommError(group.rank === 3 ? "another" : "the same");
    });
    await together.agree("files");
  });
  assert.deepEqual(
    errors.map((error) => error?.message),
    ["rank 1: the same", "the same", "the same", "another"],
  );
  assert.deepEqual(errors.map(isReported), [true, false, true, false]);
});

test("a folder that cannot be made is an error of all ranks", async (t) => {
  const dir = folder(t);
  await writeFile(path.join(dir, "file"), "");
  const target = path.join(dir, "file", "checkpoint-3");
  const { groups } = groupsOf(2);
  const errors = await outcomes(groups, (group) =>
    writeDirectoryTogether(group, target, async () => assert.fail("there is no folder")),
  );
  assert.match(
    errors[0]!.message,
    /^.*checkpoint-3: cannot be written: EEXIST: file already exists/,
  );
  assert.match(errors[1]!.message, /^rank 0: .*checkpoint-3: cannot be written/);
});

test("a folder that cannot be put in place leaves nothing", async (t) => {
  const dir = folder(t);
  const target = path.join(dir, "checkpoint-3");
  mkdirSync(target);
  const { groups } = groupsOf(2);
  const errors = await outcomes(groups, (group) =>
    writeDirectoryTogether(group, target, async (temporary, together) => {
      // Gone before it is renamed: what a file system that fails looks like.
      await together.lead(async () => rmSync(temporary, { recursive: true }));
    }),
  );
  assert.match(errors[0]!.message, /cannot be written/);
  assert.match(errors[1]!.message, /^rank 0: .*cannot be written/);
  assert.deepEqual(readdirSync(dir), ["checkpoint-3"], "the older one stays");
});

test("a rank that is lost ends the others, and rank 0 removes what was written", async (t) => {
  const dir = folder(t);
  const target = path.join(dir, "checkpoint-3");
  const { groups, lose } = groupsOf(3);
  const gone = new CommError("rank 2 was lost while writing checkpoint-3", { rank: 2 });
  const errors = await outcomes(groups, (group) =>
    writeDirectoryTogether(group, target, async (temporary, together) => {
      await together.attempt(() => ownFile(temporary, together));
      if (group.rank === 2) {
        lose(gone);
        throw gone;
      }
      await together.agree("parts");
    }),
  );
  assert.deepEqual(errors, [gone, gone, gone]);
  assert.ok(!existsSync(target));
  assert.deepEqual(readdirSync(dir), []);
});

test("a rank that does not see rank 0's folder says what output_dir has to be", async (t) => {
  const dir = path.join(folder(t), "checkpoint-3");
  await assert.rejects(requireShared(dir), {
    code: "ERR_SIMPER_CHECKPOINT",
    message: `${dir}: rank 0 has made this folder, and it is not there`,
    hint: /the same folder on all machines of the run, on a file system that they share/,
  });
});
