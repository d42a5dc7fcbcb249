"""ComfyUI's own loaders and sconce: checkpoints by its detection of models, adapter files by its LoRA loader, and what it saves.

    python comfyui.py SCONCE COMFYUI-CHECKOUT

Its table of published models knows widths, so that small ones stand in it under rows without them; all else is its own code.
Key lists at full size (`--full`) meet the table as it is, without weights."""

import json
import logging
import sys

import common
import torch
from common import Bench, Failed, Table, compared, load_file, save_file

LIMIT = 1e-3
ADAPTERS = ["lora", "loha", "lokr", "dora", "oft", "oft-bound", "oft-scaled", "boft", "boft-scaled", "full-difference"]


class Said(logging.Handler):
    """What its code logs about keys that it could not use."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        line = record.getMessage()
        if any(word in line for word in ("not loaded", "NOT LOADED", "ERROR", "MISMATCH", "missing", "unexpected", "left over")):
            self.lines.append(" ".join(line.split()))

    def taken(self):
        lines, self.lines = self.lines, []
        return lines


def imported(checkout):
    """Its modules, told that there is no GPU."""
    sys.path.insert(0, str(checkout.resolve()))
    sys.argv = sys.argv[:1]
    from comfy.cli_args import args

    args.cpu = args.fp32_text_enc = args.fp32_vae = True
    import comfy.clip_model
    import comfy.lora
    import comfy.lora_convert
    import comfy.model_detection
    import comfy.sd
    import comfy.supported_models

    return comfy


def stand_in(comfy, bench):
    """Rows of its table for the small models: those of the family without the widths of the published ones."""
    table = comfy.supported_models
    widths = dict(sd1=dict(use_linear_in_transformer=False, adm_in_channels=None), sd2=dict(use_linear_in_transformer=True, adm_in_channels=None),
                  sdxl=dict(use_linear_in_transformer=True))
    if bench.name in widths:
        base = dict(sd1=table.SD15, sd2=table.SD20, sdxl=table.SDXL)[bench.name]
        row = type("Small", (base,), dict(unet_config=widths[bench.name]))
    elif bench.name == "flux":
        config = bench.case["transformer"]
        heads, size = config["num_attention_heads"], config["attention_head_dim"]

        def of(self, unet_config):
            table.Flux.__init__(self, dict(unet_config, hidden_size=heads * size, num_heads=heads, axes_dim=config["axes_dims_rope"],
                                           context_in_dim=config["joint_attention_dim"]))

        row = type("Small", (table.Flux,), dict(__init__=of))
    else:
        return [table.SD3]
    return [row]


def encoders(bench):
    """The text encoders' dimensions, where its code has the published ones in files."""
    names = {"sd1": ["clip_l"], "sd2": ["clip_h"], "sdxl": ["clip_l", "clip_g"], "flux": ["clip_l", "t5xxl"]}.get(bench.name, ["clip_l", "clip_g", "t5xxl"])
    options = {}
    for name, part in zip(names, bench.encoders(), strict=True):
        config = json.loads((bench.folder / part / "config.json").read_text())
        if "eos_token_id" in config and name != "t5xxl":
            config["eos_token_id"] = config["vocab_size"] - 1
        options[f"{name}_model_config"] = config
    return options


def loaded(comfy, bench, file):
    """Model, text encoders, autoencoder, by its own detection."""
    comfy.supported_models.models = stand_in(comfy, bench)
    comfy.clip_model.CLIPEmbeddings.__init__.__defaults__ = (common.cases.VOCAB, *DEFAULTS[1:])
    vae = bench.case["vae"]
    wide = [c // vae["block_out_channels"][0] for c in vae["block_out_channels"]]
    dims = dict(double_z=True, z_channels=vae["latent_channels"], resolution=256, in_channels=3, out_ch=3, ch=vae["block_out_channels"][0], ch_mult=wide,
                num_res_blocks=vae["layers_per_block"], attn_resolutions=[], dropout=0.0)
    own = comfy.sd.VAE

    class Small(own):
        def __init__(self, sd=None, **more):
            quant = "quant_conv.weight" in sd
            params = dict(ddconfig=dims, embed_dim=vae["latent_channels"])
            target = "comfy.ldm.models.autoencoder." + ("AutoencoderKL" if quant else "AutoencodingEngine")
            if quant:
                super().__init__(sd=sd, config=dict(target=target, params=params), dtype=torch.float32)
                return
            # Without quantising convolutions its constructor builds this class, of dimensions that it finds out for published ones.
            self.first_stage_model = comfy.ldm.models.autoencoder.AutoencodingEngine(
                regularizer_config=dict(target="comfy.ldm.models.autoencoder.DiagonalGaussianRegularizer"),
                encoder_config=dict(target="comfy.ldm.modules.diffusionmodules.model.Encoder", params=dims),
                decoder_config=dict(target="comfy.ldm.modules.diffusionmodules.model.Decoder", params=dims))
            missing, unexpected = self.first_stage_model.load_state_dict(sd, strict=False)
            if missing or unexpected:
                logging.warning(f"VAE keys missing {missing} unexpected {unexpected}")
            self.first_stage_model.eval()

    comfy.sd.VAE = Small
    try:
        out = comfy.sd.load_checkpoint_guess_config(str(file), model_options={"dtype": torch.float32}, te_model_options={"dtype": torch.float32, **encoders(bench)})
    finally:
        comfy.sd.VAE = own
    return out[:3]


def forwards(comfy, bench, model, clip, vae):
    """Its outputs beside diffusers' on the same inputs, by component."""
    g = torch.Generator().manual_seed(3)
    randn = lambda *shape: torch.randn(*shape, generator=g)
    reference, flow = common.reference, common.flow
    net, case = model.model.diffusion_model, bench.case
    found = {}
    with torch.no_grad():
        if bench.denoiser == "unet":
            pipe = reference.load(bench.folder)
            config = pipe.unet.config
            inputs = dict(x=randn(2, config.in_channels, 8, 8), t=torch.tensor([999.0, 37.0]), context=randn(2, 7, config.cross_attention_dim))
            y = None
            if bench.name == "sdxl":
                inputs |= dict(pooled=randn(2, 48), time_ids=torch.tensor([[64.0, 48, 0, 8, 64, 64]] * 2))
                y = torch.cat([inputs["pooled"], pipe.unet.add_time_proj(inputs["time_ids"].flatten()).reshape(2, -1)], 1)
            want = reference.unet_call(pipe, inputs)
            got = net(inputs["x"], inputs["t"], context=inputs["context"], y=y)
        else:
            flow.FLOW_CASES[bench.name], flow.DATA = case, bench.work / "data"
            pipe = flow.load(bench.name)
            config = case["transformer"]
            pooled = config["pooled_projection_dim"]
            inputs = dict(x=randn(2, 16, 8, 8), t=torch.tensor([999.0, 37.0]), context=randn(2, 7, config["joint_attention_dim"]), pooled=randn(2, pooled))
            if bench.name == "flux":
                inputs["guidance"] = torch.tensor([3.5, 1.0])
            want = flow.call(pipe, inputs)
            flux = bench.name == "flux"
            got = net(inputs["x"], inputs["t"] / 1000 if flux else inputs["t"], context=inputs["context"], y=inputs["pooled"],
                      **({"guidance": inputs["guidance"]} if flux else {}))
        found[bench.denoiser] = (want, got)
        z, x = randn(1, case["vae"]["latent_channels"], 4, 4), randn(1, 3, 16, 16)
        found["vae decode"] = (pipe.vae.decode(z).sample, vae.first_stage_model.decode(z))
        moments = vae.first_stage_model.encode(x, unregularized=True)[0] if bench.denoiser == "transformer" else None
        if moments is None:
            moments = vae.first_stage_model.quant_conv(vae.first_stage_model.encoder(x))
        found["vae encode"] = (pipe.vae.encode(x).latent_dist.parameters, moments)
        ids = torch.randint(1, 1600, (2, 77), generator=g)
        ids[:, 15:] = common.cases.EOS
        for name, part in zip([n.removesuffix("_model_config") for n in encoders(bench)], bench.encoders(), strict=True):
            theirs = getattr(clip.cond_stage_model, name).transformer
            mine = getattr(pipe, part)
            if name == "t5xxl":
                small = ids % 1600
                found[part] = (mine(small)[0], theirs(small, None)[0])
                continue
            wanted = mine(ids, output_hidden_states=True)
            # The last layer's state before the norm is no output of both; the state before it and the pooled one are.
            got = theirs(ids, intermediate_output=-2, final_layer_norm_intermediate=False)
            found[part] = (wanted.hidden_states[-2], got[1])
            pooled = wanted.text_embeds if "text_embeds" in wanted else wanted.pooler_output
            found[f"{part} pooled"] = (pooled, got[2] if "text_embeds" in wanted else got[3])
    return found


def sampling(model):
    """What it takes a model to predict, and on which schedule."""
    s = model.model.model_sampling
    kind = model.model.model_type.name
    return f"{kind}, sigma_max {float(s.sigma_max):.4g}"


def weights(comfy, model, clip, merged=None):
    """Its weights by its own names: of the loaded model, or of a single file's tensors."""
    if merged is None:
        return {**model.model.state_dict(), **clip.cond_stage_model.state_dict()}
    config, sd = model.model.model_config, dict(merged)
    net = {f"diffusion_model.{k.removeprefix('model.diffusion_model.')}": t for k, t in sd.items() if k.startswith("model.diffusion_model.")}
    text = config.process_clip_state_dict({k: t for k, t in sd.items() if not k.startswith(("model.diffusion_model.", "first_stage_model.", "vae."))})
    return net | text


def patched(comfy, model, clip, file, scale):
    """Its weights with a file of adapters on them."""
    lora = comfy.utils.load_torch_file(str(file), safe_load=True)
    new_model, new_clip = comfy.sd.load_lora_for_models(model, clip, lora, scale, scale)
    out = {}
    for patcher in (new_model, new_clip.patcher):
        own = patcher.model.state_dict()
        for key, patches in patcher.patches.items():
            out[key] = comfy.lora.calculate_weight(patches, own[key].clone().float(), key)
    return out


def checkpoints(comfy, bench, table, said):
    model, clip, vae = loaded(comfy, bench, bench.single)
    notes = [line for line in said.taken() if "logit_scale" not in line]
    for part, (want, got) in forwards(comfy, bench, model, clip, vae).items():
        scale = want.abs().max().item()
        table.row(bench.name, f"single file: {part}", "sconce→", ((want - got).abs().max().item(), scale, want.numel()), LIMIT * max(scale, 1), "; ".join(notes)[:200])
    print(f"       {bench.name}: {sampling(model)}")
    return model, clip, vae


def markers(comfy, bench, table, said):
    """v and zero terminal SNR as the file says them."""
    for name, changes in {"v": dict(prediction_type="v_prediction"), "v, zero SNR": dict(prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")}.items():
        folder = bench.work / "marked"
        common.shutil.rmtree(folder, ignore_errors=True)
        common.shutil.copytree(bench.folder, folder)
        file = folder / "scheduler/scheduler_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
        out = bench.work / "marked.safetensors"
        out.unlink(missing_ok=True)
        bench.sconce("convert", folder, out)
        told = sampling(loaded(comfy, bench, out)[0])
        said.taken()
        print(f"       {bench.name} saved as {name}: {told}")
        if bench.name == "sdxl":
            right = told.startswith("V_PREDICTION") and ("4519" in told) == ("zero" in name)
            table.row(bench.name, f"markers: {name}", "sconce→", (0 if right else 1, 1, 1), 0.5)


def adapters(comfy, bench, table, said, model, clip):
    base = weights(comfy, model, clip, bench.base())
    for adapter in ADAPTERS:
        # It reads PEFT's names of transformers, not those of UNets.
        for layout in ("kohya", "peft") if bench.denoiser == "transformer" and adapter != "dora" else ("kohya",):
            for scale in (1.0, 0.5) if adapter in ("lora", "loha", "lokr") else (1.0,):
                row = f"{adapter} {layout}" + (f" at {scale}" if scale != 1 else "")
                try:
                    file = bench.trained(adapter, layout)
                    ours = weights(comfy, model, clip, bench.merged(file, scale))
                except Failed as e:
                    if "layout" not in str(e):
                        table.refused(bench.name, row, "sconce→", e)
                    continue
                said.taken()
                theirs = patched(comfy, model, clip, file, scale)
                notes = said.taken()
                if layout == "peft":
                    # Of T5 it reads no such names.
                    t5 = "text_encoder_2." if bench.name == "flux" else "text_encoder_3."
                    notes = [line for line in notes if t5 not in line]
                    ours = {k: base[k] if k.startswith("t5xxl.") else t for k, t in ours.items()}
                note = f"{len(notes)} of its lines: {notes[0][:110]}" if notes else ""
                table.row(bench.name, row, "sconce→", compared(ours, base | theirs, base), LIMIT, note)


def saved(comfy, bench, table, model, clip, vae):
    """Its own checkpoint, back in sconce."""
    names = clip.cond_stage_model.state_dict()
    sd = model.model.state_dict_for_saving(names, vae.first_stage_model.state_dict())
    file, out = bench.work / "theirs.safetensors", bench.work / "theirs"
    # The configs of a small model can be told from no width: they are handed on in the header.
    header = {"sconce.configs": common.header(bench.single)["sconce.configs"]}
    save_file({k: t.contiguous().clone() for k, t in sd.items()}, file, header)
    common.shutil.rmtree(out, ignore_errors=True)
    try:
        bench.sconce("convert", file, out)
    except Failed as e:
        return table.refused(bench.name, "checkpoint it saves", "→sconce", e)
    ours, want = common.components(out), common.components(bench.folder)
    off, count = 0.0, 0
    for part, tensors in want.items():
        for key, tensor in tensors.items():
            found = ours[part].get(key, ours[part].get(f"text_model.{key}", ours[part].get(key.removeprefix("text_model."))))
            if found is None:
                if key != "pos_embed.pos_embed":
                    return table.refused(bench.name, "checkpoint it saves", "→sconce", f"no {part}/{key}")
                continue
            off, count = max(off, (found - tensor).abs().max().item()), count + 1
    table.row(bench.name, "checkpoint it saves", "→sconce", (off, 1, count), 0)


def extract(comfy, bench, model, clip, kind, bias, rank=4):
    """A file by its node that extracts a LoRA from two models: this one, and one moved away from it."""
    sys.modules.setdefault("folder_paths", type(sys)("folder_paths"))
    import comfy_extras.nodes_lora_extract as node

    other, other_clip = model.clone(), clip.clone()
    g = torch.Generator().manual_seed(5)
    for patcher, starts in ((other, "diffusion_model."), (other_clip.patcher, "")):
        own = patcher.model.state_dict()
        # It has a projection for every CLIP, of which most models have none.
        there = lambda k: "text_projection" not in k or bench.name.startswith("sd3") or (bench.name == "sdxl" and k.startswith("clip_g."))
        moved = {k: (0.02 * torch.randn(t.shape, generator=g),) for k, t in own.items() if k.startswith(starts) and k.endswith((".weight", ".bias")) and t.is_floating_point() and there(k)}
        patcher.add_patches(moved)
    sd = {}
    lora_type = node.LORAType.STANDARD if kind == "standard" else node.LORAType.FULL_DIFF
    # What its ModelSubtract gives: the one model less the other.
    for patcher, base, prefix, out in ((other, model, "diffusion_model.", "diffusion_model."), (other_clip.patcher, clip.patcher, "", "text_encoders.")):
        if prefix == "" and bias == "unet alone":
            continue
        for key, patch in base.get_key_patches(prefix or None).items():
            patcher.add_patches({key: patch}, -1.0, 1.0)
        node.calc_lora_model(patcher, rank, prefix, out, sd, lora_type, bias_diff=bias == "with norms and biases")
        patcher.unpatch_model()
    file = bench.work / "extracted.safetensors"
    save_file(sd, file)
    return file


def extracted(comfy, bench, table, said, model, clip, kind, bias):
    file = extract(comfy, bench, model, clip, kind, bias)
    row = f"extracted {kind}, {bias}"
    said.taken()
    theirs = patched(comfy, model, clip, file, 1.0)
    notes = said.taken()
    try:
        ours = weights(comfy, model, clip, bench.merged(file))
    except Failed as e:
        return table.refused(bench.name, row, "→sconce", str(e)[:300])
    base = weights(comfy, model, clip, bench.base())
    theirs = {k: t for k, t in theirs.items() if k in base}  # without the projections that no file has
    table.row(bench.name, row, "→sconce", compared(ours, base | theirs, base), 1e-4, notes[0][:120] if notes else "")


def full(comfy, table, said):
    """The table as it is, and key lists at full size."""
    comfy.supported_models.models = list(OWN)
    comfy.clip_model.CLIPEmbeddings.__init__.__defaults__ = DEFAULTS
    lists = common.ROOT / "tests/fixtures/data/single"
    for path in sorted(lists.glob("*.txt")):
        sd = {}
        for line in path.read_text().splitlines():
            key, shape = line.split(" ")[:2]
            sd[key] = torch.empty([int(n) for n in shape.split(",") if n], device="meta")
        prefix = comfy.model_detection.unet_prefix_from_state_dict(sd)
        config = comfy.model_detection.model_config_from_unet(sd, prefix)
        with torch.device("meta"):
            config.set_inference_dtype(torch.float16, None)
            model = type(config).get_model(config, {k: t for k, t in sd.items() if "norm1.bias" not in k}, prefix, device="meta")
            want = {k: t.shape for k, t in model.diffusion_model.state_dict().items()}
            got = {k.removeprefix(prefix): t.shape for k, t in config.process_unet_state_dict({k: t for k, t in sd.items() if k.startswith(prefix)}).items()}
            wrong = [k for k in want.keys() | got.keys() if want.get(k) != got.get(k)]
            note = f"{len(wrong)} other: {wrong[:2]}" if wrong else ""
            target = config.clip_target(state_dict=sd)
            text = config.process_clip_state_dict({k: t for k, t in sd.items() if not k.startswith(prefix)})
            clip = target.clip(device="meta", dtype=torch.float16)
            own = {k: t.shape for k, t in clip.state_dict().items()}
            strange = [k for k, t in text.items() if own.get(k) != t.shape and ".position_ids" not in k]
            missing = [k for k in own if k not in text and "logit_scale" not in k and "text_projection" not in k]
            saved = model.state_dict_for_saving({k: t for k, t in clip.state_dict().items()}, None)
            new = [k for k in saved if k not in sd]
        if new:
            print(f"       {path.stem}: what it saves has {len(new)} names more: {', '.join(new[:4])}")
        if strange or missing:
            note += f" encoders: {len(strange)} other {strange[:2]}, {len(missing)} missing {missing[:2]}"
        print(f"       {path.stem}: {type(config).__name__}, {type(model).__name__}, {model.model_type.name}, {type(clip).__name__}")
        table.row(path.stem[:6], f"{path.stem}: keys at full size", "sconce→", (0, 1, len(want) + len(text)), 0, note)


def main():
    args = common.arguments(__doc__, "checkout")
    comfy = imported(args.checkout)
    global OWN, DEFAULTS
    OWN = comfy.supported_models.models
    DEFAULTS = comfy.clip_model.CLIPEmbeddings.__init__.__defaults__  # the first is the vocabulary's size
    said = Said()
    logging.getLogger().handlers = [said]
    table = Table("ComfyUI")
    with common.workplace(args.keep) as work, torch.no_grad():
        if "full" in args.only or not args.only:
            full(comfy, table, said)
        for name in args.models:
            bench = Bench(args.program, name, work)
            model, clip, vae = checkpoints(comfy, bench, table, said)
            if name in ("sd1", "sd2", "sdxl"):
                markers(comfy, bench, table, said)
            saved(comfy, bench, table, model, clip, vae)
            adapters(comfy, bench, table, said, model, clip)
            for kind in ("standard", "full_diff"):
                for bias in ("unet alone", "with encoders", "with norms and biases"):
                    extracted(comfy, bench, table, said, model, clip, kind, bias)
    return table.end()


if __name__ == "__main__":
    sys.exit(main())
