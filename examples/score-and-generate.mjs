// Answers of a model, and how probable it finds answers that it is given.
//   node examples/score-and-generate.mjs [model directory]
import path from "node:path";
import { fileURLToPath } from "node:url";
import { generate, loadModel } from "simper-native";

const here = path.dirname(fileURLToPath(import.meta.url));
// Weights are read here, once, and stay until dispose().
const model = await loadModel(process.argv[2] ?? path.join(here, "../configs/quickstart/model"));
try {
  const questions = ["What is 17 + 25?", "What is 8 + 5?"];
  const prompts = questions.map((content) => model.encodeChat([{ role: "user", content }]));

  // One by one as they come; model.generate(prompts, options) would give them all at once.
  const options = { maxNewTokens: 32, eosIds: model.eosIds };
  let row = 0;
  for await (const ids of generate(model, prompts, options)) {
    console.log(`${questions[row++]}  ->  ${model.decode(ids).trim()}`);
  }

  // log p of each token given those before it; the mean over an answer is what SimPER compares.
  const answers = ["42", "43"].map((text) => [...prompts[0], ...model.encode(text)]);
  const scores = await model.score(answers);
  for (const [i, { logps }] of scores.entries()) {
    const scored = logps.slice(prompts[0].length - 1); // logps[t] belongs to token t + 1
    const mean = scored.reduce((sum, logp) => sum + logp, 0) / scored.length;
    const answer = model.decode(answers[i].slice(prompts[0].length));
    console.log(`${questions[0]}  ${answer}: mean log-probability ${mean.toFixed(3)}`);
  }
} finally {
  model.dispose();
}
