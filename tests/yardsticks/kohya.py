"""kohya's sd-scripts and sconce: files of sconce in its networks, and files that its networks save in sconce.

    python kohya.py SCONCE SD-SCRIPTS-CHECKOUT

Its SDXL UNet has one size: here its classes' names stand at the same places of a small one, which is all that its networks ask for.
Its own `merge_to` gives the weights that are compared. `library.train_util` is needed for two hashes in a header, and does not import
beside transformers 5, so a stand-in gives none."""

import inspect
import logging
import sys
import types

import common
import torch
from common import Bench, Failed, Table, compared, load_file, stirred
from torch import nn

SINGLE = "model.diffusion_model."


def imported(checkout):
    sys.path.insert(0, str(checkout.resolve()))
    hashes = types.ModuleType("library.train_util")
    hashes.precalculate_safetensors_hashes = lambda *_: ("", "")
    import library

    library.train_util = sys.modules["library.train_util"] = hashes
    import networks.lora
    import networks.lora_flux
    import networks.lora_sd3
    import networks.oft
    import networks.oft_flux
    from library import flux_models, sd3_utils, sdxl_original_unet

    logging.disable(logging.WARNING)
    return types.SimpleNamespace(lora=networks.lora, lora_flux=networks.lora_flux, lora_sd3=networks.lora_sd3, oft=networks.oft, oft_flux=networks.oft_flux,
                                 flux=flux_models, sd3=sd3_utils, sdxl=sdxl_original_unet)


def leaf(weights, path):
    """A layer of these weights, if it is one."""
    weight = weights.get(f"{path}.weight")
    if weight is None or weight.dim() not in (2, 4):
        return None
    bias = f"{path}.bias" in weights
    if weight.dim() == 2:
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias)
    else:
        stride = 2 if path.endswith(".op") else 1
        layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], stride=stride, padding=weight.shape[2] // 2, bias=bias)
    layer.load_state_dict({k: weights[f"{path}.{k}"] for k in ("weight", "bias") if f"{path}.{k}" in weights})
    return layer


def sdxl_unet(kohya, weights):
    """A small UNet's layers at the places, under the classes' names, that kohya's own has."""
    kinds = {"proj_in": "Transformer2DModel", "in_layers": "ResnetBlock2D", "op": "Downsample2D", "conv": "Upsample2D"}
    root = type("SdxlUNet2DConditionModel", (kohya.sdxl.SdxlUNet2DConditionModel,), {"__init__": nn.Module.__init__})()
    for path in sorted({k.rsplit(".", 1)[0] for k in weights}):
        layer = leaf(weights, path)
        if layer is None:
            continue
        at = root
        names = path.split(".")
        for name in names[:-1]:
            if name not in at._modules:
                at.add_module(name, nn.Module())
            at = at._modules[name]
        at.add_module(names[-1], layer)
    for module in root.modules():
        for child, kind in kinds.items():
            if child in module._modules and module is not root:
                module.__class__ = type(kind, (nn.Module,), {})
    return root


def with_text_model(encoder):
    """transformers 5 leaves `text_model` out of CLIPTextModel's names; kohya's files are those of transformers 4."""
    if hasattr(encoder, "text_model") or not type(encoder).__name__.startswith("CLIP"):
        return encoder
    outer = nn.Module()
    outer.text_model = encoder
    return outer


class Models:
    """A small model in kohya's classes."""

    def __init__(self, kohya, bench):
        single = load_file(bench.single)
        own = {k.removeprefix(SINGLE): t for k, t in single.items() if k.startswith(SINGLE)}
        self.bench = bench
        if bench.denoiser == "unet":
            pipe = common.reference.load(bench.folder)
            self.net = sdxl_unet(kohya, own) if bench.name == "sdxl" else pipe.unet
        else:
            common.flow.FLOW_CASES[bench.name], common.flow.DATA = bench.case, bench.work / "data"
            pipe = common.flow.load(bench.name)
            if bench.name == "flux":
                c = bench.case["transformer"]
                heads, size = c["num_attention_heads"], c["attention_head_dim"]
                params = kohya.flux.FluxParams(in_channels=c["in_channels"], vec_in_dim=c["pooled_projection_dim"], context_in_dim=c["joint_attention_dim"], hidden_size=heads * size,
                                               mlp_ratio=4.0, num_heads=heads, depth=c["num_layers"], depth_single_blocks=c["num_single_layers"], axes_dim=c["axes_dims_rope"],
                                               theta=10000, qkv_bias=True, guidance_embed=c["guidance_embeds"])
                self.net = kohya.flux.Flux(params)
                self.net.load_state_dict(own)
            else:
                self.net = kohya.sd3.load_mmdit(dict(single), torch.float32, "cpu")
        self.encoders = [with_text_model(getattr(pipe, part)) for part in bench.encoders()]

    def text(self):
        return self.encoders if len(self.encoders) > 1 else self.encoders[0]

    def weights(self):
        """Every weight by a name that `ours` has too."""
        found = {f"net.{k}": t.clone() for k, t in self.net.state_dict().items()}
        for part, encoder in zip(self.bench.encoders(), self.encoders, strict=True):
            found |= {f"{part}.{k.removeprefix('text_model.')}": t.clone() for k, t in encoder.state_dict().items()}
        return found

    def ours(self, file=None, scale=1.0):
        """sconce's weights with a file merged, or none, under the same names."""
        folder = self.bench.merged_folder(file, scale) if file else common.components(self.bench.folder)
        if self.bench.name in ("sd1", "sd2"):
            net = folder["unet"]
        else:
            single = self.bench.merged(file, scale) if file else load_file(self.bench.single)
            net = {k.removeprefix(SINGLE): t for k, t in single.items() if k.startswith(SINGLE)}
        found = {f"net.{k}": t for k, t in net.items()}
        for part in self.bench.encoders():
            found |= {f"{part}.{k.removeprefix('text_model.')}": t for k, t in folder[part].items()}
        return found

    def network(self, module, file):
        """Its network for a file, and what of the file it has no layer for."""
        network, sd = module.create_network_from_weights(1.0, str(file), None, self.text(), self.net, for_inference=True)
        loras = getattr(network, "unet_loras", None) or getattr(network, "unet_ofts", [])
        names = {getattr(m, "lora_name", None) or m.oft_name for m in loras + getattr(network, "text_encoder_loras", [])}
        return network, sd, sorted({k.split(".")[0] for k in sd} - names)


def module_of(kohya, name):
    return {"flux": kohya.lora_flux, "sd3": kohya.lora_sd3, "sd35": kohya.lora_sd3}.get(name, kohya.lora)


def merged(models, module, network, sd):
    """The weights with its network merged into them, by its own code."""
    if not hasattr(network, "unet_ofts") or "flux" not in module.__name__:
        network.merge_to(models.text(), models.net, sd, torch.float32, "cpu")
        return models.weights()
    # Its OFT for FLUX.1 cannot merge what it splits: it is asked for its outputs.
    found = models.weights()
    network.apply_to(models.text(), models.net, False, True)
    assert not network.load_state_dict(sd, strict=False).unexpected_keys
    places = {id(m): n for n, m in models.net.named_modules()}
    with torch.no_grad():
        for oft in network.unet_ofts:
            if f"{oft.oft_name}.alpha" not in sd:
                continue
            layer = oft.org_module[0]
            found[f"net.{places[id(layer)]}.weight"] = common.effective(layer)
    return found


def both(kohya, bench, table, row, direction, file, module, limit):
    models = Models(kohya, bench)
    base = models.weights()
    network, sd, unmatched = models.network(module, file)
    theirs = merged(models, module, network, sd)
    try:
        ours = models.ours(file)
    except Failed as e:
        return table.refused(bench.name, row, direction, e)
    found = compared(ours, {k: t for k, t in theirs.items() if k in ours}, {k: t for k, t in base.items() if k in ours})
    note = f"{len(unmatched)} names without a layer: {unmatched[:2]}" if unmatched else ""
    table.row(bench.name, row, direction, found, limit, note)


class Split(list):
    """Rows of queries, keys, values and the MLP. kohya's constructor unpacks the slice of three as one."""

    building = True

    def __getitem__(self, at):
        found = list.__getitem__(self, at)
        return [found] if self.building and isinstance(at, slice) else found


def written(kohya, bench, work):
    """name -> (file, module): what its networks save, with values that are not those of the start."""
    module, out = module_of(kohya, bench.name), {}

    def save(name, module, **how):
        models = Models(kohya, bench)
        network = module.create_network(1.0, how.pop("dim", 3), how.pop("alpha", 2.0), None, models.text(), models.net, **how)
        network.apply_to(models.text(), models.net)
        stirred(network, size=how.get("size", 0.1))
        file = work / f"kohya-{name}.safetensors"
        if isinstance(getattr(network, "get_qkv_mlp_split_dims", lambda: None)(), Split):
            Split.building = False
        network.save_weights(str(file), None, {})
        Split.building = True
        out[name] = (file, module)

    save("lora", module)
    if bench.name in ("sd1", "sd2", "sdxl"):
        save("lora, convolutions", module, conv_dim=2, conv_alpha=1.0)
        # Its loader knows convolutions by SDXL's names alone.
        save("oft", kohya.oft, dim=2, alpha=0.01, enable_all_linear=True, enable_conv=True if bench.name == "sdxl" else None)
    if bench.name == "flux":
        wide = models_width(bench)
        module.LoRANetwork.get_qkv_mlp_split_dims = classmethod(lambda cls: Split([wide, wide, wide, 4 * wide]))
        save("lora, split rows", module, split_qkv="True")
        save("lora, T5 and embedders", module, train_t5xxl="True", in_dims="[2,2,2,2,2]")
        in_own_width(kohya.oft_flux, wide)
        save("oft", kohya.oft_flux, dim=4, alpha=0.01, enable_all_linear="True")
    if bench.name in ("sd3", "sd35"):
        save("lora, split rows", module, split_qkv="True")
        save("lora, T5 and embedders", module, train_t5xxl="True", emb_dims="[2,2,2,2,2,2]")
    return out


def in_own_width(module, width):
    """Its OFT for FLUX.1 knows the rows of queries, keys and values by the full-size model's width."""
    text = inspect.getsource(module.OFTNetwork)
    assert "[3072] * 3 + [12288]" in text
    exec(text.replace("3072", str(width)).replace("12288", str(4 * width)), vars(module))


def models_width(bench):
    config = bench.case["transformer"]
    return config["num_attention_heads"] * config["attention_head_dim"]


def main():
    args = common.arguments(__doc__, "checkout")
    kohya = imported(args.checkout)
    table = Table("kohya")
    with common.workplace(args.keep) as work:
        for name in args.models:
            bench = Bench(args.program, name, work)
            file = bench.trained("lora", "kohya")
            both(kohya, bench, table, "lora kohya", "sconce→", file, module_of(kohya, name), 1e-3)
            if name in ("sd1", "sdxl"):
                file = bench.trained("lora", "kohya", dtype="f16")
                both(kohya, bench, table, "lora kohya, f16", "sconce→", file, module_of(kohya, name), 1e-3)
            for what, (file, module) in written(kohya, bench, bench.work).items():
                both(kohya, bench, table, what, "→sconce", file, module, 1e-4)
    return table.end()


if __name__ == "__main__":
    sys.exit(main())
