import assert from "node:assert/strict";
import { cpSync, existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { RecipeInput } from "#src/config/schema.js";
import { CheckpointError } from "#src/errors.js";
import {
  checkpointSteps,
  outputOf,
  runRecipe,
  splitFolder,
  temporaryFolder,
  trajectory,
  weightBytes,
  withoutTimes,
} from "./support.js";

// Pairs change places in every epoch; an epoch is 4 steps, so that these runs cross two borders.
const shuffled = (changes: Partial<RecipeInput>) => trajectory({ shuffle: true, ...changes });

for (const bf16 of [false, true]) {
  test(`two runs of a recipe are equal in every bit (bf16: ${bf16})`, async (t) => {
    const [a, b] = [temporaryFolder(t), temporaryFolder(t)];
    const first = await runRecipe({ ...shuffled({ bf16 }), outputDir: a });
    const second = await runRecipe({ ...shuffled({ bf16 }), outputDir: b });
    assert.deepEqual(withoutTimes(second.records), withoutTimes(first.records));
    assert.ok(weightBytes(a).equals(weightBytes(b)));
  });

  test(`a run resumed from any checkpoint ends equal in every bit (bf16: ${bf16})`, async (t) => {
    const outputDir = temporaryFolder(t);
    const input = {
      ...shuffled({ bf16, saveStrategy: "steps" as const, saveSteps: 3 }),
      outputDir,
    };
    const whole = await runRecipe(input);
    const weights = weightBytes(outputDir);
    assert.deepEqual(checkpointSteps(outputDir), [3, 6, 9]);
    for (const step of [3, 6, 9]) {
      const resumeFromCheckpoint = path.join(outputDir, `checkpoint-${step}`);
      const told: number[] = [];
      const again = await runRecipe(
        { ...input, resumeFromCheckpoint },
        { watch: { step: (record) => told.push(record.step) } },
      );
      // Only the steps after the checkpoint are run, and metrics.jsonl is cut back to it first.
      assert.deepEqual(
        told,
        Array.from({ length: 10 - step }, (_, i) => step + 1 + i),
      );
      assert.deepEqual(withoutTimes(again.records), withoutTimes(whole.records));
      assert.ok(weightBytes(outputDir).equals(weights), `resumed from step ${step}`);
    }
  });
}

test("with save_dtype bfloat16 an f32 run still resumes from its f32 weights", async (t) => {
  const outputDir = temporaryFolder(t);
  const save = { saveDtype: "bfloat16", saveStrategy: "steps", saveSteps: 4 } as const;
  const input = { ...shuffled(save), outputDir };
  const whole = await runRecipe(input);
  const again = await runRecipe({
    ...input,
    resumeFromCheckpoint: path.join(outputDir, "checkpoint-4"),
  });
  assert.deepEqual(withoutTimes(again.records), withoutTimes(whole.records));
});

test("another order of the data is another run: the seed reaches the permutation", async (t) => {
  const seeds = [42, 43, 42];
  const losses: (number | undefined)[][] = [];
  for (const seed of seeds) {
    const run = await runRecipe({ ...shuffled({ seed }), outputDir: temporaryFolder(t) });
    losses.push(run.steps.map(({ loss }) => loss));
  }
  assert.deepEqual(losses[0], losses[2]);
  assert.notDeepEqual(losses[0], losses[1]);
});

test("an interrupted run saves where it stands and goes on with resume_from_checkpoint: true", async (t) => {
  const undisturbed = temporaryFolder(t);
  const whole = await runRecipe({ ...shuffled({}), outputDir: undisturbed });

  const outputDir = temporaryFolder(t);
  const input = { ...shuffled({}), outputDir, resumeFromCheckpoint: true };
  const stops: number[] = [];
  let done = false;
  for (let tries = 0; !done && tries < 10; tries++) {
    const interruption = new AbortController();
    let seen = 0;
    const watch = { step: () => (++seen === 3 ? interruption.abort() : undefined) };
    const { summary } = await runRecipe(input, { watch, signal: interruption.signal });
    done = !summary.interrupted;
    if (summary.interrupted) {
      stops.push(summary.step);
      // The newest checkpoint is where the run stopped.
      assert.equal(checkpointSteps(outputDir).at(-1), summary.step);
      assert.equal(outputOf(outputDir).steps.at(-1)!.step, summary.step);
      assert.ok(!existsSync(path.join(outputDir, "model.safetensors")), "not finished yet");
    }
  }
  assert.ok(stops.length >= 2, `stopped after ${stops.join(", ")}`);
  assert.deepEqual(withoutTimes(outputOf(outputDir).records), withoutTimes(whole.records));
  assert.ok(weightBytes(outputDir).equals(weightBytes(undisturbed)));
});

test("resume_from_checkpoint: true takes the newest by number, and starts anew where there is none", async (t) => {
  const outputDir = temporaryFolder(t);
  const save = { saveStrategy: "steps", saveSteps: 1, maxSteps: 10 } as const;
  const input = { ...shuffled(save), outputDir, resumeFromCheckpoint: true };
  const resumed: number[] = [];
  const watch = { start: ({ resumedStep }: { resumedStep: number }) => resumed.push(resumedStep) };
  const whole = await runRecipe(input, { watch });
  const weights = weightBytes(outputDir);
  // As text checkpoint-9 would be the newest. A finished run has nothing left to do and ends the same.
  const again = await runRecipe(input, { watch });
  assert.deepEqual(resumed, [0, 10]);
  assert.equal(again.summary.step, 10);
  assert.deepEqual(again.records, whole.records);
  assert.ok(weightBytes(outputDir).equals(weights));
});

test("a checkpoint of another run is refused in one message that names every difference", async (t) => {
  const outputDir = temporaryFolder(t);
  await runRecipe({ ...shuffled({ saveStrategy: "steps", saveSteps: 2, maxSteps: 2 }), outputDir });
  const checkpoint = path.join(outputDir, "checkpoint-2");
  const before = readFileSync(path.join(outputDir, "metrics.jsonl"), "utf8");
  const resume = (changes: Partial<RecipeInput>) =>
    runRecipe({ ...shuffled(changes), outputDir, resumeFromCheckpoint: true });
  const refused =
    (...parts: RegExp[]) =>
    (error: unknown) => {
      assert.ok(error instanceof CheckpointError);
      for (const part of [new RegExp(`^${checkpoint} belongs to another run: `), ...parts]) {
        assert.match(error.message, part);
      }
      assert.match(error.hint!, /restore those settings, or train anew/);
      return true;
    };
  await assert.rejects(resume({ seed: 43 }), refused(/: seed was 42 and is now 43$/));
  await assert.rejects(
    resume({ gradientAccumulationSteps: 1, bf16: true, shuffle: false }),
    refused(
      /shuffle was true and is now false/,
      /examples per optimizer step was 4 and is now 2/,
      /bf16 was false and is now true/,
    ),
  );
  await assert.rejects(
    resume({ maxSteps: 1 }),
    refused(/it stands after step 2, beyond the run's 1 steps/),
  );
  // What was there stays as it was.
  assert.equal(readFileSync(path.join(outputDir, "metrics.jsonl"), "utf8"), before);
  assert.deepEqual(checkpointSteps(outputDir), [2]);
});

test("a checkpoint from before the data set was shuffled as a whole is refused, one in file order is not", async (t) => {
  const outputDir = temporaryFolder(t);
  const save = { saveStrategy: "steps", saveSteps: 2, maxSteps: 2 } as const;
  const older = (): void => {
    const file = path.join(outputDir, "checkpoint-2", "run_state.json");
    const { poolOrder: _, dataSemantics: __, ...state } = JSON.parse(readFileSync(file, "utf8"));
    writeFileSync(file, JSON.stringify(state));
  };
  await runRecipe({ ...shuffled(save), outputDir });
  older();
  await assert.rejects(
    runRecipe({ ...shuffled({ maxSteps: 3 }), outputDir, resumeFromCheckpoint: true }),
    /: order of the data set was files and is now numpy-42$/,
  );
  const inOrder = { ...save, shuffle: false };
  await runRecipe({ ...trajectory(inOrder), outputDir });
  older();
  await assert.rejects(
    runRecipe({
      ...trajectory({ shuffle: false, dataSemantics: "corrected", maxSteps: 3 }),
      ...{ outputDir, resumeFromCheckpoint: true },
    }),
    /: data_semantics was reference and is now corrected$/,
  );
  await runRecipe({
    ...trajectory({ ...inOrder, maxSteps: 3 }),
    outputDir,
    resumeFromCheckpoint: true,
  });
});

test("a folder that is no checkpoint is refused", async (t) => {
  const outputDir = temporaryFolder(t);
  const resumeFromCheckpoint = path.join(outputDir, "checkpoint-7");
  await assert.rejects(runRecipe({ ...shuffled({}), outputDir, resumeFromCheckpoint }), (error) => {
    assert.ok(error instanceof CheckpointError);
    assert.match(error.message, /checkpoint-7\/run_state\.json: cannot be read: ENOENT/);
    assert.match(error.hint!, /must name a checkpoint-<step> folder that this trainer wrote/);
    return true;
  });
});

test("a resumed run packs as its checkpoint did, whatever the recipe's micro-batch says now", async (t) => {
  const outputDir = temporaryFolder(t);
  const save = { saveStrategy: "steps", saveSteps: 5 } as const;
  const whole = await runRecipe({
    ...shuffled({ ...save, maxTokensPerMicroBatch: 128 }),
    outputDir,
  });
  const resumeFromCheckpoint = path.join(outputDir, "checkpoint-5");
  const again = await runRecipe({ ...shuffled(save), outputDir, resumeFromCheckpoint });
  assert.deepEqual(withoutTimes(again.records), withoutTimes(whole.records));
});

test("a run that starts anew moves earlier checkpoints aside, and says so", async (t) => {
  const outputDir = temporaryFolder(t);
  const save = { saveStrategy: "steps", saveSteps: 2 } as const;
  await runRecipe({ ...shuffled({ ...save, maxSteps: 6 }), outputDir });
  const kept = path.join(outputDir, "kept");
  cpSync(path.join(outputDir, "checkpoint-4"), kept, { recursive: true });
  const { notices, steps } = await runRecipe({ ...shuffled({ ...save, maxSteps: 2 }), outputDir });
  assert.deepEqual(checkpointSteps(outputDir), [2]);
  assert.equal(steps.length, 2);
  const aside = readdirSync(outputDir).find((name) => name.startsWith("previous-"))!;
  assert.deepEqual(checkpointSteps(path.join(outputDir, aside)), [2, 4, 6]);
  const file = "optimizer.safetensors";
  const moved = readFileSync(path.join(outputDir, aside, "checkpoint-4", file));
  assert.ok(moved.equals(readFileSync(path.join(kept, file))));
  assert.ok(
    notices.some((text) => /^3 checkpoints of an earlier run were moved to .*previous-/.test(text)),
  );
});

test("evaluations around a resume are made once each, whenever the run was stopped", async (t) => {
  const folder = temporaryFolder(t);
  const data = await splitFolder(folder, 5);
  const evaluation = { doEval: true, evalOnStart: true, evalSteps: 4 } as const;
  const save = { saveStrategy: "steps", saveSteps: 2 } as const;
  const input = shuffled({ datasetMixer: { [data]: 1 }, ...evaluation, ...save });
  const outputDir = path.join(folder, "run");
  const whole = await runRecipe({ ...input, outputDir });
  assert.deepEqual(
    whole.evals.map(({ step }) => step),
    [0, 4, 8, 10],
  );
  for (const step of [2, 4, 10]) {
    const resumeFromCheckpoint = path.join(outputDir, `checkpoint-${step}`);
    const again = await runRecipe({ ...input, outputDir, resumeFromCheckpoint });
    assert.deepEqual(withoutTimes(again.records), withoutTimes(whole.records), `from ${step}`);
  }
  // Stopped as the evaluation after a step begins, the last one's included: it is made up for.
  for (const stopAt of [4, 10]) {
    const dir = path.join(folder, `stopped-${stopAt}`);
    const interruption = new AbortController();
    const watch = {
      step: ({ step }: { step: number }) => (step === stopAt ? interruption.abort() : undefined),
    };
    const run = { ...input, outputDir: dir, resumeFromCheckpoint: true };
    const { summary, evals } = await runRecipe(run, { watch, signal: interruption.signal });
    assert.deepEqual([summary.interrupted, summary.step], [true, stopAt]);
    assert.ok(evals.every(({ step }) => step < stopAt));
    const { records } = await runRecipe(run);
    assert.deepEqual(withoutTimes(records), withoutTimes(whole.records), `stopped at ${stopAt}`);
  }
});

test("going back to an older checkpoint moves the newer ones aside", async (t) => {
  const outputDir = temporaryFolder(t);
  const save = { saveStrategy: "steps", saveSteps: 2 } as const;
  const input = { ...shuffled({ ...save, maxSteps: 8 }), outputDir };
  const whole = await runRecipe(input);
  const interruption = new AbortController();
  const { notices } = await runRecipe(
    { ...input, resumeFromCheckpoint: path.join(outputDir, "checkpoint-2") },
    { watch: { step: () => interruption.abort() }, signal: interruption.signal },
  );
  assert.ok(notices.some((text) => /^3 checkpoints of an earlier run were moved to/.test(text)));
  // Else the next run would go on from the old checkpoint-8, and metrics.jsonl would have a gap.
  const again = await runRecipe({ ...input, resumeFromCheckpoint: true });
  assert.deepEqual(withoutTimes(again.records), withoutTimes(whole.records));
});
