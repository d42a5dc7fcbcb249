"""LyCORIS and sconce: files of sconce in its networks, and files that its networks save in sconce.

    python lyco.py SCONCE SD-SCRIPTS-CHECKOUT

On kohya's models (names `lora_unet_`, as it is used there) and on diffusers' (names `lycoris_`, as SimpleTuner uses it). Compared is
what a layer gives for an input: its merged weights are no yardstick, since those of LoHa and LoKr have alpha / rank twice."""

import logging
import sys

import common
import kohya as scripts
import torch
from common import Bench, Failed, Table, load_file, stirred
from torch import nn
from torch.nn import functional as F

# What is asked of it, by the row's name.
ALGOS = {
    "lora": dict(algo="lora"),
    "lora, Tucker": dict(algo="lora", use_tucker=True),
    "lora, root of the rank": dict(algo="lora", rs_lora=True),
    "lora, a scalar": dict(algo="lora", use_scalar=True),
    "dora": dict(algo="lora", dora_wd=True),
    "dora of inputs": dict(algo="lora", dora_wd=True, wd_on_output=False),
    "loha": dict(algo="loha"),
    "loha, Tucker": dict(algo="loha", use_tucker=True),
    "dora of loha": dict(algo="loha", dora_wd=True),
    "lokr": dict(algo="lokr", factor=4),
    "lokr, both": dict(algo="lokr", factor=4, decompose_both=True),
    "lokr, full": dict(algo="lokr", full_matrix=True),
    "lokr, Tucker": dict(algo="lokr", factor=4, use_tucker=True),
    "dora of lokr": dict(algo="lokr", factor=4, dora_wd=True),
    "full": dict(algo="full"),
    "oft": dict(algo="diag-oft"),
    "oft, bound and rescaled": dict(algo="diag-oft", constraint=0.001, rescaled=True),
    "boft": dict(algo="boft"),
    "boft, rescaled": dict(algo="boft", rescaled=True),
    "ia3": dict(algo="ia3"),
    "glora": dict(algo="glora"),
    "lora and norms": dict(algo="lora", train_norm=True),
}
ADAPTERS = ["lora", "loha", "lokr", "dora", "oft", "oft-bound", "oft-scaled", "boft", "boft-scaled", "full-difference", "ia3"]


def imported():
    import lycoris.kohya
    import lycoris.wrapper

    logging.disable(logging.CRITICAL)
    # Its preset names a UNet's time embedding twice, by class and by name, and then refuses it.
    lycoris.kohya.PRESET["full"] = {**lycoris.kohya.PRESET["full"], "unet_target_name": []}
    return lycoris


class Diffusers:
    """A small model in diffusers' classes; names in files begin with `lycoris_` or, from sconce, as kohya's do."""

    def __init__(self, bench):
        if bench.denoiser == "unet":
            pipe = common.reference.load(bench.folder)
        else:
            common.flow.FLOW_CASES[bench.name], common.flow.DATA = bench.case, bench.work / "data"
            pipe = common.flow.load(bench.name)
        self.bench, self.net = bench, getattr(pipe, bench.denoiser)
        self.encoders = []

    def ours(self, file=None):
        folder = self.bench.merged_folder(file) if file else common.components(self.bench.folder)
        return {f"net.{k}": t for k, t in folder[self.bench.denoiser].items()}


def probe(module, weight, bias, generator):
    """What a layer with its adapter gives for an input, and what these weights give."""
    if isinstance(module, nn.Linear):
        x = torch.randn(3, module.in_features, generator=generator)
        return module(x), F.linear(x, weight, bias)
    if isinstance(module, nn.Conv2d):
        x = torch.randn(1, module.in_channels, 5, 6, generator=generator)
        return module(x), F.conv2d(x, weight, bias, module.stride, module.padding)
    if isinstance(module, nn.GroupNorm):
        x = torch.randn(2, module.num_channels, 3, 3, generator=generator)
        return module(x), F.group_norm(x, module.num_groups, weight, bias, module.eps)
    x = torch.randn(3, module.normalized_shape[0], generator=generator)
    return module(x), F.layer_norm(x, module.normalized_shape, weight, bias, module.eps)


def held(models, loras, ours):
    """The largest difference of what layers give, the largest change, and their number."""
    places = {id(m): f"net.{n}" for n, m in models.net.named_modules()}
    for part, encoder in zip(models.bench.encoders(), models.encoders):
        places |= {id(m): f"{part}.{n.removeprefix('text_model.')}" for n, m in encoder.named_modules()}
    base, generator = models.ours(), torch.Generator().manual_seed(11)
    off = change = 0.0
    with torch.no_grad():
        for lora in loras:
            module = lora.org_module[0]
            place = places[id(module)]
            state = generator.get_state()
            want, got = probe(module, ours[f"{place}.weight"], ours.get(f"{place}.bias"), generator)
            generator.set_state(state)
            _, was = probe(module, base[f"{place}.weight"], base.get(f"{place}.bias"), generator)
            off, change = max(off, (want - got).abs().max().item()), max(change, (want - was).abs().max().item())
    return off, change, len(loras)


def theirs_here(lycoris, models, bench, table, naming, row, how):
    """A network of theirs, saved and read here."""
    how = dict(how)
    dims = dict(network_dim=3, network_alpha=2.0) if naming == "kohya" else dict(linear_dim=3, linear_alpha=2.0)
    if "oft" in row or "boft" in row:
        dims = {k: (4 if "dim" in k else v) for k, v in dims.items()}
    try:
        if naming == "kohya":
            network = lycoris.kohya.create_network(1.0, *dims.values(), None, models.text(), models.net, conv_dim=2, conv_alpha=1.0, warn_on_unmatched=False, preset="full", **how)
            stirred(network, size=0.05)
            network.apply_to(models.text(), models.net, True, True)
        else:
            network = lycoris.wrapper.create_lycoris(models.net, 1.0, *dims.values(), conv_dim=2, conv_alpha=1.0, warn_on_unmatched=False, preset="full", **how)
            network.apply_to()
        stirred(network, size=0.1)
        if "scalar" in row:
            for name, p in network.named_parameters():
                if name.endswith("scalar"):
                    p.data.fill_(0.7)
        file = bench.work / f"lycoris-{naming}.safetensors"
        network.save_weights(str(file), None, {})
    except Exception as e:
        print(f"{bench.name:6} {row + ', ' + naming:34} LyCORIS itself: {type(e).__name__} {str(e)[:120]}")
        return
    try:
        found = held(models, network.loras, models.ours(file))
        table.row(bench.name, f"{row}, {naming}", "→sconce", found, 1e-4 * max(found[1], 1))
    except Failed as e:
        table.refused(bench.name, f"{row}, {naming}", "→sconce", str(e)[-260:])
    finally:
        for lora in network.loras:
            lora.restore()


def ours_there(lycoris, models, bench, table, naming, adapter):
    """A file of sconce's on their network."""
    try:
        file = bench.trained(adapter, "kohya")
        ours = models.ours(file)
    except Failed as e:
        if "layout" not in str(e):
            table.refused(bench.name, f"{adapter} kohya", "sconce→", e)
        return
    lycoris.kohya.LycorisNetworkKohya.apply_preset(dict(unet_target_name=[]))
    try:
        network, sd = lycoris.kohya.create_network_from_weights(1.0, str(file), None, models.text(), models.net)
    except Exception as e:
        return table.refused(bench.name, f"{adapter} kohya", "sconce→", f"LyCORIS: {type(e).__name__} {' '.join(str(e).split())[:200]}")
    loras = network.unet_loras + network.text_encoder_loras
    unmatched = sorted({k.split(".")[0] for k in sd} - {m.lora_name for m in loras})
    network.apply_to(models.text(), models.net, True, True)
    found = held(models, loras, ours)
    table.row(bench.name, f"{adapter} kohya", "sconce→", found, 1e-3, f"{len(unmatched)} names without a layer: {unmatched[:2]}" if unmatched else "")
    for lora in loras:
        lora.restore()


def main():
    args = common.arguments(__doc__, "checkout")
    module, lycoris = scripts.imported(args.checkout), imported()
    table = Table("LyCORIS")
    with common.workplace(args.keep) as work:
        for name in args.models:
            bench = Bench(args.program, name, work)
            for adapter in ADAPTERS:
                if args.only in f"sconce {adapter}":
                    ours_there(lycoris, scripts.Models(module, bench), bench, table, "kohya", adapter)
            for naming, make in (("kohya", lambda: scripts.Models(module, bench)), ("lycoris", lambda: Diffusers(bench))):
                for row, how in ALGOS.items():
                    if args.only in f"{row}, {naming}":
                        theirs_here(lycoris, make(), bench, table, naming, row, how)
    return table.end()


if __name__ == "__main__":
    sys.exit(main())
