"""Writes finetune/: what `transformers` and `peft` make of the tiny models of lm_families.py when they train them.

    pip install torch transformers peft gguf numpy safetensors && python -P tests/golden/finetune.py [RUN…]

(-P: types.py of this folder is not the one that Python needs.)

A run is 20 steps of AdamW on two rows each, of different lengths, padded on the right, with labels on what follows the prompt alone; plain
attention, no dropout. Adapters start with a B that is not zero, so that every tensor has a gradient from the first step on. All is computed
in 64 bits from what is given in 32, so that what differs from it is the other side's own rounding; `single_precision` says how far off the
same run is in 32 bits.
`RUN.json` has the settings, the losses, the norms of the gradients before clipping, and ln p of the labels of the first step;
`RUN.safetensors` has the parameters at the start and at the end, the gradients of the first step, and the logits of one sequence at the
start, all under the names and in the order of Hugging Face. Of a model of many layers it has the gradients and the end of some.
`batches.json` has the rows of all runs, `preferences.json` the losses of DPO and ORPO, `distill.json` a run that learns from the logits of
another model, from where the run of its model starts, `schedules.json` the learning rates of
`transformers.get_scheduler`.
"""

import contextlib
import json
import sys
from pathlib import Path

import peft
import torch
import transformers
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import save_file
from torch.nn.functional import kl_div, log_softmax, logsigmoid

sys.path.append(str(Path(__file__).parent))
import lm_families  # noqa: E402

HERE = Path(__file__).parent / "finetune"
STEPS = 20
# Tokens of a prompt and of what follows it, at least and at most: rows of up to 16 tokens, and of more.
SHORT, LONG = ((1, 5), (4, 11)), ((5, 12), (12, 24))
RANK, ALPHA = 4, 8
OPTIMIZER = dict(betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
LEARNING_RATE, LORA_PLUS_RATIO, CLIP = 1e-3, 4, 1.0
BETA, LAMBDA = 0.1, 0.1
TEACHER, SHARE, TEMPERATURE = "gemma2-softcaps", 0.4, 1.5
# Models of more layers than this have the gradients and the ends of the first and of these in their files.
FEW_LAYERS = 3
# Of larger tensors the ends are left out.
LARGEST_END = 1024
FAMILIES = (
    "llama-untied-gqa",
    "llama3-scaling-tied",
    "mistral-window",
    "gemma-mqa",
    "gemma2-softcaps",
    "gemma3-window",
    "phi3-longrope",
    "phi3-partial-tied",
    "qwen2-biases",
    "qwen3-norms",
)
VARIANTS_OF = "llama3-scaling-tied"
VARIANTS = [("rslora", dict(use_rslora=True, lora_alpha=5)), ("dora", dict(use_dora=True)), ("lora-plus", {}), ("full", None)]


def number(value):
    return float(f"{value.item() if isinstance(value, torch.Tensor) else value:.9g}")


def numbers(values):
    return [number(value) for value in values]


def random_row(generator, lengths, prompt=None):
    def tokens(low, high):
        count = int(torch.randint(low, high + 1, (1,), generator=generator))
        return torch.randint(lm_families.SIZES["vocab_size"], (count,), generator=generator).tolist()

    prompt = tokens(*lengths[0]) if prompt is None else prompt
    return dict(tokens=prompt + tokens(*lengths[1]), prompt=len(prompt))


def batches():
    """Rows of one step are all short or all long: where rope changes with the length, `transformers` goes by the longest row of a step."""
    generator = torch.Generator().manual_seed(11)
    steps = [[random_row(generator, SHORT if step % 2 else LONG) for _ in range(2)] for step in range(STEPS)]
    pairs = []
    for _ in range(2):
        chosen = random_row(generator, SHORT)
        pairs += [chosen, random_row(generator, SHORT, chosen["tokens"][: chosen["prompt"]])]
    return dict(steps=steps, pairs=pairs, sequence=random_row(generator, LONG)["tokens"])


def padded(rows):
    """Tokens, mask and labels of rows of different lengths."""
    length = max(len(row["tokens"]) for row in rows)
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    mask, labels = torch.zeros_like(tokens), torch.full_like(tokens, -100)
    for index, row in enumerate(rows):
        end = len(row["tokens"])
        tokens[index, :end] = torch.tensor(row["tokens"])
        mask[index, :end] = 1
        labels[index, row["prompt"] : end] = tokens[index, row["prompt"] : end]
    return dict(input_ids=tokens, attention_mask=mask, labels=labels)


def log_probs(logits, labels):
    """ln p of every label, row by row, and which of them are wanted."""
    labels = labels[:, 1:]
    wanted = labels != -100
    found = logits[:, :-1].log_softmax(-1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return found, wanted


def base_model(name):
    _, _, (config_class, model_class), settings = next(family for family in lm_families.families() if family[0] == name)
    config = config_class(**{**lm_families.SIZES, **settings}, attn_implementation="eager")
    model = model_class(config).float()
    lm_families.randomise(model)
    return model


def adapted(model, **options):
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and name != "lm_head"]
    options = dict(lora_alpha=ALPHA) | options
    model = peft.get_peft_model(model, peft.LoraConfig(r=RANK, lora_dropout=0.0, target_modules=linear, task_type="CAUSAL_LM", **options))
    generator = torch.Generator().manual_seed(13)
    with torch.no_grad():
        for name, weight in trainable(model):
            noise = torch.randn(weight.shape, generator=generator)
            if "lora_A" in name:
                weight.copy_(noise / weight.shape[1] ** 0.5)
            elif "lora_B" in name:
                weight.copy_(0.05 * noise)
            else:
                weight *= 1 + 0.2 * noise
    names = {name for name, _ in trainable(model)}
    assert names == set(peft.get_peft_model_state_dict(model)), "names are not those that peft saves"
    return model


def trainable(model):
    """Parameters that are trained, under the names that they have in files of peft and transformers."""
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            name = name.removesuffix(".weight") if "lora_magnitude_vector" in name else name
            yield name.replace(".default", ""), weight


def optimizer_of(model, variant):
    if variant == "lora-plus":
        ratio = LORA_PLUS_RATIO
        settings = dict(OPTIMIZER, loraplus_weight_decay=OPTIMIZER["weight_decay"])
        return create_loraplus_optimizer(model, torch.optim.AdamW, lr=LEARNING_RATE, loraplus_lr_ratio=ratio, **settings)
    # As the trainer of `transformers` does, norms are not decayed.
    spared = [weight for name, weight in trainable(model) if "norm" in name]
    others = [weight for name, weight in trainable(model) if "norm" not in name]
    return torch.optim.AdamW([dict(params=others), dict(params=spared, weight_decay=0.0)], lr=LEARNING_RATE, **OPTIMIZER)


def is_shown(name, layers):
    shown = range(layers) if layers <= FEW_LAYERS else (0, layers - 2, layers - 1)
    return ".layers." not in name or int(name.split(".layers.")[1].split(".")[0]) in shown


def train(model, variant, rows, layers):
    """20 steps: what goes into the JSON file, and the tensors."""
    optimizer = optimizer_of(model, variant)
    result, steps = {}, []
    tensors = {f"start.{name}": weight.detach().clone() for name, weight in trainable(model) if variant != "full"}
    with torch.no_grad():
        tensors["logits"] = model(torch.tensor([rows["sequence"]]), use_cache=False).logits[0]
    for index, step in enumerate(rows["steps"]):
        batch = padded(step)
        output = model(**batch, use_cache=False)
        optimizer.zero_grad()
        output.loss.backward()
        if index == 0:
            found, wanted = log_probs(output.logits.detach(), batch["labels"])
            result["log_probs"] = numbers(found[wanted])
            result["gradient_norms"] = {name: number(weight.grad.norm()) for name, weight in trainable(model)}
            tensors |= {f"gradient.{name}": weight.grad.clone() for name, weight in trainable(model) if is_shown(name, layers)}
        norm = torch.nn.utils.clip_grad_norm_([weight for _, weight in trainable(model)], CLIP)
        optimizer.step()
        steps.append(dict(loss=number(output.loss), gradient_norm=number(norm)))
    ends = ((name, weight) for name, weight in trainable(model) if is_shown(name, layers) and weight.numel() <= LARGEST_END)
    tensors |= {f"end.{name}": weight.detach().clone() for name, weight in ends}
    return dict(result, steps=steps), tensors


@contextlib.contextmanager
def in_64_bits(wanted=True):
    """Has libraries compute in 64 bits also where they ask for 32."""
    single = torch.float32, torch.Tensor.float
    if wanted:
        torch.float32, torch.Tensor.float = torch.float64, torch.Tensor.double
    try:
        yield
    finally:
        torch.float32, torch.Tensor.float = single


def trained(name, rows, variant, options, exactly):
    model = base_model(name)
    if variant != "full":
        model = adapted(model, **options)
    with in_64_bits(exactly):
        return train((model.double() if exactly else model).train(), variant, rows, model.config.num_hidden_layers)


def differences(result, tensors, exact, exact_tensors):
    def largest(part, difference):
        return max((float(difference(tensors[key].double(), exact_tensors[key])) for key in tensors if key.startswith(part)), default=0.0)

    steps = list(zip(result["steps"], exact["steps"]))
    return dict(
        loss=max(abs(a["loss"] - b["loss"]) for a, b in steps),
        gradient_norm=max(abs(a["gradient_norm"] / b["gradient_norm"] - 1) for a, b in steps),
        gradient=largest("gradient.", lambda a, b: (a - b).norm() / b.norm()),
        end=largest("end.", lambda a, b: (a - b).abs().max()),
        logit=largest("logits", lambda a, b: (a - b).abs().max()),
    )


def run(name, rows, variant=None, options=None):
    options = options or {}
    result, tensors = trained(name, rows, variant, options, True)
    rounded = differences(*trained(name, rows, variant, options, False), result, tensors)
    rounded = {key: float(f"{value:.2g}") for key, value in rounded.items()}
    settings = dict(model=name, method="full" if variant == "full" else "lora", learning_rate=LEARNING_RATE, **OPTIMIZER, clip=CLIP)
    if variant != "full":
        alpha = options.get("lora_alpha", ALPHA)
        settings |= dict(rank=RANK, alpha=alpha, rslora=variant == "rslora", dora=variant == "dora")
        settings |= dict(lora_plus_ratio=LORA_PLUS_RATIO if variant == "lora-plus" else 1)
    title = f"{name}-{variant}" if variant else name
    write(title, dict(**versions(), settings=settings, single_precision=rounded, **result))
    path = HERE / f"{title}.safetensors"
    save_file({key: value.float().contiguous() for key, value in tensors.items()}, path, metadata={"format": "pt"})
    path.chmod(0o644)
    losses, norms = [step["loss"] for step in result["steps"]], [step["gradient_norm"] for step in result["steps"]]
    print(f"{title}: loss {losses[0]:.4f} to {losses[-1]:.4f}, gradient norms {min(norms):.3f} to {max(norms):.3f}; in 32 bits {rounded}")


def odds_ratio(chosen, rejected):
    """ln of the odds of the one over those of the other (Hong et al. 2024), from the mean ln p of their tokens."""
    return (chosen - rejected) - (torch.log1p(-torch.exp(chosen)) - torch.log1p(-torch.exp(rejected)))


def answers(model, batch):
    """The sum of ln p of each row's labels, and how many there are."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    found, wanted = log_probs(logits, batch["labels"])
    return (found * wanted).sum(-1), wanted.sum(-1)


def preference_losses(method, sums, reference, counts):
    if method == "dpo":
        gains = sums - reference
        return -logsigmoid(BETA * (gains[::2] - gains[1::2]))
    means = sums / counts
    return -means[::2] - LAMBDA * logsigmoid(odds_ratio(means[::2], means[1::2]))


def preferences(rows):
    """Losses of two pairs at the start, means over the pairs; the model without its adapter is the reference."""
    result = dict(versions(), settings=dict(model=VARIANTS_OF, method="lora", rank=RANK, alpha=ALPHA, beta=BETA, odds_weight=LAMBDA))
    batch = padded(rows["pairs"])
    for method in ("dpo", "orpo"):
        model = adapted(base_model(VARIANTS_OF)).double().train()
        with in_64_bits():
            with torch.no_grad(), model.disable_adapter():
                reference, _ = answers(model, batch)
            sums, counts = answers(model, batch)
            losses = preference_losses(method, sums, reference, counts)
            losses.mean().backward()
        norms = {name: weight.grad.norm() for name, weight in trainable(model)}
        result |= dict(log_probs=numbers(sums), reference_log_probs=numbers(reference), counts=counts.tolist())
        norm = torch.stack(list(norms.values())).norm()
        result[method] = dict(loss=number(losses.mean()), losses=numbers(losses), gradient_norm=number(norm))
        result[method] |= dict(gradient_norms={name: number(norm) for name, norm in norms.items()})
        print(method, result[method]["loss"], result[method]["gradient_norm"])
    write("preferences", result)


def distilled(rows, exactly):
    """Steps whose loss is (1 - a) CE + a T^2 KL(teacher || student), means over the labels (Hinton et al. 2015)."""
    student, teacher = adapted(base_model(VARIANTS_OF)), base_model(TEACHER)
    if exactly:
        student, teacher = student.double(), teacher.double()
    student, teacher = student.train(), teacher.eval().requires_grad_(False)
    optimizer = optimizer_of(student, None)
    result, steps = {}, []
    with in_64_bits(exactly):
        for index, step in enumerate(rows["steps"]):
            batch = padded(step)
            output = student(**batch, use_cache=False)
            theirs = teacher(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
            wanted = batch["labels"][:, 1:] != -100
            ours, theirs = (logits[:, :-1][wanted] / TEMPERATURE for logits in (output.logits, theirs))
            far = kl_div(log_softmax(ours, -1), log_softmax(theirs, -1), reduction="none", log_target=True).sum(-1)
            loss = (1 - SHARE) * output.loss + SHARE * TEMPERATURE**2 * far.mean()
            optimizer.zero_grad()
            loss.backward()
            if index == 0:
                result["divergences"] = numbers(far)
                result["gradient_norms"] = {name: number(weight.grad.norm()) for name, weight in trainable(student)}
            norm = torch.nn.utils.clip_grad_norm_([weight for _, weight in trainable(student)], CLIP)
            optimizer.step()
            steps.append(dict(loss=number(loss), gradient_norm=number(norm)))
    return dict(result, steps=steps)


def distill(rows):
    result, rounded = distilled(rows, True), distilled(rows, False)
    rounded = {key: float(f"{value:.2g}") for key, value in differences(rounded, {}, result, {}).items() if key in ("loss", "gradient_norm")}
    settings = dict(model=VARIANTS_OF, teacher=TEACHER, method="lora", rank=RANK, alpha=ALPHA, share=SHARE, temperature=TEMPERATURE)
    settings |= dict(learning_rate=LEARNING_RATE, **OPTIMIZER, clip=CLIP)
    write("distill", dict(**versions(), settings=settings, single_precision=rounded, **result))
    losses = [step["loss"] for step in result["steps"]]
    print(f"distill: loss {losses[0]:.4f} to {losses[-1]:.4f}; in 32 bits {rounded}")


def schedules():
    rows = []
    for name in ("constant", "constant_with_warmup", "linear", "cosine"):
        for warmup, total in ((0, 1), (0, 10), (1, 10), (3, 10), (10, 10), (5, 37), (100, 250)):
            optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2e-4)
            scheduler = transformers.get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total)
            rates = []
            for _ in range(total):
                rates.append(scheduler.get_last_lr()[0])
                optimizer.step()
                scheduler.step()
            rows.append(dict(schedule=name, warmup_steps=warmup, total_steps=total, learning_rates=rates))
    write("schedules", dict(transformers=transformers.__version__, learning_rate=2e-4, schedules=rows))


def versions():
    return dict(torch=torch.__version__.split("+")[0], transformers=transformers.__version__, peft=peft.__version__)


def write(title, value):
    (HERE / f"{title}.json").write_text(json.dumps(value, separators=(",", ":")) + "\n")


def main():
    torch.set_num_threads(1)
    HERE.mkdir(exist_ok=True)
    rows = batches()
    write("batches", rows)
    runs = {name: lambda name=name: run(name, rows) for name in FAMILIES}
    runs |= {f"{VARIANTS_OF}-{variant}": lambda v=variant, o=options: run(VARIANTS_OF, rows, v, o) for variant, options in VARIANTS}
    runs |= dict(preferences=lambda: preferences(rows), distill=lambda: distill(rows), schedules=schedules)
    for title in sys.argv[1:] or runs:
        runs[title]()


if __name__ == "__main__":
    main()
