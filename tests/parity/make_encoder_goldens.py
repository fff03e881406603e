"""Writes tests/data/encoder: small random BERT, RoBERTa and BART encoders with tokenizers, and what Transformers and the
bert-score package make of them: python make_encoder_goldens.py [--output DIR]

Needs transformers 4.57.1 (5.x has no Python tokenizers, which bert-score asks for), bert-score 0.3.13, tokenizers, torch,
safetensors. Texts are written here, nothing is downloaded; seeds are fixed.

  bert/         uncased; names with the "bert." prefix and gamma/beta, as bert-base-uncased has them; F32
  roberta/      F16, names without a prefix; vocab.json + merges.txt
  bart/         BF16; encoder only, "model." prefix, shared embeddings, scale_embedding
  bert-cased/   vocab.txt of a cased tokenizer alone
  bert-json/, roberta-json/   the same tokenizers as tokenizer.json alone
  baseline.csv  for rescaling
  goldens.json  texts and ids per tokenizer; pairs; BERTScore of every model with and without idf and rescaling
  NAME/hidden.safetensors   hidden states layer.0 .. layer.L of the texts in goldens.json's "hidden", packed
"""

import argparse
import collections
import importlib.metadata
import json
import pathlib
import shutil
import tempfile

import bert_score
import torch
import transformers
from bert_score.utils import get_tokenizer, sent_encode
from safetensors.torch import save_file
from tokenizers import ByteLevelBPETokenizer
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import (BartConfig, BartModel, BertConfig, BertModel, BertTokenizer, BertTokenizerFast, PreTrainedTokenizerFast,
                          RobertaConfig, RobertaModel, RobertaTokenizerFast)

ENGLISH = """The committee met on Tuesday to discuss the budget for the coming year. The chair said that the school would need
more teachers, and that the money should come from the reserve. Nobody disagreed, but two members asked for a report on what
had been spent before. The meeting will go on next week. A storm crossed the coast in the night and cut the power lines of
three villages; the repairs took until the evening. He didn't know whether they'd come, and she wasn't sure that he would
care. Prices rose by 3.5 percent in 2021, twice as fast as in 2019. It is what it is, they said, and we're not going to change
it now. The summary of the talk: remote control, design, market, cost, users."""

HARD = [
    "The committee met on Tuesday.",
    "  white   space \t and\nnew lines  ",
    "",
    " \n ",
    "He didn't know; they'd said: \"it's what it is\" (really?!) -- and so on...",
    "naïve café, Ångström, ÜBER, İstanbul, ΣΊΣΥΦΟΣ, straße",
    "cafe\u0301 A\u030angstro\u0308m e\u0323\u0302",
    "日本語のテキスト and 中文字符 mixed한국어",
    "豈 more 𠀀 𪜀 𫝀 𫠠",
    "emoji 😀👩\u200d👩\u200d👧 flag 🇩🇪 heart ❤\ufe0f",
    "zero\u200bwidth soft\u00adhyphen bom\ufeff nul? \ufffd",
    "tabs\x0bvertical\x0cfeed\x1cseparator\x85next\u2028line\u2029para",
    "no\u00a0break\u3000ideographic\u2003em\u1680ogham",
    "1,234.56 $ €5 £3 ½ ² Ⅷ ٣ 100% #tag @user a_b c/d\\e ^~`|<>",
    "[CLS] spelled [SEP] out [MASK] here [UNK]!",
    "<s>spelled</s> out <mask> here<pad> and <unk> more",
    "x" * 99 + " " + "y" * 100 + " " + "z" * 101,
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "Привет, мир! مرحبا بالعالم שלום नमस्ते สวัสดี",
    "'s 't 're 'S 'LL don't DON'T we've I'm",
    "ﬁ ﬂ ① Ｆｕｌｌ ｗｉｄｔｈ … “quotes” ‘single’ – — ¿que? ¡no!",
    "  leading and trailing\u3000",
    "a\u0300\u0301\u0302\u0303 stacked q\u0307\u0323",
    "control\x01\x02\x7fchars\x1bhere",
    ENGLISH,
]
HIDDEN = [0, 7, 2]  # of HARD
WORDPIECES = 400

PAIRS = [
    ("The committee met on Tuesday.", "The committee discussed the budget on Tuesday."),
    ("The committee met on Tuesday.", "The committee met on Tuesday."),
    ("A storm cut the power lines.", "The storm crossed the coast and cut power in three villages."),
    ("", "The meeting will go on next week."),
    ("They said no.", "   "),
    ("Prices rose twice as fast.", "prices ROSE by 3.5 percent in 2021!"),
    ("naïve café", "naive cafe"),
    ("remote control, design, market", ENGLISH),
    (ENGLISH, "日本語 and more"),
    ("A storm cut the power lines.", "It is what it is, they said."),
    ("we're not going to change it", "They said no."),
]


def randomize(model, seed, scale):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            values = torch.randn(parameter.shape, generator=generator) * scale
            if "norm" in name.lower() and name.endswith("weight"):
                values = 1 + 0.2 * values / scale
            parameter.copy_(values)
    return model.eval()


def make_wordpiece(lower):
    """Tokens by id: special ones, characters, then the most frequent beginnings and insides of words. The library's trainer
    would break ties otherwise every time."""
    normalizer, cutter = BertNormalizer(lowercase=lower), BertPreTokenizer()
    words = collections.Counter()
    for text in [ENGLISH] * 4 + [HARD[i] for i in (5, 7, 18, 20)]:
        words.update(word for word, _ in cutter.pre_tokenize_str(normalizer.normalize_str(text)))
    characters = sorted(set("".join(words)))
    pieces = collections.Counter()
    for word, count in words.items():
        for start in range(len(word)):
            for end in range(start + 2, min(len(word), start + 7) + 1):
                pieces[("##" if start else "") + word[start:end]] += count * (end - start)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + characters + ["##" + c for c in characters if c.isalnum()]
    tokens += sorted(pieces, key=lambda piece: (-pieces[piece], piece))[: WORDPIECES - len(tokens)]
    return tokens


def train_byte_level():
    trainer = ByteLevelBPETokenizer()
    trainer.train_from_iterator([ENGLISH] * 4, vocab_size=440, min_frequency=2, show_progress=False,
                                special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    return trainer


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def write_vocab(folder, tokens):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("".join(token + "\n" for token in tokens))


def make_tokenizers(out):
    write_vocab(out / "bert", make_wordpiece(True))
    write_json(out / "bert" / "tokenizer_config.json",
               {"do_lower_case": True, "model_max_length": 60, "tokenizer_class": "BertTokenizer"})
    write_vocab(out / "bert-cased", make_wordpiece(False))
    # No limit, as Transformers writes it: an integer of more than 64 bits.
    write_json(out / "bert-cased" / "tokenizer_config.json", {"do_lower_case": False, "model_max_length": int(1e30)})
    for name in ("roberta", "bart"):
        (out / name).mkdir(exist_ok=True)
        train_byte_level().save_model(str(out / name))
        write_json(out / name / "tokenizer_config.json",
                   {"model_max_length": 64, "tokenizer_class": name.capitalize() + "Tokenizer"})
    for name, fast in (("bert", BertTokenizerFast), ("roberta", RobertaTokenizerFast)):
        folder = out / (name + "-json")
        folder.mkdir(exist_ok=True)
        fast.from_pretrained(str(out / name)).backend_tokenizer.save(str(folder / "tokenizer.json"), pretty=False)


def stored(state, dtype):
    return {name: tensor.to(dtype).contiguous() for name, tensor in state.items()}


def make_models(out):
    """Returns the models with exactly the stored weights, and writes what the program reads."""
    sizes = dict(hidden_size=32, num_attention_heads=2, intermediate_size=48, hidden_dropout_prob=0.0)
    bert_vocab = len((out / "bert" / "vocab.txt").read_text().splitlines())
    bpe_vocab = len(json.loads((out / "roberta" / "vocab.json").read_text()))
    configs = {
        "bert": BertConfig(vocab_size=bert_vocab, num_hidden_layers=3, max_position_embeddings=64, **sizes),
        "roberta": RobertaConfig(vocab_size=bpe_vocab, num_hidden_layers=4, max_position_embeddings=66, type_vocab_size=1,
                                 layer_norm_eps=1e-5, **sizes),
        "bart": BartConfig(vocab_size=bpe_vocab, d_model=32, encoder_layers=3, encoder_attention_heads=2, encoder_ffn_dim=48,
                           decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=48, max_position_embeddings=64,
                           scale_embedding=True),
    }
    classes = {"bert": BertModel, "roberta": RobertaModel, "bart": BartModel}
    scales = {"bert": 0.25, "roberta": 0.25, "bart": 0.2}
    models = {}
    for seed, name in enumerate(configs):
        model = randomize(classes[name](configs[name]), 11 + seed, scales[name])
        configs[name].save_pretrained(out / name)
        state = {key: value for key, value in model.state_dict().items()
                 if not key.startswith(("pooler", "decoder")) and "position_ids" not in key}
        if name == "bert":
            state = {"bert." + key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
                     for key, value in state.items()}
        if name == "bart":
            state = {"model." + key: value for key, value in state.items() if "embed_tokens" not in key}
        dtype = {"bert": torch.float32, "roberta": torch.float16, "bart": torch.bfloat16}[name]
        save_file(stored(state, dtype), out / name / "model.safetensors")
        models[name] = model.to(dtype).float()
    return models


def hidden_states(model, tokenizer):
    encoder = model.encoder if hasattr(model, "decoder") else model
    states = None
    for index in HIDDEN:
        ids = torch.tensor([sent_encode(tokenizer, HARD[index])])
        with torch.no_grad():
            result = encoder(ids, attention_mask=torch.ones_like(ids), output_hidden_states=True).hidden_states
        states = [[] for _ in result] if states is None else states
        for layer, value in enumerate(result):
            states[layer].append(value[0])
    return {f"layer.{layer}": torch.cat(values).contiguous() for layer, values in enumerate(states)}


def full_directory(models, out, name):
    """What bert-score loads: the same files, with the model as Transformers saves it."""
    folder = pathlib.Path(tempfile.mkdtemp())
    for file in (out / name).iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, folder)
    models[name].save_pretrained(folder)
    return str(folder)


def make_scores(folder, layers, baseline):
    cands, refs = zip(*PAIRS)
    scores = {}
    for layer in range(layers + 1):
        for idf in (False, True):
            for rescale in (False, True):
                if layer not in (1, layers) and (idf or rescale):
                    continue
                # One pair at a time would be free of the padding's zeros, but idf wants all references: the document
                # frequencies are made once and handed over.
                tokenizer = get_tokenizer(folder)
                table = bert_score.utils.get_idf_dict(list(refs), tokenizer, nthreads=0) if idf else False
                rows = []
                for cand, ref in PAIRS:
                    values = bert_score.score([cand], [ref], model_type=folder, num_layers=layer, idf=table, lang="en",
                                              rescale_with_baseline=rescale, baseline_path=str(baseline), device="cpu")
                    rows.append([None if value != value else value for value in (float(v[0]) for v in values)])
                scores[f"layer {layer}{' idf' if idf else ''}{' rescaled' if rescale else ''}"] = rows
    return scores


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path,
                        default=pathlib.Path(__file__).resolve().parent.parent / "data" / "encoder")
    out = parser.parse_args().output
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    out.mkdir(parents=True, exist_ok=True)
    make_tokenizers(out)
    models = make_models(out)
    baseline = out / "baseline.csv"
    baseline.write_text("LAYER,P,R,F\n" + "".join(f"{i},{0.1 + i / 16},{0.2 + i / 32},{0.15 + i / 64}\n" for i in range(5)))
    goldens = {"versions": {"transformers": transformers.__version__, "bert-score": importlib.metadata.version("bert-score"),
                            "torch": torch.__version__.split("+")[0]},
               "texts": HARD, "hidden": HIDDEN, "pairs": PAIRS, "ids": {}, "scores": {}}
    for name in ("bert", "bert-cased", "roberta", "bart"):
        source = out / name
        # A directory without config.json names no tokenizer class.
        tokenizer = BertTokenizer.from_pretrained(str(source)) if name == "bert-cased" else get_tokenizer(str(source))
        goldens["ids"][name] = [sent_encode(tokenizer, text) for text in HARD]
    for name in ("bert-json", "roberta-json"):
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(out / name / "tokenizer.json"))
        goldens["ids"][name] = [tokenizer.encode(text.strip()) for text in HARD]
    for name, model in models.items():
        layers = model.config.num_hidden_layers
        save_file(hidden_states(model, get_tokenizer(str(out / name))), out / name / "hidden.safetensors")
        folder = full_directory(models, out, name)
        goldens["scores"][name] = make_scores(folder, layers, baseline)
        shutil.rmtree(folder)
    text = json.dumps(goldens, ensure_ascii=True, indent=None, separators=(",", ":"))
    (out / "goldens.json").write_text(text.replace('],"', '],\n"').replace("]],", "]],\n") + "\n")


if __name__ == "__main__":
    main()
