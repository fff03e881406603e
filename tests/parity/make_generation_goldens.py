"""Goldens of generation: what Transformers' generate does on two small random models in float32.

    python make_generation_goldens.py            # writes ../generation/data

Per model: greedy.jsonl {"input_ids", "ids", "close"}, close = [step, gap] where the two best logits differ by less than 1e-3;
distributions.safetensors: logits.N [V] as the model gives them, distribution.N.S [V] (F64) behind the logits processors that
generate itself builds for settings S of meta.json, contexts.N the ids in front.
"""

import argparse
import json
import pathlib

import torch
import transformers
from safetensors.torch import save_file
from transformers import Qwen2Config, Qwen2ForCausalLM

MODELS = {
    # the vocabulary of tests/data/tokenizer-small and some rows beyond it
    "tied": dict(vocab_size=4160, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=2, head_dim=16, tie_word_embeddings=True),
    "untied": dict(vocab_size=517, hidden_size=96, intermediate_size=160, num_hidden_layers=2, num_attention_heads=6,
                   num_key_value_heads=2, head_dim=32, tie_word_embeddings=False),
}
SETTINGS = [
    dict(temperature=1.0, top_k=0, top_p=1.0, repetition_penalty=1.0),
    dict(temperature=0.7, top_k=0, top_p=1.0, repetition_penalty=1.0),
    dict(temperature=1.0, top_k=20, top_p=1.0, repetition_penalty=1.0),
    dict(temperature=1.0, top_k=0, top_p=0.9, repetition_penalty=1.0),
    dict(temperature=1.0, top_k=0, top_p=1.0, repetition_penalty=1.3),
    dict(temperature=1.6, top_k=50, top_p=0.8, repetition_penalty=1.1),
    dict(temperature=0.3, top_k=5, top_p=0.5, repetition_penalty=0.8),
    dict(temperature=2.5, top_k=1000, top_p=0.99, repetition_penalty=2.0),
    dict(temperature=1.0, top_k=1, top_p=1.0, repetition_penalty=1.0),
    dict(temperature=0.9, top_k=0, top_p=0.01, repetition_penalty=1.2),
]
LENGTHS = [1, 2, 3, 5, 8, 13, 21, 34, 55, 63, 64, 65, 89, 100, 127, 128, 129, 144, 17, 33, 4, 70, 1, 40]
NEW_TOKENS = 64
# Wide enough that continuations vary, narrow enough that rounding moves logits by far less than usual gaps. At 0.3 attention is
# so sharp that the float32 rotary angles of Transformers alone (ours are rounded from float64) move logits by 1e-4.
INITIALIZER_RANGE = 0.15


def make_model(shape, seed):
    """Weights that BF16 holds exactly; wide enough that greedy continuations vary instead of looping at once."""
    torch.manual_seed(seed)
    config = Qwen2Config(**shape, max_position_embeddings=512, rms_norm_eps=1e-6, rope_theta=10000.0,
                         initializer_range=INITIALIZER_RANGE, bos_token_id=None, eos_token_id=None, pad_token_id=None)
    model = Qwen2ForCausalLM(config).to(torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.copy_(1 + 0.2 * torch.randn_like(parameter))
            elif "bias" in name:
                parameter.copy_(0.3 * torch.randn_like(parameter))
            parameter.copy_(parameter.to(torch.bfloat16).to(torch.float32))
    return model


def greedy(model, prompt, eos):
    out = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), do_sample=False,
                         max_new_tokens=NEW_TOKENS, eos_token_id=eos, pad_token_id=0, output_logits=True,
                         return_dict_in_generate=True)
    ids = out.sequences[0, len(prompt):].tolist()
    close = []
    for step, logits in enumerate(out.logits):
        best = torch.topk(logits[0], 2).values
        gap = float(best[0] - best[1])
        if gap < 1e-3:
            close.append([step, gap])
    return ids, close


def write_config(model, shape, folder, eos):
    json.dump({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", **shape, "hidden_act": "silu",
               "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "initializer_range": INITIALIZER_RANGE,
               "torch_dtype": "bfloat16", "use_cache": True, "use_sliding_window": False},
              open(folder / "config.json", "w"), indent=2)
    json.dump({"eos_token_id": eos}, open(folder / "generation_config.json", "w"), indent=2)
    tensors = {k: v.to(torch.bfloat16).contiguous() for k, v in model.state_dict().items()
               if not (shape["tie_word_embeddings"] and k == "lm_head.weight")}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def distributions(model, vocabulary, generator):
    tensors = {}
    for n in range(4):
        context = torch.randint(0, vocabulary, (1, 6 + 9 * n), generator=generator)
        tensors[f"contexts.{n}"] = context[0].to(torch.int32)
        for s, settings in enumerate(SETTINGS):
            out = model.generate(context, attention_mask=torch.ones_like(context), do_sample=True, max_new_tokens=1, pad_token_id=0,
                                 output_scores=True, output_logits=True, return_dict_in_generate=True, **settings)
            tensors[f"logits.{n}"] = out.logits[0][0].clone()
            tensors[f"distribution.{n}.{s}"] = out.scores[0][0].double().softmax(-1)
    return tensors


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(__file__).parent.parent / "generation" / "data")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for number, (name, shape) in enumerate(MODELS.items()):
        folder = arguments.output / name
        folder.mkdir(parents=True, exist_ok=True)
        model = make_model(shape, 100 + number)
        model.generation_config = transformers.GenerationConfig(pad_token_id=0)
        generator = torch.Generator().manual_seed(7 + number)
        prompts = [torch.randint(0, min(shape["vocab_size"], 4098), (n,), generator=generator).tolist() for n in LENGTHS]
        free = [greedy(model, prompt, None)[0] for prompt in prompts]
        eos = sorted({free[2][40], free[5][17], free[9][3]})
        with open(folder / "greedy.jsonl", "w") as file:
            for prompt in prompts:
                ids, close = greedy(model, prompt, eos)
                file.write(json.dumps({"input_ids": prompt, "ids": ids, "close": close}) + "\n")
        write_config(model, shape, folder, eos)
        tensors = distributions(model, shape["vocab_size"], generator) if name == "untied" else None
        if tensors:
            save_file(tensors, folder / "distributions.safetensors")
        distinct = sum(len(set(ids)) for ids in free) / sum(len(ids) for ids in free)
        json.dump({"transformers": transformers.__version__, "torch": torch.__version__, "settings": SETTINGS, "eos": eos,
                   "distinct_tokens_per_token": distinct}, open(folder / "meta.json", "w"), indent=1)
        print(name, "distinct", round(distinct, 3), "eos", eos)


if __name__ == "__main__":
    main()
