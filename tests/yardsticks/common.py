"""What the yardsticks share: small models in both layouts, adapters that sconce trains on them, and a table of results.

The models have the whole architecture of the published ones where other programs' code knows a number by heart (32 groups in
every norm, heads of 64), and small widths everywhere else. Their weights are the fixtures' formula."""

import argparse
import contextlib
import copy
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
warnings.filterwarnings("ignore")
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tests/fixtures"))

import torch
import diffusers
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import cases
import flow
import flow_cases
import reference

torch.set_num_threads(1)
for library in (diffusers, transformers):
    library.utils.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()

# Projections of the pooled states are square, as they are in every published encoder.
CLIP_L, CLIP_G = dict(flow_cases.CLIP_L, projection_dim=32), dict(cases.BIG_TEXT, hidden_size=48, num_attention_heads=6, projection_dim=48)
VAE = cases.vae((32, 32, 64, 64), norm_num_groups=32, layers_per_block=1)
KL = flow_cases.kl((32, 64), norm_num_groups=32)
MODELS = {
    "sd1": dict(
        cases.CASES["sd1-a"], vae=VAE, size=(8, 8),
        unet=cases.unet((32, 64, 64, 64), "CCCD", "DCCC", norm_num_groups=32, attention_head_dim=8),
    ),
    "sd2": dict(
        cases.CASES["sd2-a"], vae=VAE, size=(8, 8), text=dict(cases.SD2_TEXT, hidden_size=48, num_attention_heads=6),
        unet=cases.unet((64, 64, 128, 128), "CCCD", "DCCC", norm_num_groups=32, attention_head_dim=[1, 1, 2, 2], use_linear_projection=True,
                        cross_attention_dim=48),
    ),
    "sdxl": dict(
        cases.CASES["sdxl-a"], vae=dict(VAE, scaling_factor=0.13025, force_upcast=True), size=(8, 8),
        text_2=CLIP_G,
        unet=cases.xl((64, 64, 128), "DCC", "CCD", 16, context=80, pooled=48, norm_num_groups=32, attention_head_dim=[1, 1, 2], transformer_layers_per_block=[1, 1, 2],
                      use_linear_projection=True),
    ),
    "sd3": dict(
        flow_cases.FLOW_CASES["sd3-a"], vae=KL, size=(8, 8), text=CLIP_L, text_2=CLIP_G,
        transformer=flow_cases.mmdit(attention_head_dim=64, num_attention_heads=2, caption_projection_dim=128, pooled_projection_dim=80, pos_embed_max_size=16),
    ),
    "sd35": dict(
        flow_cases.FLOW_CASES["sd3-a"], vae=KL, size=(8, 8), text=CLIP_L, text_2=CLIP_G,
        transformer=flow_cases.mmdit(attention_head_dim=64, num_attention_heads=2, caption_projection_dim=128, pooled_projection_dim=80, pos_embed_max_size=16,
                                     _diffusers_version="0.31.0.dev0", qk_norm="rms_norm", dual_attention_layers=[0]),
    ),
    "flux": dict(flow_cases.FLOW_CASES["flux-a"], vae=KL, size=(8, 8)),
}
# Layers of every kind that all of these programs know by name, in sconce's own names.
UNET = ["unet.down_blocks.1.attentions.0.*", "unet.up_blocks.1.attentions.0.*", "unet.mid_block.*.attn*.to_*"]
CONV = ["unet.*.resnets.0.conv1", "unet.*.conv_shortcut", "unet.*samplers.0.conv", "unet.*.time_emb_proj"]
TEXT = ["text_encoder*.q_proj", "text_encoder*.v_proj", "text_encoder*.out_proj", "text_encoder*.fc1"]
T5 = ["text_encoder*.SelfAttention.q", "text_encoder*.SelfAttention.o", "text_encoder*.wi_1"]
MMDIT = ["transformer.transformer_blocks.*"]
TARGETS = {
    "sd1": UNET + CONV + TEXT, "sd2": UNET + CONV + TEXT, "sdxl": UNET + CONV + TEXT, "sd3": MMDIT + TEXT + T5, "sd35": MMDIT + TEXT + T5,
    "flux": [*MMDIT, "transformer.single_transformer_blocks.*"] + TEXT + T5,
}
# The recipes' adapters.
ADAPTERS = {
    "lora": 'type = "lora"\nrank = 3\nalpha = 2.0',
    "loha": 'type = "loha"\nrank = 2\nalpha = 1.0',
    "lokr": 'type = "lokr"\nrank = 2\nalpha = 1.0',
    "dora": 'type = "dora"',
    "oft": 'type = "oft"\nblock = 8',
    "oft-bound": 'type = "oft"\nblock = 8\nconstraint = 1e-4',
    "oft-scaled": 'type = "oft"\nblock = 8\nrescale = true',
    "boft": 'type = "boft"\nblock = 16',
    "boft-scaled": 'type = "boft"\nblock = 16\nrescale = true',
    "full-difference": 'type = "full-difference"',
    "ia3": 'type = "ia3"',
}


def arguments(about, *checkouts):
    """The command line of a yardstick: the program, the checkouts it needs, the models to try."""
    p = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("program", type=Path, help="sconce")
    for name in checkouts:
        p.add_argument(name, type=Path, help="a folder of that program's source")
    p.add_argument("--models", nargs="*", choices=list(MODELS), default=list(MODELS))
    p.add_argument("--only", default="", help="what the rows to try contain")
    p.add_argument("--keep", type=Path, help="a folder to keep what is written in")
    return p.parse_args()


class Failed(Exception):
    """sconce refused: its last words."""


class Bench:
    """A small model in a folder of its own, in both layouts, and sconce at work on it."""

    def __init__(self, program, name, work, case=None):
        self.program, self.name, self.work = Path(program).resolve(), name, Path(work) / name
        self.work.mkdir(parents=True, exist_ok=True)
        self.case = case or MODELS[name]
        self.folder, self.single = self.work / "model", self.work / "model.safetensors"
        if not self.folder.exists():
            self._assemble()
            self.sconce("convert", self.folder, self.single)

    def _assemble(self):
        data = self.work / "data"
        data.mkdir(exist_ok=True)
        for tokenizer in ("tokenizer", "tokenizer-t5"):
            (data / tokenizer).symlink_to(ROOT / "tests/fixtures/data" / tokenizer)
        maker, table = (flow, flow_cases.FLOW_CASES) if "transformer" in self.case else (reference, cases.CASES)
        maker.DATA, table[self.name] = data, self.case
        maker.write_model(self.name)
        maker.assemble(self.name, self.folder)
        pictures = self.work / "pictures"
        pictures.mkdir()
        for picture in ("ant", "banana", "bear", "bee"):
            shutil.copy(ROOT / f"configs/quickstart/data/{picture}.webp", pictures)
            (pictures / f"{picture}.txt").write_text(picture)

    @property
    def denoiser(self):
        return "transformer" if "transformer" in self.case else "unet"

    def encoders(self):
        """The text encoders' components, in order."""
        return sorted(p.name for p in self.folder.glob("text_encoder*"))

    def sconce(self, *words):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SCONCE_")} | {"SCONCE_CACHE": str(self.work / "cache")}
        done = subprocess.run([self.program, *map(str, words)], cwd=self.work, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise Failed(" ".join(done.stderr.split())[-400:])
        return done.stdout + done.stderr

    def trained(self, adapter, layout, targets=None, dtype="f32", more=""):
        """The file of a short run."""
        run = self.work / f"{adapter}-{layout}{'-' + dtype if dtype != 'f32' else ''}"
        if not run.exists():
            targets = targets or TARGETS[self.name]
            if adapter.startswith("boft") and self.denoiser == "transformer":
                # A butterfly needs a power of two of blocks, which the modulations' widths are not.
                targets = ["transformer.*.attn*.to_*", "transformer.*.ff.net.*"] + TEXT + T5
            listed = ", ".join(f'"{t}"' for t in targets)
            table = ADAPTERS[adapter]
            # DoRA is around another.
            on = f'targets = [{listed}]' if adapter != "dora" else f'of = {{ type = "lora", rank = 3, alpha = 2.0, targets = [{listed}] }}'
            if adapter == "ia3":
                on += '\ninputs = ["*.net.2"]'
            components = ", ".join(f"{c} = 1.0" for c in [self.denoiser, *self.encoders()] if any(t.startswith(c) or (c.startswith("text") and t.startswith("text_encoder*")) for t in targets))
            length = "max_sequence_length = 25\n" if self.denoiser == "transformer" else ""
            recipe = (
                f'[model]\npath = "model"\n{length}[adapter]\n{table}\n{on}\n[optimizer]\ntype = "adamw"\nlr = 2e-2\n'
                f'[data]\nbatch = 2\n[[data.source]]\npath = "pictures"\nresolution_px = 64\n[train]\nimages = 8\nseed = 4\n'
                f'components = {{ {components} }}\n[sampling]\nsteps = 2\n[output]\nadapter_layouts = ["{layout}"]\ndtype = "{dtype}"\n{more}'
            )
            (self.work / f"{run.name}.toml").write_text(recipe)
            self.sconce("train", f"{run.name}.toml", "--out", run.name)
        return next(run.glob(f"*-{layout}.safetensors"))

    def base(self):
        return load_file(self.single)

    def merged(self, file, scale=1.0):
        """The model with a file merged, under the single file's names."""
        out = self.work / "merged.safetensors"
        out.unlink(missing_ok=True)
        self.sconce("merge", self.folder, out, "--lora", f"{file}:{scale}", "--dtype", "f32")
        return load_file(out)

    def merged_folder(self, file, scale=1.0):
        """The same by component."""
        out = self.work / "merged"
        shutil.rmtree(out, ignore_errors=True)
        self.sconce("merge", self.folder, out, "--lora", f"{file}:{scale}", "--dtype", "f32")
        return components(out)


def components(folder):
    """component -> key -> tensor of a diffusers folder."""
    return {p.parent.name: load_file(p) for p in sorted(Path(folder).glob("*/*.safetensors"))}


def header(file):
    """A file's own words."""
    with safe_open(file, "pt") as opened:
        return opened.metadata() or {}


def compared(ours, theirs, base):
    """The largest difference of two models, the largest change that both should have made, and how many tensors changed."""
    off = change = 0.0
    count = 0
    for key, want in theirs.items():
        got, was = ours[key].float(), base[key].float()
        off = max(off, (got - want.float().reshape(got.shape)).abs().max().item())
        moved = (want.float().reshape(was.shape) - was).abs().max().item()
        change, count = max(change, moved), count + (moved > 0)
    return off, change, count


class Table:
    """What was found, a row at a time."""

    def __init__(self, program):
        self.program, self.bad = program, 0
        print(f"{'model':6} {'file':34} {'direction':10} {'difference':>10} {'change':>8} {'tensors':>7}  verdict", flush=True)

    def row(self, model, file, direction, found, limit, note=""):
        off, change, count = found
        good = off <= limit and count > 0 and not note
        self.bad += not good
        verdict = "equal" if good else note or f"DIFFERS (limit {limit:g})"
        print(f"{model:6} {file:34} {direction:10} {off:10.1e} {change:8.1e} {count:7d}  {verdict}", flush=True)

    def refused(self, model, file, direction, why):
        self.bad += 1
        print(f"{model:6} {file:34} {direction:10} {'-':>10} {'-':>8} {'-':>7}  REFUSED: {why}", flush=True)

    def end(self):
        print(f"{self.program}: {self.bad} rows are not equal")
        return int(self.bad > 0)


def effective(layer):
    """The weight that a layer computes with, adapters and all."""
    bias = layer.bias if layer.bias is not None else 0
    if isinstance(layer, torch.nn.Linear):
        return (layer(torch.eye(layer.in_features)) - bias).T.clone()
    k, p = layer.kernel_size[0], layer.padding[0]
    assert layer.stride[0] == 1
    side = 2 * k - 1
    x = torch.zeros(layer.in_channels, layer.in_channels, side, side)
    x[range(layer.in_channels), range(layer.in_channels), k - 1, k - 1] = 1
    y = layer(x) - (bias.view(1, -1, 1, 1) if layer.bias is not None else 0)
    y = y[:, :, p : p + k, p : p + k] if side + 2 * p - k + 1 > k else y
    return y.flip(2, 3).transpose(0, 1).clone()


@contextlib.contextmanager
def workplace(keep):
    """A folder to work in, kept where one is named."""
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


def stirred(module, seed=7, size=0.2):
    """Values that are not those of the start, so that everything counts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape, generator=generator) * size)
