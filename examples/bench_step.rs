//! One training step of a denoiser, timed: random weights and inputs, the mean squared error, the backward pass, AdamW.
//! `benches/step` runs it in turn with the same step in PyTorch. Prints one line of JSON.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, Device, Error, Result, Tensor};
use clap::{Parser, ValueEnum};
use sconce_core::Cond;
use sconce_core::adapter::Adapter;
use sconce_core::model::{Backbone, Recompute};
use sconce_core::optimizer::{At, Optimizer, Trained};
use sconce_core::train::peak_bytes;
use sconce_models::flux::{self, Flux};
use sconce_models::sd::unet::{self, UNet};
use sconce_models::sd3::{self, Mmdit};
use sconce_nn::checkpoint::{backward, backward_releasing, on_big_stack};
use sconce_nn::rng::Stream;
use sconce_nn::store::Source;
use sconce_nn::{Param, Store};
use sconce_plugins::adapter::Lora;
use sconce_sdk::Choice;
use serde_json::{Map, Value};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Times one training step of a denoiser.
#[derive(Parser)]
struct Args {
    /// The config.json of a UNet, or of a transformer of Stable Diffusion 3 or Flux, in the layout of diffusers.
    #[arg(long)]
    config: PathBuf,
    /// Channels, height and width of the latents.
    #[arg(long, default_value = "4x32x32", value_parser = latent)]
    latent: [usize; 3],
    /// Samples of a step.
    #[arg(long, default_value_t = 4)]
    batch: usize,
    /// Length of the text's context.
    #[arg(long, default_value_t = 77)]
    tokens: usize,
    /// What trains: every weight, or a LoRA on the projections of all attentions.
    #[arg(long, value_enum, default_value = "full")]
    mode: Mode,
    /// Rank of the LoRA.
    #[arg(long, default_value_t = 16)]
    rank: usize,
    /// Type of frozen weights and activations; what trains is f32.
    #[arg(long, value_enum, default_value = "f32")]
    dtype: Type,
    /// Keep each block's inputs alone, and compute the rest again for the backward pass.
    #[arg(long)]
    checkpoint: bool,
    /// How long gradients are kept: until all are known, or each until its weight is updated.
    #[arg(long, value_enum, default_value = "all")]
    gradients: Gradients,
    /// Where to compute: `cpu`, `cuda:0`.
    #[arg(long, default_value = "cpu", value_parser = sconce_nn::kernels::open)]
    device: Device,
    /// Steps that are timed.
    #[arg(long, default_value_t = 10)]
    steps: usize,
    /// Steps before them.
    #[arg(long, default_value_t = 2)]
    warmup: usize,
    /// The optimizer, by its name in recipes, with its defaults.
    #[arg(long, default_value = "adamw")]
    optimizer: String,
    /// Threads of the process.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
#[value(rename_all = "lower")]
enum Mode {
    Full,
    Lora,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
#[value(rename_all = "lower")]
enum Gradients {
    All,
    Released,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "lower")]
enum Type {
    F32,
    Bf16,
}

fn latent(text: &str) -> std::result::Result<[usize; 3], String> {
    let sides: Vec<usize> = text.split('x').filter_map(|side| side.parse().ok()).collect();
    sides.try_into().map_err(|_| "channels, height and width, such as 4x32x32".into())
}

fn main() -> Result<()> {
    let args = Args::parse();
    // As the program does: candle's own threads would spin on the cores that the step uses.
    // SAFETY: no other thread runs yet.
    unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    sconce::memory::keep();
    on_big_stack(|| {
        sconce_nn::cpu::work_here(Some(args.threads));
        run(&args)
    })
}

fn run(args: &Args) -> Result<()> {
    let dtype = match args.dtype {
        Type::F32 => DType::F32,
        Type::Bf16 => DType::BF16,
    };
    let device = &args.device;
    let json = sconce_models::diffusers::read_json(&args.config)?;
    let store = Store::new("denoiser", Source::Random(0), dtype, device);
    let network = network(&store, &json, args)?;
    network.recompute(if args.checkpoint { Recompute::Blocks } else { Recompute::Nothing });
    let params = trained(args, &store)?;
    let (elements, trains) = (store.elements(), params.iter().map(|p| p.var.elem_count()).sum::<usize>());
    let chosen = Choice::<dyn Optimizer>::named(&args.optimizer).map_err(Error::wrap)?;
    let optimizer = Rc::new(RefCell::new(chosen.start(params.clone())?));
    let at = At { lr: chosen.lr(), seed: 0, images_seen: 0 };

    let normal = |name: &str, dims: &[usize]| Stream::new(1, name).normal(dims, device);
    let ([channels, height, width], batch) = (args.latent, args.batch);
    let x = normal("x", &[batch, channels, height, width])?.to_dtype(dtype)?; // B C H W
    let target = normal("target", &[batch, channels, height, width])?; // B C H W
    let time: Vec<f32> = Stream::new(1, "time").uniform(batch).iter().map(|u| (1000.0 * u).floor() as f32).collect();
    let time = Tensor::new(time, device)?; // B
    let cond = conditions(args, &json, normal)?;

    let step = || {
        let output = network.forward(&x, &time, &cond)?.to_dtype(DType::F32)?; // B C H W
        let loss = (output - &target)?.sqr()?.mean_all()?;
        let mut grads = match args.gradients {
            Gradients::All => backward(&loss)?,
            Gradients::Released => {
                let optimizer = optimizer.clone();
                let take = move |i, grad: Tensor| optimizer.borrow_mut().update(i, &grad, &at);
                let places = params.iter().enumerate().map(|(i, p)| (p.var.id(), i)).collect();
                backward_releasing(&loss, places, Box::new(take))?
            }
        };
        let grads: Vec<Option<Tensor>> = params.iter().map(|p| grads.remove(&p.var)).collect();
        optimizer.borrow_mut().step(&grads, &at)
    };
    let mut seconds = Vec::with_capacity(args.steps);
    for i in 0..args.warmup + args.steps {
        let start = Instant::now();
        step()?;
        device.synchronize()?;
        if i >= args.warmup {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    seconds.sort_by(f64::total_cmp);
    let median = match seconds.len() {
        0 => f64::NAN,
        n => (seconds[n / 2] + seconds[(n - 1) / 2]) / 2.0,
    };
    let line = serde_json::json!({
        "engine": "sconce",
        "params_m": elements as f64 / 1e6,
        "trained_m": trains as f64 / 1e6,
        "median_s": median,
        "min_s": seconds.first(),
        "peak_mib": peak_bytes().map(|bytes| bytes >> 20),
    });
    println!("{line}");
    Ok(())
}

/// What the config describes. From nothing a transformer's last map is zero, and so would be most gradients: its weights are
/// drawn like all others here.
fn network(store: &Arc<Store>, json: &Map<String, Value>, args: &Args) -> Result<Box<dyn Backbone>> {
    let network: Box<dyn Backbone> = match json.get("_class_name").and_then(Value::as_str) {
        Some("FluxTransformer2DModel") => Box::new(Flux::new(store.clone(), flux::Config::from_json(json.clone())?)?),
        Some("SD3Transformer2DModel") => Box::new(Mmdit::new(store.clone(), sd3::Config::from_json(json.clone())?)?),
        _ => Box::new(UNet::new(store.clone(), unet::Config::from_json(json.clone())?, 1000)?),
    };
    for param in store.params() {
        let zeros = param.tensor()?.to_dtype(DType::F32)?.sqr()?.sum_all()?.to_scalar::<f32>()? == 0.0;
        if zeros && param.shape().rank() == 2 {
            let drawn = (Stream::new(3, param.name()).normal(param.shape(), &args.device)? * 0.02)?;
            param.set(&drawn.to_dtype(store.dtype())?)?;
        }
    }
    Ok(network)
}

/// What the network reads beside latents and time.
fn conditions(
    args: &Args,
    json: &Map<String, Value>,
    normal: impl Fn(&str, &[usize]) -> Result<Tensor>,
) -> Result<Cond> {
    let field = |name: &str| json.get(name).and_then(|v| v.as_u64()).unwrap_or_default() as usize;
    let wide = field("cross_attention_dim").max(field("joint_attention_dim"));
    let cond = Cond::default().with("context", normal("context", &[args.batch, args.tokens, wide])?); // B L D
    if field("joint_attention_dim") > 0 {
        let cond = cond.with("pooled", normal("pooled", &[args.batch, field("pooled_projection_dim")])?); // B P
        return Ok(cond.with("guidance", Tensor::full(3.5f32, args.batch, &args.device)?)); // B
    }
    if json.get("addition_embed_type").is_none_or(Value::is_null) {
        return Ok(cond);
    }
    let pooled = field("projection_class_embeddings_input_dim") - 6 * field("addition_time_embed_dim");
    Ok(cond
        .with("pooled", normal("pooled", &[args.batch, pooled])?) // B P
        .with("time_ids", Tensor::full(64f32, (args.batch, 6), &args.device)?)) // B 6
}

/// What trains: every parameter, or a LoRA on each projection of an attention.
fn trained(args: &Args, store: &Store) -> Result<Vec<Trained>> {
    let train = |p: &Param| Ok(Trained::new(p.name(), p.train()?));
    if args.mode == Mode::Full {
        return store.params().iter().map(train).collect();
    }
    let lora = Lora { rank: args.rank, ..Lora::default() };
    let mut params = Vec::new();
    for layer in store.layers() {
        if ["to_q", "to_k", "to_v", "to_out.0"].iter().any(|name| layer.path().ends_with(&format!(".{name}"))) {
            let attached = lora.build(store, &layer, &Stream::new(2, layer.path()))?;
            layer.attach(attached.layer.clone());
            params.extend(attached.params.values().map(train).collect::<Result<Vec<_>>>()?);
        }
    }
    Ok(params)
}
