"""diffusers and PEFT and sconce: checkpoints and adapter files of sconce in their loaders, and what they save in sconce.

    python hf.py SCONCE"""

import json
import shutil
import sys

import common
import diffusers
import peft
import torch
from common import Bench, Failed, Table, compared, load_file, save_file, stirred

PIPES = dict(sd1="StableDiffusionPipeline", sd2="StableDiffusionPipeline", sdxl="StableDiffusionXLPipeline", sd3="StableDiffusion3Pipeline",
             sd35="StableDiffusion3Pipeline", flux="FluxPipeline")


def pipe_of(bench):
    if bench.denoiser == "unet":
        return common.reference.load(bench.folder)
    common.flow.FLOW_CASES[bench.name], common.flow.DATA = bench.case, bench.work / "data"
    return common.flow.load(bench.name)


def weights(pipe, bench):
    """component.key -> tensor, of layers alone where adapters were."""
    found = {}
    for part in [bench.denoiser, *bench.encoders()]:
        for key, t in getattr(pipe, part).state_dict().items():
            found[f"{part}.{key.replace('.base_layer', '').removeprefix('text_model.')}"] = t.clone()
    return found


def ours(bench, folder):
    return {f"{part}.{k.removeprefix('text_model.')}": t for part, tensors in folder.items() for k, t in tensors.items() if part != "vae"}


def loads(bench):
    """The components that diffusers puts LoRAs on: T5 is none of them."""
    t5 = {"flux": "text_encoder_2", "sd3": "text_encoder_3", "sd35": "text_encoder_3"}.get(bench.name)
    return [bench.denoiser, *[part for part in bench.encoders() if part != t5]]


def row(bench, table, name, direction, theirs, file, limit, scale=1.0, note=""):
    try:
        mine = ours(bench, bench.merged_folder(file, scale))
    except Failed as e:
        return table.refused(bench.name, name, direction, str(e)[-260:])
    base = ours(bench, common.components(bench.folder))
    keys = theirs.keys() & base.keys()
    pick = lambda tensors: {k: tensors[k] for k in keys}
    table.row(bench.name, name, direction, compared(mine, pick(theirs), base), limit, note)


# ---- checkpoints ------------------------------------------------------------------------------------------------------


def in_own_width(bench):
    """diffusers takes apart FLUX.1's layers, in checkpoints and in kohya's files, by the full-size model's width."""
    import inspect

    import trained
    from diffusers.loaders import single_file_model, single_file_utils

    c = bench.case["transformer"]
    width = c["num_attention_heads"] * c["attention_head_dim"]
    trained.for_width(width)
    name = "convert_flux_transformer_checkpoint_to_diffusers"
    text = inspect.getsource(getattr(single_file_utils, name))
    assert "inner_dim = 3072" in text
    exec(text.replace("inner_dim = 3072", f"inner_dim = {width}"), vars(single_file_utils))
    own = getattr(single_file_utils, name)
    setattr(single_file_model, name, own)
    for entry in single_file_model.SINGLE_FILE_LOADABLE_CLASSES.values():
        if getattr(entry.get("checkpoint_mapping_fn"), "__name__", "") == name:
            entry["checkpoint_mapping_fn"] = own


def checkpoints(bench, table):
    """The single file by from_single_file, and the folder that comes back by from_pretrained."""
    cls = getattr(diffusers, PIPES[bench.name])
    parts = [bench.denoiser, "vae", *bench.encoders()]
    want = common.components(bench.folder)
    bare = lambda part, tensors: {k.removeprefix("text_model."): t for k, t in tensors.items()} if part.startswith("text") else tensors
    back = bench.work / "back"
    shutil.rmtree(back, ignore_errors=True)
    # A single file has no tokenizer of T5: it is named.
    t5 = [p for p in bench.folder.glob("tokenizer_*") if (p / "tokenizer.json").exists()]
    bench.sconce("convert", bench.single, back, *[w for p in t5 for w in ("--file", f"{p.name}={p / 'tokenizer.json'}")])
    more = {} if bench.denoiser == "transformer" else dict(add_watermarker=False) if bench.name == "sdxl" else dict(safety_checker=None)
    loaders = {
        "from_single_file": lambda: cls.from_single_file(str(bench.single), config=str(bench.folder), local_files_only=True, torch_dtype=torch.float32, **more),
        "from_pretrained, there and back": lambda: cls.from_pretrained(str(back), local_files_only=True, torch_dtype=torch.float32, **more),
    }
    for name, load in loaders.items():
        try:
            pipe = load()
        except Exception as e:
            table.refused(bench.name, name, "sconce→", f"{type(e).__name__} {' '.join(str(e).split())[:160]}")
            continue
        off = count = 0
        strange = []
        for part in parts:
            held = bare(part, getattr(pipe, part).state_dict())
            for key, t in bare(part, want[part]).items():
                if part == "text_encoder" and key == "text_projection.weight" and name == "from_single_file":
                    continue  # of SD3's first encoder diffusers takes the identity, whatever a file has
                if key not in held:
                    strange.append(f"{part}.{key}")
                    continue
                off, count = max(off, (held[key] - t).abs().max().item()), count + 1
        strange = [k for k in strange if "embed_tokens" not in k]
        table.row(bench.name, name, "sconce→", (off, 1, count), 0, f"not there: {strange[:2]}" if strange else "")
        scheduler = pipe.scheduler.config
        print(f"       {bench.name} {name}: {type(pipe.scheduler).__name__}, {scheduler.get('prediction_type', 'flow')}, zero SNR {scheduler.get('rescale_betas_zero_snr')}")


# ---- adapters of sconce's ---------------------------------------------------------------------------------------------


def merge(model):
    for module in list(model.modules()):
        if hasattr(module, "base_layer"):
            module.merge()


def fused(bench, file, scale=1.0):
    pipe = pipe_of(bench)
    with warned() as said:
        pipe.load_lora_weights(str(file.parent), weight_name=file.name, local_files_only=True)
    pipe.fuse_lora(components=[c for c in loads(bench) if c == bench.denoiser or hasattr(getattr(pipe, c), "peft_config")], lora_scale=scale)
    pipe.unload_lora_weights()
    return weights(pipe, bench), said


class warned:
    """What diffusers and PEFT say about keys that they could not use."""

    def __enter__(self):
        import logging

        self.lines, outer = [], self

        class Keep(logging.Handler):
            def emit(self, record):
                text = " ".join(record.getMessage().split())
                if any(w in text for w in ("nexpected", "missing", "unmatched", "not found", "No LoRA")):
                    outer.lines.append(text)

        self.handler = Keep()
        diffusers.utils.logging.set_verbosity_warning()
        self.logger = logging.getLogger("diffusers")
        self.logger.addHandler(self.handler)
        return self.lines

    def __exit__(self, *_):
        self.logger.removeHandler(self.handler)
        diffusers.utils.logging.set_verbosity_error()


def of_sconce(bench, table):
    for adapter, layout, dtype, scale in [("lora", "peft", "f32", 1.0), ("lora", "peft", "f32", 0.6), ("lora", "peft", "f16", 1.0), ("dora", "peft", "f32", 1.0), ("lora", "kohya", "f32", 1.0)]:
        if layout == "kohya" and bench.name.startswith("sd3"):
            continue  # it reads no such files of SD3
        name = f"{adapter} {layout}" + (f" {dtype}" if dtype != "f32" else "") + (f" at {scale}" if scale != 1 else "")
        try:
            file = bench.trained(adapter, layout, dtype=dtype)
            theirs, said = fused(bench, file, scale)
        except Failed as e:
            table.refused(bench.name, name, "sconce→", e)
            continue
        except Exception as e:
            table.refused(bench.name, name, "sconce→", f"{type(e).__name__} {' '.join(str(e).split())[:200]}")
            continue
        # It loses the magnitudes of text encoders, also of its own files.
        read = [bench.denoiser] if adapter == "dora" else loads(bench)
        name += " (denoiser)" if adapter == "dora" else ""
        theirs = {k: t for k, t in theirs.items() if k.split(".")[0] in read}
        row(bench, table, name, "sconce→", theirs, file, 1e-3, scale, said[0][:140] if said else "")
    # Adapters that diffusers does not know, in PEFT itself.
    for adapter in ("loha", "lokr", "ia3"):
        try:
            file = bench.trained(adapter, "peft")
        except Failed as e:
            table.refused(bench.name, f"{adapter} peft", "sconce→", e)
            continue
        sd, pipe, note = load_file(file), pipe_of(bench), ""
        for part in [bench.denoiser, *bench.encoders()]:
            own = {k.removeprefix(f"{part}."): t for k, t in sd.items() if k.startswith(f"{part}.")}
            if not own:
                continue
            layers = sorted({k.rsplit(".", 1)[0].removeprefix("" if hasattr(getattr(pipe, part), "text_model") else "text_model.") for k in own})
            config = {
                "loha": lambda: peft.LoHaConfig(r=2, alpha=2, target_modules=layers),
                "lokr": lambda: peft.LoKrConfig(r=2, alpha=2, target_modules=layers),
                "ia3": lambda: peft.IA3Config(target_modules=layers, feedforward_modules=[n for n in layers if n.endswith("net.2")]),
            }[adapter]()
            model = getattr(pipe, part)
            if adapter == "lokr":
                # PEFT chooses how to take a layer apart by its rank and sides; sconce says its own in the recipe.
                config.decompose_both = False
            peft.inject_adapter_in_model(config, model)
            try:
                if not hasattr(model, "text_model"):
                    own = {k.removeprefix("text_model."): t for k, t in own.items()}
                result = peft.set_peft_model_state_dict(model, own)
                unexpected = [k for k in result.unexpected_keys]
                missing = [k for k in result.missing_keys if any(s in k for s in ("hada_", "lokr_", "ia3_"))]
                if unexpected or missing:
                    note = f"{part}: {len(unexpected)} unexpected {unexpected[:1]}, {len(missing)} missing {missing[:1]}"
            except Exception as e:
                note = f"{part}: {' '.join(str(e).split())[:160]}"
                break
            merge(model)
        row(bench, table, f"{adapter} peft, in PEFT", "sconce→", weights(pipe, bench), file, 1e-3, note=note)


# ---- adapters of theirs -----------------------------------------------------------------------------------------------

UNET = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "conv1", "proj_in"]
FLOW = ["attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.add_k_proj", "ff.net.0.proj", "ff.net.2", "norm1.linear"]
TEXT = ["q_proj", "v_proj", "out_proj", "fc1"]


def targets(bench):
    return UNET if bench.denoiser == "unet" else FLOW


def alike(bench):
    """A pattern of some layers' names."""
    return "attn2.to_q" if bench.denoiser == "unet" else "attn.to_k"


def configs(bench):
    """What PEFT is asked for, by the row's name."""
    layers = targets(bench)
    linear = [t for t in layers if t not in ("conv1", "proj_in")]
    exact = dict(target_modules=layers)
    return {
        "lora": peft.LoraConfig(r=4, lora_alpha=2, **exact),
        "lora, root of the rank": peft.LoraConfig(r=4, lora_alpha=2, use_rslora=True, **exact),
        "lora, patterns": peft.LoraConfig(r=4, lora_alpha=2, rank_pattern={alike(bench): 2}, alpha_pattern={alike(bench): 5, "ff.net.2": 1}, **exact),
        "lora, expressions": peft.LoraConfig(r=4, lora_alpha=2, rank_pattern={r".*\.to_[qk]$": 2}, alpha_pattern={r"^.*ff\.net\.\d": 5}, **exact),
        "lora, biases": peft.LoraConfig(r=4, lora_alpha=2, lora_bias=True, target_modules=["to_out.0", "ff.net.2"]),
        "dora": peft.LoraConfig(r=4, lora_alpha=2, use_dora=True, **exact),
        "pissa, saved as lora": peft.LoraConfig(r=4, lora_alpha=2, init_lora_weights="pissa", target_modules=linear),
        "loha": peft.LoHaConfig(r=3, alpha=2, **exact),
        "loha, effective convolutions": peft.LoHaConfig(r=3, alpha=2, use_effective_conv2d=True, **exact),
        "lokr": peft.LoKrConfig(r=2, alpha=1, **exact),
        "lokr, both": peft.LoKrConfig(r=2, alpha=1, decompose_both=True, decompose_factor=4, **exact),
        "lokr, effective convolutions": peft.LoKrConfig(r=2, alpha=1, use_effective_conv2d=True, **exact),
        "oft": peft.OFTConfig(oft_block_size=8, r=0, bias="none", target_modules=linear),
        "oft, convolutions": peft.OFTConfig(oft_block_size=8, r=0, bias="none", **exact),
        "oft, cayley exact": peft.OFTConfig(oft_block_size=8, r=0, use_cayley_neumann=False, target_modules=linear),
        "oft, block shared": peft.OFTConfig(oft_block_size=8, r=0, block_share=True, target_modules=linear),
        "boft": peft.BOFTConfig(boft_block_size=4, boft_n_butterfly_factor=1, target_modules=linear),
        "boft, two factors": peft.BOFTConfig(boft_block_size=4, boft_n_butterfly_factor=2, target_modules=linear),
        "ia3": peft.IA3Config(target_modules=layers, feedforward_modules=["ff.net.2"]),
    }


def of_peft(bench, table, only):
    """PEFT's own folders for the denoiser."""
    for name, config in configs(bench).items():
        if only not in name:
            continue
        pipe = pipe_of(bench)
        try:
            model = peft.get_peft_model(getattr(pipe, bench.denoiser), config)
            stirred(model, size=0.05)
            folder = bench.work / "peft"
            shutil.rmtree(folder, ignore_errors=True)
            model.save_pretrained(folder)
            merged = model.merge_and_unload().state_dict()
        except Exception as e:
            print(f"{bench.name:6} PEFT's {name}: PEFT itself: {type(e).__name__} {' '.join(str(e).split())[:140]}")
            continue
        theirs = {f"{bench.denoiser}.{k}": t for k, t in merged.items()}
        row(bench, table, f"PEFT's {name}", "→sconce", theirs, folder / "adapter_model.safetensors", 1e-4)


def of_diffusers(bench, table):
    """save_lora_weights of the pipelines, with and without what it says in the header."""
    from diffusers.training_utils import _collate_lora_metadata

    for name, told, how in (("told", True, {}), ("untold", False, {}), ("root of the rank", True, dict(use_rslora=True)), ("dora", True, dict(use_dora=True)),
                            ("patterns", True, dict(rank_pattern={alike(bench): 2}, alpha_pattern={alike(bench): 5}))):
        pipe = pipe_of(bench)
        parts = loads(bench)
        for part in parts:
            of_text = part.startswith("text")
            rank = dict(r=4, lora_alpha=8 if told else 4)
            config = peft.LoraConfig(**rank, target_modules=TEXT if of_text else targets(bench), **({k: v for k, v in how.items() if "pattern" not in k} if of_text else how))
            getattr(pipe, part).add_adapter(config)
            stirred(getattr(pipe, part), size=0.05)
        layers = {f"{part}_lora_layers": peft.get_peft_model_state_dict(getattr(pipe, part)) for part in parts}
        metadata = _collate_lora_metadata({part: getattr(pipe, part) for part in parts}) if told else {}
        folder = bench.work / "saved"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            type(pipe).save_lora_weights(str(folder), **layers, **metadata)
            file = next(folder.glob("*.safetensors"))
        except Exception as e:
            print(f"{bench.name:6} diffusers' {name}: itself: {type(e).__name__} {' '.join(str(e).split())[:180]}")
            continue
        for part in parts:
            merge(getattr(pipe, part))
        theirs = weights(pipe, bench)
        row(bench, table, f"save_lora_weights, {name}", "→sconce", theirs, file, 1e-4)
        # What becomes of it in the program that wrote it.
        again, said = fused(bench, file)
        off = {part: max((again[k] - theirs[k]).abs().max().item() for k in theirs if k.startswith(f"{part}.") and k in again) for part in parts}
        if max(off.values()) > 1e-4 or said:
            print(f"       {bench.name}: read again by diffusers it is off by {off} {said[:1]}")


def main():
    args = common.arguments(__doc__)
    table = Table("diffusers and PEFT")
    with common.workplace(args.keep) as work:
        for name in args.models:
            bench = Bench(args.program, name, work)
            if name == "flux":
                in_own_width(bench)
            if not args.only:
                checkpoints(bench, table)
                of_sconce(bench, table)
                of_diffusers(bench, table)
            of_peft(bench, table, args.only)
    return table.end()


if __name__ == "__main__":
    sys.exit(main())
