"""Writes tests/fixtures/data/others: files that other programs' own code writes for the fixtures' models, cut to a few layers, and
what these programs make of the weights with them. tests/others.rs holds sconce to it.

    python fixtures.py SCONCE COMFYUI-CHECKOUT SD-SCRIPTS-CHECKOUT ONETRAINER-CHECKOUT SIMPLETUNER-CHECKOUT

`NAME.safetensors` is the file, or `NAME/` PEFT's folder; `expected.json` says for each its model, and for each tensor that changes the
norm of the change and its products with four probes."""

import importlib.util
import json
import shutil
import sys

import common
import comfyui
import hf
import kohya
import lyco
import peft
import torch
import trainers
from common import Bench, load_file, save_file, stirred
from torch import nn

import formula

OUT = common.ROOT / "tests/fixtures/data/others"
CASES = {"sd1": "sd1-a", "sdxl": "sdxl-a", "sd3": "sd3-a", "flux": "flux-a"}
# Of a network's layers, those that stay: a piece of their names in files.
KEPT = {
    "sd1": ["down_blocks_1_attentions_0_transformer_blocks_0_attn2_to", "down_blocks_1_resnets_0_conv1", "te_text_model_encoder_layers_1_self_attn_q", "mid_block_attentions_0_proj_in"],
    "sdxl": ["input_blocks_4_1_transformer_blocks_0_attn1_to_q", "input_blocks_4_1_transformer_blocks_0_ff_net_2", "input_blocks_4_0_in_layers_2", "te1_text_model_encoder_layers_1_self_attn_q", "te2_text_model_encoder_layers_0_mlp_fc1"],
    "sd3": ["joint_blocks_0_x_block_attn_qkv", "joint_blocks_1_context_block_attn_qkv", "joint_blocks_1_context_block_adaLN", "te2_text_model_encoder_layers_0_mlp_fc1", "te3_encoder_block_0_layer_0_SelfAttention_q",
            "final_layer_adaLN", "transformer_blocks_0_attn_to"],
    "flux": ["double_blocks_0_img_attn_qkv", "single_blocks_1_linear1", "te1_text_model_encoder_layers_1_self_attn_q", "te3_encoder_block_0_layer_0_SelfAttention_q", "te2_encoder_block_0_layer_0_SelfAttention_q",
             "single_transformer_blocks_1_attn_to", "single_transformer_blocks_1_proj_mlp", "double_blocks_1_txt_mlp_0"],
}


def kept(bench, name):
    name = name.replace(".", "_")
    return any(piece in name for piece in KEPT[bench.name])


class Book:
    def __init__(self):
        shutil.rmtree(OUT, ignore_errors=True)
        OUT.mkdir(parents=True)
        self.rows = {}

    def note(self, name, bench, changes, file=None):
        """`changes`: component/key -> what is added to the tensor, as the program has it."""
        if file is not None:
            tensors = {k: t.detach().contiguous().clone() for k, t in load_file(file).items()}
            save_file(tensors, OUT / f"{name}.safetensors", common.header(file) or None)
        rows = {}
        for key, change in sorted(changes.items()):
            component, short = key.split("/")
            change = change.double()
            if change.abs().max() < 1e-7:
                continue
            products = [(change * formula.probe(f"probe{i}", short, change.shape).double()).sum().item() for i in range(4)]
            rows[f"{component}/{short}"] = [float(f"{v:.7e}") for v in [change.norm().item(), *products]]
        assert rows, name
        self.rows[name] = {"case": CASES[bench.name], "changes": rows}
        print(f"{name}: {len(rows)} tensors", flush=True)


def differences(after, before, rename):
    return {rename(k): after[k].float() - before[k].float() for k in after if k in before and (after[k].float() - before[k].float()).abs().max() > 0}


def of_single(bench):
    """From an original tensor's name to sconce's: a marker is put through `sconce convert`, so that no table is needed here."""
    folder = common.components(bench.folder)
    single = load_file(bench.single)
    found = {}
    for part, tensors in folder.items():
        for key, t in tensors.items():
            found.setdefault(t.detach().contiguous().numpy().tobytes(), f"{part}/{key}")
    return single, found


def by_folder(bench, file_like):
    """A whole model under the single file's names, as a folder's tensors."""
    out, one = bench.work / "theirs-as-folder", bench.work / "theirs-as-one.safetensors"
    shutil.rmtree(out, ignore_errors=True)
    save_file({k: t.contiguous() for k, t in file_like.items()}, one, common.header(bench.single))
    bench.sconce("convert", one, out)
    return {f"{part}/{k}": t for part, tensors in common.components(out).items() for k, t in tensors.items()}


def kohya_files(book, scripts, bench, what, module, **how):
    models = kohya.Models(scripts, bench)
    before = models.weights()
    if bench.name == "flux":
        wide = kohya.models_width(bench)
        scripts.lora_flux.LoRANetwork.get_qkv_mlp_split_dims = classmethod(lambda cls: kohya.Split([wide, wide, wide, 4 * wide]))
    network = module.create_network(1.0, how.pop("dim", 1), how.pop("alpha", 2.0), None, models.text(), models.net, **how)
    for attribute in ("unet_loras", "text_encoder_loras", "unet_ofts"):
        if hasattr(network, attribute):
            setattr(network, attribute, [m for m in getattr(network, attribute) if kept(bench, getattr(m, "lora_name", None) or m.oft_name)])
    network.apply_to(models.text(), models.net)
    stirred(network, size=0.2)
    file = bench.work / "fixture.safetensors"
    kohya.Split.building = False
    network.save_weights(str(file), None, {})
    kohya.Split.building = True
    models = kohya.Models(scripts, bench)
    again, sd, unmatched = models.network(module, file)
    assert not unmatched, unmatched
    after = kohya.merged(models, module, again, sd)
    book.note(f"kohya-{what}", bench, changes_of(bench, before, after), file)


def changes_of(bench, before, after):
    """Differences of weights named `net.…` and by encoder, under a folder's names."""
    text = lambda k: k.replace(".", "/text_model.", 1) if not k.split(".", 1)[1].startswith(("encoder.block", "shared", "text_projection", "encoder.final")) else k.replace(".", "/", 1)
    changes = differences({k: t for k, t in after.items() if not k.startswith("net.")}, before, text)
    if bench.name == "sd1":
        return changes | differences({k: t for k, t in after.items() if k.startswith("net.")}, before, lambda k: k.replace("net.", "unet/", 1))
    single = load_file(bench.single)
    whole = {k: (after[f"net.{k.removeprefix(kohya.SINGLE)}"].reshape(t.shape) if k.startswith(kohya.SINGLE) and f"net.{k.removeprefix(kohya.SINGLE)}" in after else t) for k, t in single.items()}
    now, was = by_folder(bench, whole), by_folder(bench, single)
    return changes | differences({k: t for k, t in now.items() if k.startswith(bench.denoiser)}, was, lambda k: k)


def lycoris_files(book, scripts, bench, what, naming, **how):
    lycoris = lyco.imported()
    models = scripts_models(scripts, bench) if naming == "kohya" else lyco.Diffusers(bench)
    before = models.weights() if naming == "kohya" else {f"net.{k}": t.clone() for k, t in models.net.state_dict().items()}
    if naming == "kohya":
        network = lycoris.kohya.create_network(1.0, how.pop("dim", 2), 1.0, None, models.text(), models.net, conv_dim=1, conv_alpha=0.5, warn_on_unmatched=False, preset="full", **how)
        network.unet_loras, network.text_encoder_loras = [[m for m in loras if kept(bench, m.lora_name) or "norm2" in m.lora_name and "1_attentions_0" in m.lora_name] for loras in (network.unet_loras, network.text_encoder_loras)]
        network.apply_to(models.text(), models.net, True, True)
    else:
        network = lycoris.wrapper.create_lycoris(models.net, 1.0, how.pop("dim", 2), 1.0, conv_dim=1, conv_alpha=0.5, warn_on_unmatched=False, preset="full", **how)
        network.loras = [m for m in network.loras if kept(bench, m.lora_name)]
        network.apply_to()
    stirred(network, size=0.2)
    file = bench.work / "fixture.safetensors"
    network.save_weights(str(file), None, {})
    after = dict(before)
    places = {id(m): f"net.{n}" for n, m in models.net.named_modules()}
    for part, encoder in zip(bench.encoders(), models.encoders):
        places |= {id(m): f"{part}.{n.removeprefix('text_model.')}" for n, m in encoder.named_modules()}
    with torch.no_grad():
        for lora in network.loras:
            place = places[id(lora.org_module[0])]
            if isinstance(lora.org_module[0], nn.Linear | nn.Conv2d):
                after[f"{place}.weight"] = common.effective(lora.org_module[0])
            else:
                weight, bias = lora.make_weight()
                after |= {f"{place}.weight": weight, f"{place}.bias": bias}
    if naming == "kohya":
        book.note(f"lycoris-{what}", bench, changes_of(bench, before, after), file)
    else:
        book.note(f"lycoris-{what}", bench, differences(after, before, lambda k: k.replace("net.", f"{bench.denoiser}/", 1)), file)


def scripts_models(scripts, bench):
    return kohya.Models(scripts, bench)


def comfyui_file(book, comfy, bench):
    """Extracted by its node, with norms, biases and the text encoder."""
    own = comfy.sd.load_checkpoint_guess_config
    comfy.supported_models.models = comfyui.stand_in(comfy, bench)
    comfy.clip_model.CLIPEmbeddings.__init__.__defaults__ = (common.cases.VOCAB, *comfyui.DEFAULTS[1:])
    model, clip, _, _ = own(str(bench.single), output_vae=False, model_options={"dtype": torch.float32}, te_model_options={"dtype": torch.float32, **comfyui.encoders(bench)})
    file = comfyui.extract(comfy, bench, model, clip, "standard", "with norms and biases", rank=1)
    pieces = ("input_blocks.4.1.transformer_blocks.0.attn2.to_q", "input_blocks.4.1.transformer_blocks.0.norm2", "input_blocks.4.0.in_layers", "input_blocks.4.1.proj_in", "layers.1.self_attn.q_proj", "layers.1.layer_norm1", "position_embedding")
    sd = {k: t for k, t in load_file(file).items() if any(p in k for p in pieces)}
    save_file(sd, file)
    base = {k: t.clone() for k, t in (model.model.state_dict() | clip.cond_stage_model.state_dict()).items()}
    theirs = comfyui.patched(comfy, model, clip, file, 1.0)
    single = load_file(bench.single)
    whole = {k: theirs.get(f"diffusion_model.{k.removeprefix(kohya.SINGLE)}", theirs.get(k.replace("cond_stage_model.", "clip_l."), t)).reshape(t.shape) for k, t in single.items()}
    assert all(k in base for k in theirs)
    now, was = by_folder(bench, whole), by_folder(bench, single)
    book.note("comfyui-extracted", bench, differences(now, was, lambda k: k), file)


def onetrainer_file(book, one, bench, what, kind, form):
    KINDS = trainers.KINDS
    cut = {"sd1": ["1.attentions.0.transformer_blocks.0.attn2.to", "down_blocks.1.resnets.0.conv1", "layers.1.self_attn.q"], "flux": ["single_transformer_blocks.1.attn.to", "single_transformer_blocks.1.proj_mlp", "layers.1.self_attn.q", "encoder.block.0.layer.0.SelfAttention.q"]}[bench.name]
    model, saver, form, wrappers = trainers.built(one, bench, kind, form, cut)
    file = bench.work / "fixture.safetensors"
    saver._save(model, form, str(file), None)
    changes = {}
    with torch.no_grad():
        for part, (module, wrapper) in wrappers.items():
            layers = {n: m for n, m in module.named_modules() if isinstance(m, nn.Linear | nn.Conv2d) and any(c in n for c in cut)}
            before = {n: m.weight.clone() for n, m in layers.items()}
            wrapper.hook_to_module()
            for n, m in layers.items():
                changes[f"{part}/{n}.weight"] = common.effective(m) - before[n]
            wrapper.remove_hook_from_module()
    book.note(f"onetrainer-{what}", bench, changes, file)


def peft_folder(book, bench, what, config):
    pipe = hf.pipe_of(bench)
    before = {k: t.clone() for k, t in getattr(pipe, bench.denoiser).state_dict().items()}
    model = peft.get_peft_model(getattr(pipe, bench.denoiser), config)
    stirred(model, size=0.1)
    folder = OUT / f"peft-{what}"
    model.save_pretrained(folder)
    for extra in folder.glob("README.md"):
        extra.unlink()
    after = model.merge_and_unload().state_dict()
    book.note(f"peft-{what}", bench, differences(after, before, lambda k: f"{bench.denoiser}/{k}"))


def simpletuner_file(book, formats, bench):
    pipe = hf.pipe_of(bench)
    net = getattr(pipe, bench.denoiser)
    before = {k: t.clone() for k, t in net.state_dict().items()}
    net.add_adapter(peft.LoraConfig(r=1, lora_alpha=3, target_modules=r".*single_transformer_blocks\.1\.(attn\.to_[qkv]|proj_mlp)"))
    stirred(net, size=0.2)
    sd = {f"{bench.denoiser}.{k}": t for k, t in peft.get_peft_model_state_dict(net).items()}
    file = bench.work / "fixture.safetensors"
    save_file({k: t.detach().contiguous().clone() for k, t in formats.convert_diffusers_to_comfyui(sd, adapter_metadata=dict(lora_alpha=3)).items()}, file)
    hf.merge(net)
    after = {k.replace(".base_layer", ""): t for k, t in net.state_dict().items() if "lora_" not in k}
    book.note("simpletuner-comfyui", bench, differences(after, before, lambda k: f"{bench.denoiser}/{k}"), file)


def main():
    args = common.arguments(__doc__, "comfyui", "scripts", "onetrainer", "simpletuner")
    scripts, one, comfy = kohya.imported(args.scripts), trainers.imported(args.onetrainer), comfyui.imported(args.comfyui)
    comfyui.DEFAULTS = comfy.clip_model.CLIPEmbeddings.__init__.__defaults__
    spec = importlib.util.spec_from_file_location("lora_format", args.simpletuner / "simpletuner/helpers/training/lora_format.py")
    formats = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(formats)
    book = Book()
    with common.workplace(args.keep) as work:
        table = common.cases.CASES | common.flow_cases.FLOW_CASES
        bench = {name: Bench(args.program, name, work, table[case]) for name, case in CASES.items()}
        kohya_files(book, scripts, bench["sd1"], "sd1-conv", scripts.lora, conv_dim=1, conv_alpha=0.5)
        kohya_files(book, scripts, bench["sdxl"], "sdxl-oft", scripts.oft, dim=8, alpha=0.01, enable_all_linear=True, enable_conv=True)
        kohya_files(book, scripts, bench["sdxl"], "sdxl", scripts.lora, conv_dim=1, conv_alpha=0.5)
        kohya_files(book, scripts, bench["flux"], "flux-split", scripts.lora_flux, split_qkv="True", train_t5xxl="True")
        kohya.in_own_width(scripts.oft_flux, kohya.models_width(bench["flux"]))
        kohya_files(book, scripts, bench["flux"], "flux-oft", scripts.oft_flux, dim=12, alpha=0.01, enable_all_linear="True")
        lycoris_files(book, scripts, bench["flux"], "flux-dora-rows", "kohya", algo="lora", dora_wd=True)
        lycoris_files(book, scripts, bench["flux"], "flux-oft-rows", "kohya", algo="diag-oft", dim=4, constraint=0.002, rescaled=True)
        lycoris_files(book, scripts, bench["sd1"], "sd1-norms", "kohya", algo="lokr", factor=4, train_norm=True)
        lycoris_files(book, scripts, bench["sd3"], "sd3-loha", "lycoris", algo="loha", dim=1)
        comfyui_file(book, comfy, bench["sd1"])
        onetrainer_file(book, one, bench["sd1"], "sd1-comfy-loha", "loha", "COMFY_LORA")
        onetrainer_file(book, one, bench["sd1"], "sd1-original-oft", "oft, scaled and shared", "ORIGINAL_LORA")
        onetrainer_file(book, one, bench["flux"], "flux-kohya-t5", "lora", "KOHYA_LORA")
        simpletuner_file(book, formats, bench["flux"])
        layers = r".*down_blocks\.1\.(attentions\.0\.transformer_blocks\.0\.attn2\.to_(q|v|out\.0)|resnets\.0\.conv1)"
        linear = layers.replace(r"|resnets\.0\.conv1", "")
        peft_folder(book, bench["sd1"], "oft", peft.OFTConfig(oft_block_size=8, r=0, target_modules=layers))
        peft_folder(book, bench["sd1"], "oft-shared-exact", peft.OFTConfig(oft_block_size=8, r=0, block_share=True, use_cayley_neumann=False, coft=True, eps=0.5, target_modules=linear))
        peft_folder(book, bench["sd1"], "boft", peft.BOFTConfig(boft_block_size=4, target_modules=linear))
        peft_folder(book, bench["sd1"], "lora-expressions", peft.LoraConfig(r=2, lora_alpha=1, rank_pattern={r".*attn2\.to_[qv]": 1}, alpha_pattern={r"to_out\.\d": 3}, target_modules=layers))
        peft_folder(book, bench["sd1"], "lora-bias", peft.LoraConfig(r=1, lora_alpha=3, lora_bias=True, target_modules=r".*down_blocks\.1\.attentions\.0\.transformer_blocks\.0\.attn2\.to_out\.0"))
    (OUT / "expected.json").write_text("{\n" + ",\n".join(f' "{name}": {json.dumps(row, separators=(",", ":"))}' for name, row in book.rows.items()) + "\n}\n")


if __name__ == "__main__":
    sys.exit(main())
