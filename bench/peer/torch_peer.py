"""SimPER in PyTorch on a CPU, as a yardstick for bench/cpu.mjs, which starts this file and reads its result.

Needs torch and transformers, and for the trl variants also trl, accelerate and datasets. Nothing else in the
repository uses Python. Pairs and weights are those of the other side; weights, moments and gradients are as follows:

  trl-fp32       TRL's CPOTrainer with SimPER's loss; f32
  trl-bf16       the same under bf16 autocast: f32 weights, bf16 products
  prefix-bf16    by hand, the fastest loop that stock PyTorch gives: weights, gradients and AdamW's moments in bf16;
                 a pair is one row "prompt | chosen | rejected" under a block mask, so its prompt is computed once;
                 the LM head runs on response rows only

A measured step is an optimizer step over the same batch x accumulation pairs, clipping and AdamW included.
"""
import argparse
import json
import os
import resource
import time
import warnings

BEGAN_LOAD = os.getloadavg()[0]
VARIANTS = ["trl-bf16", "prefix-bf16", "trl-fp32"]
LEARNING_RATE = 1e-6


class Clock:
    """Step times, and the share of the cores that other processes took meanwhile."""

    def __init__(self, warmup):
        self.warmup, self.stamps = warmup, []

    def tick(self):
        cpu = os.times()
        with open("/proc/stat") as file:
            ticks = [int(field) for field in file.readline().split()[1:9]]
        busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
        self.stamps.append((time.perf_counter(), cpu.user + cpu.system, busy))

    def result(self):
        kept = self.stamps[self.warmup:]
        walls = [wall for wall, _, _ in kept]
        span = [last - first for first, last in zip(kept[0], kept[-1])]
        others = max(0.0, span[2] - span[1]) / (span[0] * os.cpu_count())
        return [b - a for a, b in zip(walls, walls[1:])], others


def load_model(folder, dtype):
    import torch
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="sdpa")
    model.config.use_cache = False
    return model.train()


# ---- TRL ------------------------------------------------------------------------------------------------------
def word_tokenizer(vocab_size):
    """A tokenizer whose words are the ids: TRL wants text."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    names = ["<pad>", "<s>", "</s>"] + [f"w{i}" for i in range(3, vocab_size)]
    core = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
                                   padding_side="right")


def train_trl(options, pairs, clock):
    import dataclasses

    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    class SimperTrainer(CPOTrainer):
        def cpo_loss(self, chosen, rejected):  # loss_type "simpo" hands over means, not sums
            return rejected.exp() - chosen.exp(), chosen.detach(), rejected.detach()

    class StepClock(TrainerCallback):
        def on_step_begin(self, *args, **kwargs):
            if not clock.stamps:
                clock.tick()

        def on_step_end(self, *args, **kwargs):
            clock.tick()

    model = load_model(options.model, "float32")
    text = lambda ids: " ".join(f"w{i}" for i in ids)
    rows = [dict(prompt=text(p[1:]) + " ", chosen=text(c[:-1]), rejected=text(r[:-1])) for p, c, r in pairs]
    steps = options.warmup + options.steps
    known = {field.name for field in dataclasses.fields(CPOConfig)}
    order = dict(train_sampling_strategy="sequential") if "train_sampling_strategy" in known else {}
    config = CPOConfig(
        output_dir=options.scratch, use_cpu=True, bf16=options.variant == "trl-bf16", gradient_checkpointing=False,
        per_device_train_batch_size=options.batch, gradient_accumulation_steps=options.accumulation, max_steps=steps,
        learning_rate=LEARNING_RATE, lr_scheduler_type="cosine", warmup_steps=0.1, optim="adamw_torch",
        max_length=options.max_length, loss_type="simpo", cpo_alpha=0.0, save_strategy="no", report_to=[],
        logging_steps=1, disable_tqdm=True, **order)
    trainer = SimperTrainer(model=model, args=config, train_dataset=Dataset.from_list(rows * steps),
                            processing_class=word_tokenizer(model.config.vocab_size), callbacks=[StepClock()])
    first = trainer.train_dataset[0]["chosen_input_ids"]
    if list(first) != pairs[0][0] + pairs[0][1]:
        raise SystemExit("torch_peer.py: TRL's tokens are not the ids of the pairs: another version than expected?")
    trainer.train()
    return next(log["logps/chosen"] for log in trainer.state.log_history if "logps/chosen" in log)


# ---- by hand --------------------------------------------------------------------------------------------------
def prefix_rows(pairs):
    """One row per pair. A rejected token sees the prompt and its own branch, at positions as if chosen were not there.
    Returns ids, mask and positions, and for each scored token: flat row that predicts it, its id, its response."""
    import torch
    width = max(len(p) + len(c) + len(r) for p, c, r in pairs)
    ids = torch.zeros(len(pairs), width, dtype=torch.long)
    positions = torch.zeros_like(ids)
    mask = torch.ones(width, width, dtype=torch.bool).tril().repeat(len(pairs), 1, 1, 1)
    rows, targets, owner = [], [], []
    for i, (p, c, r) in enumerate(pairs):
        chosen, rejected, end = len(p), len(p) + len(c), len(p) + len(c) + len(r)
        ids[i, :end] = torch.tensor(p + c + r)
        positions[i, :rejected] = torch.arange(rejected)
        positions[i, rejected:end] = torch.arange(chosen, chosen + len(r))
        mask[i, 0, rejected:end, chosen:rejected] = False
        for side, (begin, response) in enumerate([(chosen, c), (rejected, r)]):
            before = [chosen - 1] + list(range(begin, begin + len(response) - 1))
            rows += [i * width + t for t in before]
            targets += response
            owner += [side * len(pairs) + i] * len(response)
    return ids, mask, positions, torch.tensor(rows), torch.tensor(targets), torch.tensor(owner)


def train_prefix(options, pairs, clock):
    import torch
    from torch.nn.functional import cross_entropy
    model = load_model(options.model, "bfloat16")
    adamw = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    batches = [pairs[i:i + options.batch] for i in range(0, len(pairs), options.batch)]
    chosen_means = []
    clock.tick()
    for _ in range(options.warmup + options.steps):
        for batch in batches:
            ids, mask, positions, rows, targets, owner = prefix_rows(batch)
            hidden = model.model(ids, attention_mask=mask, position_ids=positions, use_cache=False).last_hidden_state
            logits = model.lm_head(hidden.flatten(0, 1)[rows]).float()
            logp = -cross_entropy(logits, targets, reduction="none")
            responses = 2 * len(batch)
            means = torch.zeros(responses).index_add(0, owner, logp) / owner.bincount(minlength=responses)
            chosen, rejected = means.split(len(batch))
            ((rejected.exp() - chosen.exp()).mean() / len(batches)).backward()
            chosen_means += chosen.tolist()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        clock.tick()
    return sum(chosen_means[:len(pairs)]) / len(pairs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", choices=VARIANTS, required=True)
    for name in ["model", "pairs", "result", "scratch"]:
        parser.add_argument(f"--{name}", required=True)
    for name in ["batch", "accumulation", "steps", "warmup", "threads", "max-length"]:
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    import torch
    import transformers
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    with open(options.pairs) as file:
        pairs = [(row["prompt"], row["chosen"], row["rejected"]) for row in map(json.loads, file)]
    clock = Clock(options.warmup)
    train = train_prefix if options.variant == "prefix-bf16" else train_trl
    chosen_logp = train(options, pairs, clock)
    step_seconds, others = clock.result()
    versions = dict(torch=torch.__version__, transformers=transformers.__version__)
    if train is train_trl:
        import trl
        versions["trl"] = trl.__version__
    with open(options.result, "w") as file:
        json.dump(dict(stepSeconds=step_seconds, chosenLogp=chosen_logp, others=others, versions=versions,
                       peakRss=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                       loadBefore=BEGAN_LOAD, loadAfter=os.getloadavg()[0]), file)


if __name__ == "__main__":
    main()
