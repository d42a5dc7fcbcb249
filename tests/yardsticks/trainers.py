"""OneTrainer and SimpleTuner and sconce: what these trainers save, in each of their formats, read here.

    python trainers.py SCONCE ONETRAINER-CHECKOUT SIMPLETUNER-CHECKOUT

Of OneTrainer its adapters, models and savers run as they are, without its data loaders; compared is what each layer gives for an input.
Of SimpleTuner the file of its LoRA formats, on what PEFT has trained."""

import importlib.util
import sys

import common
import hf
import peft
import torch
from common import Bench, Failed, Table, save_file, stirred
from lyco import probe
from torch import nn

# Of these it renames FLUX.1's last modulation, whose halves have changed places in the original code, without moving them.
UNSWAPPED = ["loha", "lokr", "oft", "oft, scaled and shared"]
FORMATS = ["DIFFUSERS_LORA", "KOHYA_LORA", "LEGACY_LORA", "ORIGINAL_LORA", "COMFY_LORA"]
KINDS = {
    "lora": dict(peft_type="LORA"),
    "dora": dict(peft_type="LORA", lora_decompose=True, lora_decompose_output_axis=True),
    "dora of inputs": dict(peft_type="LORA", lora_decompose=True, lora_decompose_output_axis=False),
    "loha": dict(peft_type="LOHA"),
    "lokr": dict(peft_type="LOKR", lokr_dim=2, lokr_decompose_factor=4),
    "oft": dict(peft_type="OFT_2", oft_block_size=8),
    "oft, scaled and shared": dict(peft_type="OFT_2", oft_block_size=8, oft_scaled=True, oft_block_share=True),
}


def imported(checkout):
    sys.path.insert(0, str(checkout.resolve()))
    import modules.modelSaver.mixin.LoRASaverMixin as mixin
    from modules.model.FluxModel import FluxModel
    from modules.model.StableDiffusion3Model import StableDiffusion3Model
    from modules.model.StableDiffusionModel import StableDiffusionModel
    from modules.model.StableDiffusionXLModel import StableDiffusionXLModel
    from modules.modelSaver.flux.FluxLoRASaver import FluxLoRASaver
    from modules.modelSaver.stableDiffusion.StableDiffusionLoRASaver import StableDiffusionLoRASaver
    from modules.modelSaver.stableDiffusion3.StableDiffusion3LoRASaver import StableDiffusion3LoRASaver
    from modules.modelSaver.stableDiffusionXL.StableDiffusionXLLoRASaver import StableDiffusionXLLoRASaver
    from modules.module.LoRAModule import LoRAModuleWrapper
    from modules.util.config.TrainConfig import TrainConfig
    from modules.util.enum.ModelFormat import ModelFormat
    from modules.util.enum.ModelType import ModelType, PeftType

    # Its headers tell of a whole training configuration.
    mixin.LoRASaverMixin._write_lora_file = lambda self, model, to, tensors: save_file({k: t.detach().contiguous().clone() for k, t in tensors.items()}, to)
    classes = dict(sd1=(StableDiffusionModel, StableDiffusionLoRASaver, "STABLE_DIFFUSION_15"), sd2=(StableDiffusionModel, StableDiffusionLoRASaver, "STABLE_DIFFUSION_21"),
                   sdxl=(StableDiffusionXLModel, StableDiffusionXLLoRASaver, "STABLE_DIFFUSION_XL_10_BASE"),
                   sd3=(StableDiffusion3Model, StableDiffusion3LoRASaver, "STABLE_DIFFUSION_3"), sd35=(StableDiffusion3Model, StableDiffusion3LoRASaver, "STABLE_DIFFUSION_35"),
                   flux=(FluxModel, FluxLoRASaver, "FLUX_DEV_1"))
    return dict(classes=classes, wrapper=LoRAModuleWrapper, config=TrainConfig, format=ModelFormat, type=ModelType, peft=PeftType)


def built(one, bench, kind, form, layers=None):
    """A model of OneTrainer's with adapters, on these layers or on all, and its wrappers by component."""
    cls, saver, name = one["classes"][bench.name]
    pipe, model = hf.pipe_of(bench), cls(one["type"][name])
    config = one["config"].default_values()
    for key, value in dict(KINDS[kind], lora_rank=3, lora_alpha=2.0, train_device="cpu").items():
        setattr(config, key, one["peft"][value] if key == "peft_type" else value)
    form = one["format"][form]
    wrappers = {}
    encoders = [] if form == one["format"].ORIGINAL_LORA else bench.encoders()
    for part in [*encoders, bench.denoiser]:
        module = getattr(pipe, part)
        attribute = part
        if part.startswith("text_encoder") and len(bench.encoders()) > 1:
            attribute = "text_encoder_1" if part == "text_encoder" else part
        groups = model.fusion_groups() if part == bench.denoiser else None
        # It trains transformers of transformers 4, whose CLIPTextModel has an inner `text_model`.
        if type(module).__name__ == "CLIPTextModel" and not hasattr(module, "text_model"):
            outer = nn.Module()
            outer.text_model = module
            module = outer
        setattr(model, attribute, module)
        mine = layers and [n for n in layers if any(n in name for name, _ in module.named_modules())]
        wrapper = one["wrapper"](module, part, config, mine, fusion_spec=groups, fuse=groups is not None and form.needs_qkv_fusion())
        for trained in wrapper.modules() if callable(getattr(wrapper, "modules", None)) else []:
            stirred(trained, size=0.1)
        setattr(model, f"{attribute}_lora", wrapper)
        wrappers[part] = (module, wrapper)
    for attribute in ("text_encoder", "text_encoder_1", "text_encoder_2", "text_encoder_3"):
        if not hasattr(model, attribute):
            setattr(model, attribute, None)
        if not hasattr(model, f"{attribute}_lora"):
            setattr(model, f"{attribute}_lora", None)
    return model, saver(), form, wrappers


def onetrainer(one, bench, table, kind, form):
    row, file = f"OneTrainer's {kind}, {form.removesuffix('_LORA').lower()}", bench.work / "onetrainer.safetensors"
    try:
        model, saver, form, wrappers = built(one, bench, kind, form)
        saver._save(model, form, str(file), None)
    except Exception as e:
        print(f"{bench.name:6} {row}: itself: {type(e).__name__} {' '.join(str(e).split())[:150]}")
        return
    try:
        ours = bench.merged_folder(file)
    except Failed as e:
        return table.refused(bench.name, row, "→sconce", str(e)[-260:])
    base, generator = common.components(bench.folder), torch.Generator().manual_seed(11)
    bare = lambda tensors: {k.removeprefix("text_model."): t for k, t in tensors.items()}
    off = change = count = 0
    with torch.no_grad():
        for part, (module, wrapper) in wrappers.items():
            wrapper.hook_to_module()
            mine, was = bare(ours[part]), bare(base[part])
            for name, layer in module.named_modules():
                name = name.removeprefix("text_model.")
                if name == "norm_out.linear" and kind in UNSWAPPED and form.needs_qkv_fusion():
                    continue
                if not isinstance(layer, nn.Linear | nn.Conv2d) or f"{name}.weight" not in was:
                    continue
                state = generator.get_state()
                want, got = probe(layer, mine[f"{name}.weight"], mine.get(f"{name}.bias"), generator)
                generator.set_state(state)
                _, before = probe(layer, was[f"{name}.weight"], was.get(f"{name}.bias"), generator)
                off, change = max(off, (want - got).abs().max().item()), max(change, (want - before).abs().max().item())
                count += ((want - before).abs().max() > 1e-6).item()
            wrapper.remove_hook_from_module()
    table.row(bench.name, row, "→sconce", (off, change, count), 1e-4 * max(change, 1))


def simpletuner(formats, bench, table):
    """Its ComfyUI format, of adapters that PEFT trained."""
    pipe = hf.pipe_of(bench)
    parts = [bench.denoiser] if bench.denoiser == "transformer" else hf.loads(bench)
    sd, configs = {}, {}
    for part in parts:
        config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=hf.TEXT if part.startswith("text") else hf.targets(bench))
        getattr(pipe, part).add_adapter(config)
        stirred(getattr(pipe, part), size=0.05)
        sd |= {f"{part}.{k}": t for k, t in peft.get_peft_model_state_dict(getattr(pipe, part)).items()}
        configs[part] = dict(lora_alpha=8, alpha_pattern={})
    if bench.denoiser == "unet":
        # Its names of text encoders are those of transformers 4.
        sd = {k.replace("text_encoder.encoder.", "text_encoder.text_model.encoder."): t for k, t in sd.items()}
        sd = formats.convert_diffusers_to_comfyui_sd_lora(sd, component_adapter_metadata=configs, sdxl=bench.name == "sdxl")
    else:
        sd = formats.convert_diffusers_to_comfyui(sd, adapter_metadata=configs["transformer"])
    file = bench.work / "simpletuner.safetensors"
    save_file({k: t.detach().contiguous().clone() for k, t in sd.items()}, file)
    for part in parts:
        hf.merge(getattr(pipe, part))
    hf.row(bench, table, "SimpleTuner's, for ComfyUI", "→sconce", hf.weights(pipe, bench), file, 1e-4)


def main():
    args = common.arguments(__doc__, "onetrainer", "simpletuner")
    one = imported(args.onetrainer)
    spec = importlib.util.spec_from_file_location("lora_format", args.simpletuner / "simpletuner/helpers/training/lora_format.py")
    formats = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(formats)
    table = Table("OneTrainer and SimpleTuner")
    with common.workplace(args.keep) as work:
        for name in args.models:
            bench = Bench(args.program, name, work)
            for kind in KINDS:
                for form in FORMATS:
                    if args.only in f"{kind}, {form}":
                        onetrainer(one, bench, table, kind, form)
            simpletuner(formats, bench, table)
    return table.end()


if __name__ == "__main__":
    sys.exit(main())
